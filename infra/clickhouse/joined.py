"""Small blocks of several partitions that are closed at one time go into ClickHouse as one.

A block costs it 20 ms and more, however few its rows: files are made, and synced. Each block keeps its own plan: whoever comes
after a crash writes it again by itself, and rows that are there already are replaced by themselves.
"""

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Final, Generic, TypeVar

from infra.clickhouse.blocks import Plan
from infra.clickhouse.client import ClickHouseRejected

Row = TypeVar("Row")

WAIT_S: Final = 0.03
"""For the others that were closed at the same time: their plans are being written down."""
SMALL: Final = 1_000
"""Rows. Of larger blocks it's their rows that cost."""


class _Group(Generic[Row]):
    writing: "asyncio.Task[None]"

    def __init__(self) -> None:
        self.blocks: list[tuple[Plan, Sequence[Row]]] = []
        self.waiting = 0


class Joined(Generic[Row]):
    """Joins blocks before they are written by `write`."""

    def __init__(self, write: Callable[[Plan, Sequence[Row]], Awaitable[None]]) -> None:
        self._write = write
        self._open: _Group[Row] | None = None

    async def write(self, plan: Plan, rows: Sequence[Row]) -> None:
        """As the `write` that was given; the block may be written even if this is cancelled."""
        if plan.again or len(rows) >= SMALL:
            await self._write(plan, rows)
            return
        group = self._open
        if group is None:
            group = self._open = _Group()
            group.writing = asyncio.create_task(self._close(group))
        group.blocks.append((plan, rows))
        try:
            await self._written(group)
        except ClickHouseRejected:
            if len(group.blocks) == 1:
                raise
            # One of them is to blame: the others mustn't wait for it.
            await self._write(replace(plan, again=True), rows)

    async def _written(self, group: _Group[Row]) -> None:
        group.waiting += 1
        try:
            await asyncio.shield(group.writing)
        finally:
            group.waiting -= 1
            if not group.waiting:
                group.writing.cancel()
                if self._open is group:
                    # Nobody may join what won't be written.
                    self._open = None

    async def _close(self, group: _Group[Row]) -> None:
        await asyncio.sleep(WAIT_S)
        self._open = None
        (plan, rows), *others = group.blocks
        if others:
            plan = replace(plan, topic=f"joined:{secrets.token_hex(8)}")
            rows = [row for _, part in group.blocks for row in part]
        await self._write(plan, rows)
