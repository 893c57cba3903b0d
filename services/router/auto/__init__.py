"""How hard a request is, and what it wants done: judged by a small classifier, before any model is asked."""
