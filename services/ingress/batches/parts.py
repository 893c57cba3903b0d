"""The files of a batch while they grow, on this machine's disk."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO, Self

from schemas.batch import BatchResult
from services.ingress.batches.tally import Part


class Parts:
    """Output and errors. Open between entering and leaving; entered again, they go on where they were."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._open: dict[Part, BinaryIO] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for file in self._open.values():
            file.close()
        self._open.clear()

    async def add(self, told: Sequence[tuple[Part, BatchResult]]) -> None:
        """Appends lines, each to its file."""
        await asyncio.to_thread(self._add, told)

    def path(self, part: Part) -> Path:
        return self._folder / f"{part}.jsonl"

    def has(self, part: Part) -> bool:
        """True if anything stands in this file."""
        return self.path(part).exists()

    def _add(self, told: Sequence[tuple[Part, BatchResult]]) -> None:
        for part, result in told:
            if part not in self._open:
                self._open[part] = self.path(part).open("ab")
            self._open[part].write(result.model_dump_json().encode() + b"\n")
