"""Providers on loopback, each in its own wire format, strict about what they are sent."""
