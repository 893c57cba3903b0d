"""Vectors with payload, searched by likeness: Qdrant, as a server or as files of this process."""
