"""A batch is run: from its order to its files."""
