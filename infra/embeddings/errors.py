"""What can go wrong with embeddings."""


class EmbeddingsUnavailable(Exception):
    """The model could not be built, loaded or run, or the embedder was closed. A retry may help."""
