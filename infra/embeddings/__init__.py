"""Text to vectors, in this process: all-MiniLM-L6-v2 in int8."""
