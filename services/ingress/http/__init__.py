"""The HTTP door: one file a family of endpoints."""
