"""What each Claude takes, by its name: Anthropic refuses what the model doesn't know, and callers don't know the model. Pure.

A Claude whose name has no number (`claude-mythos-preview`) counts as the newest; who isn't a Claude, behind an API like
Anthropic's, as an old one.
"""

import re

_NUMBER = re.compile(r"claude(?:-[a-z]+)*-(\d{1,2})(?:[-.](\d{1,2}))?(?![\d.])")
_NEWEST = (99, 0)
_OLDEST = (0, 0)


def takes_samplers(model: str) -> bool:
    """temperature, top_p and top_k; since 4.7 any but the default is an error."""
    return _generation(model) < (4, 7)


def thinks_adaptively(model: str) -> bool:
    """It decides for itself how much to think, and is told an effort; others are given a budget of tokens."""
    return _generation(model) >= (4, 6)


def keeps_to_schemas(model: str) -> bool:
    """Arguments of tools can be held to their schema (`strict`)."""
    return _generation(model) >= (4, 1)


def _generation(model: str) -> tuple[int, int]:
    name = model.lower()
    if "claude" not in name:
        return _OLDEST
    found = _NUMBER.search(name)
    return (int(found[1]), int(found[2] or 0)) if found else _NEWEST
