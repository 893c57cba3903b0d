"""Which deployment of a model is asked: one file a strategy."""
