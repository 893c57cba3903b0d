"""Every credential this process uses, by its reference: looked up when first needed, kept in memory, and kept fresh.

References: `env:NAME` (LiteLLM writes `os.environ/NAME`), `file:NAME` (in the data folder's `secrets`, or an absolute path) and
`vault:PATH#FIELD`. Environment and files are looked at again after a second. What Vault leases is renewed, or read anew, when two
thirds of its time are over; what has no lease is read anew every minute. While Vault is away, what is known serves on: a lease
until its end, anything else for as long as it takes.
"""

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

log = logging.getLogger(__name__)

VAULT = "vault:"
"""With which a reference into Vault begins."""

REFRESH_S = 60.0
"""Of a secret without a lease."""

_REMEMBER_S = 1.0
_RETRY_S, _LONGEST_RETRY_S = 1.0, 30.0
_TICK_S = 0.5


class VaultAway(Exception):
    """Vault doesn't answer, or not as it should; asked again it may."""


class VaultRefuses(VaultAway):
    """Vault answers that there is no such secret, or that it isn't for us."""


@dataclass(frozen=True, slots=True)
class Leased:
    """What was read at a path. `lease_s` 0: it has no lease, and is good until it is changed there."""

    fields: Mapping[str, str] = field(repr=False)
    lease_id: str = field(default="", repr=False)
    lease_s: int = 0
    renewable: bool = False


class Reads(Protocol):
    """What is needed of infra.secrets.vault's Vault."""

    async def read(self, path: str) -> Leased: ...
    async def renew(self, lease_id: str) -> int: ...


@dataclass(slots=True)
class _Kept:
    """What Vault gave for a path, and when to ask again. `ends_s`: of its lease; None: it has none."""

    leased: Leased = field(repr=False)
    due_s: float
    ends_s: float | None
    failures: int = 0


