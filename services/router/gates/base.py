"""What a gate is."""

from typing import Protocol

LOOK_AGAIN_MS = 5_000
"""After so long a gate is asked again that doesn't know when it will open."""


class Gate(Protocol):
    """Says whether batch jobs of one model may go. Pure: what has to be measured is measured elsewhere."""

    def closed_until(self, now_ms: int) -> int:
        """0 if it is open; else when it opens (unix milliseconds), or when to ask again."""
        ...
