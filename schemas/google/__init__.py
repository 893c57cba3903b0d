"""Bodies as Google's Gemini API and Vertex AI speak them, as far as Sluice reads them. What we don't know is left out."""
