"""Credentials by reference: where they lie, and how they are kept fresh without ever being written down."""
