"""Time and ids, as arguments: what a test wants to choose."""

import secrets
import time
from collections.abc import Callable

from schemas.ids import IdPrefix, uuid7_hex

Clock = Callable[[], int]
"""Gives unix milliseconds."""


def now_ms() -> int:
    """Unix milliseconds by the system's clock."""
    return time.time_ns() // 1_000_000


def new_id(prefix: IdPrefix, unix_ms: int) -> str:
    """A fresh id born at `unix_ms`, with 74 random bits."""
    return f"{prefix}_{uuid7_hex(unix_ms, secrets.randbits(74))}"