class Secrets:
    """Resolves references. `look_up` does so for environment and files, and may read one; `away` is told when Vault is gone.

    `now_s` is any clock that goes on steadily, `chance` gives a number from 0 up to 1. `changed` is called with a reference that
    stands for another secret than before.
    """

    def __init__(
        self,
        look_up: Callable[[str], str | None],
        vault: Reads | None,
        now_s: Callable[[], float],
        chance: Callable[[], float],
        away: Callable[[str], Awaitable[object]] | None = None,
    ) -> None:
        self._look_up = look_up
        self._vault = vault
        self._now_s = now_s
        self._chance = chance
        self._away = away
        self.changed: Callable[[str], None] = lambda _: None
        self._known: dict[str, tuple[float, str | None]] = {}
        # What was given out last, and since when, if it was another one before.
        self._given: dict[str, tuple[float, str | None]] = {}
        self._kept: dict[str, _Kept] = {}
        self._missing: dict[str, float] = {}
        self._reading: dict[str, asyncio.Task[bool]] = {}
        self._loop: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begins to renew in the background what will be used."""
        self._loop = asyncio.create_task(self._renew())

    async def stop(self) -> None:
        """Forgets everything."""
        tasks: list[asyncio.Task[Any]] = [task for task in (self._loop, *self._reading.values()) if task]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for known in (self._kept, self._known, self._given):
            known.clear()

    async def of(self, reference: str) -> str | None:
        """The secret, or None if there is none, or none any more. Waits for nothing but Vault, and for that once."""
        secret = await self._found(reference)
        before = self._given.get(reference)
        if before is None or before[1] != secret:
            self._given[reference] = (self._now_s() if before else -math.inf, secret)
            if before and secret:
                self.changed(reference)
        return secret

    async def refused(self, reference: str, age_s: float = 0.0) -> bool:
        """A provider won't take the credential that it was given `age_s` ago: whether there is another one since, or now.

        Looks again at once if there is none: of many calls with the same credential only the first need do so.
        """
        since_s = self._now_s() - age_s
        if await self.of(reference) is None or self._given[reference][0] < since_s:
            if path := _path(reference):
                await self._read(path)
            else:
                self._known.pop(reference, None)
        return await self.of(reference) is not None and self._given[reference][0] >= since_s

    async def _found(self, reference: str) -> str | None:
        path = _path(reference)
        if path is None:
            return self._local(reference)
        kept = self._kept.get(path)
        if kept is None and self._now_s() - self._missing.get(path, -_REMEMBER_S) >= _REMEMBER_S:
            await self._read(path)
            kept = self._kept.get(path)
        if kept is None or (kept.ends_s is not None and kept.ends_s <= self._now_s()):
            return None
        return kept.leased.fields.get(reference.partition("#")[2] or "value")

    async def refresh(self) -> None:
        """Asks Vault for everything that is due, and sees what has changed, though nobody may ask for it now."""
        now_s = self._now_s()
        for path in [path for path, kept in self._kept.items() if kept.ends_s is not None and kept.ends_s <= now_s]:
            log.error("the lease of %s is over and could not be renewed", path)
            del self._kept[path]
        await asyncio.gather(*(self._read(path) for path, kept in self._kept.items() if kept.due_s <= now_s))
        for reference in tuple(self._given):
            if (path := _path(reference)) is None or path in self._kept:
                await self.of(reference)

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(_TICK_S)
            try:
                await self.refresh()
            except Exception:
                log.exception("secrets could not be renewed, trying again")

    def _local(self, reference: str) -> str | None:
        now_s = self._now_s()
        known = self._known.get(reference)
        if known is None or now_s - known[0] > _REMEMBER_S:
            known = self._known[reference] = (now_s, (self._look_up(reference) or "").strip() or None)
        return known[1]

    async def _read(self, path: str) -> bool:
        """Renews or reads, once for all who ask at the same time; False if Vault gave nothing."""
        task = self._reading.get(path)
        if task is None:
            task = self._reading[path] = asyncio.create_task(self._fetch(path))
            task.add_done_callback(lambda _: self._reading.pop(path, None))
        return await asyncio.shield(task)

    async def _fetch(self, path: str) -> bool:
        kept = self._kept.get(path)
        try:
            if self._vault is None:
                raise VaultRefuses("no Vault is set: give SLUICE_VAULT")
            self._keep(path, await self._renewed(kept) or await self._vault.read(path))
        except VaultAway as error:
            await self._failed(path, kept, error)
            return False
        return True

    async def _renewed(self, kept: _Kept | None) -> Leased | None:
        """A lease that goes on; None if there is none that can."""
        if self._vault is None or kept is None or not kept.leased.renewable or kept.due_s > self._now_s():
            return None
        try:
            lease_s = await self._vault.renew(kept.leased.lease_id)
        except VaultRefuses:
            return None
        # Near its longest life a lease is prolonged by less and less: then another one is due.
        enough = lease_s * 2 >= kept.leased.lease_s
        return Leased(kept.leased.fields, kept.leased.lease_id, lease_s, kept.leased.renewable) if enough else None

    def _keep(self, path: str, leased: Leased) -> None:
        now_s = self._now_s()
        after_s = leased.lease_s * (0.6 + 0.1 * self._chance()) if leased.lease_id else REFRESH_S * (0.9 + 0.1 * self._chance())
        self._kept[path] = _Kept(leased, now_s + after_s, now_s + leased.lease_s if leased.lease_id else None)
        self._missing.pop(path, None)

    async def _failed(self, path: str, kept: _Kept | None, error: VaultAway) -> None:
        log.warning("the secret at %s can't be read: %s", path, error)
        now_s = self._now_s()
        if kept is None:
            self._missing[path] = now_s
        else:
            kept.failures += 1
            kept.due_s = now_s + min(_LONGEST_RETRY_S, _RETRY_S * 2 ** min(kept.failures, 10)) * (0.5 + 0.5 * self._chance())
        if self._away is not None:
            await self._away(f"The secret at {path} can't be read: {error}.")


def _path(reference: str) -> str | None:
    """In Vault; None for what lies elsewhere."""
    return reference.removeprefix(VAULT).partition("#")[0] if reference.startswith(VAULT) else None
