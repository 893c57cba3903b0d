"""What each Claude takes, by its name: Anthropic refuses what the model doesn't know, and callers don't know the model. Pure.

A Claude whose name has no number (`claude-mythos-preview`) counts as the newest; who isn't a Claude, behind an API like
Anthropic's, as an old one.
"""

import re
from collections.abc import Iterable, Iterator
from typing import Final

from schemas.base import JsonObject
from services.router.providers.chat import Chat

LEAST_BUDGET: Final = 1024
BUDGETS: Final = {"minimal": 1024, "low": 1024, "medium": 2048, "high": 4096, "xhigh": 8192, "max": 16_384}
"""Tokens of thought by `reasoning_effort`, LiteLLM's where it has one."""

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


def signed(blocks: Iterable[JsonObject]) -> Iterator[JsonObject]:
    """The thoughts that are a Claude's, as Anthropic writes them: others have no signature, and are refused."""
    for block in blocks:
        match block:
            case {"type": "thinking", "thinking": str(), "signature": str(signature)} if signature:
                yield {name: block[name] for name in ("type", "thinking", "signature")}
            case {"type": "redacted_thinking", "data": str()}:
                yield {name: block[name] for name in ("type", "data")}
            case _:
                pass


def calls_without_thoughts(chat: Chat) -> bool:
    """With a budget, Anthropic wants to see the thoughts behind the calls whose results it is given: few callers keep them."""
    last = [message for message in chat.messages if message.role in ("user", "assistant")][-1:]
    return any(message.tool_calls and not [*signed(message.thinking_blocks)] for message in last)


def _generation(model: str) -> tuple[int, int]:
    name = model.lower()
    if "claude" not in name:
        return _OLDEST
    found = _NUMBER.search(name)
    return (int(found[1]), int(found[2] or 0)) if found else _NEWEST
