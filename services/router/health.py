"""Which deployments have failed lately, and how many calls they may be given again. Pure: the time is passed in.

A deployment that failed some times in a row cools: it isn't asked at all. Then it ramps up, as TCP does: two calls at once, and
one more with each that goes well, so twice as many each round; if that fails too, it cools again, for longer. A model may say
otherwise for its deployments: after how many failures a minute they cool, and for how long.
"""

from collections import deque
from dataclasses import dataclass, field

from infra.kafka.capacity import Capacity
from schemas.control import Model

IN_A_ROW = 5
"""More than one job alone makes: a request that breaks its provider doesn't take the deployment from all others."""
FIRST_COOL_MS = 5_000
LONGEST_COOL_MS = 60_000
FORGET_MS = 60_000
"""So long after the last failure, the next one is the first again: what is hardly ever asked has no row of them."""
PROBES = 2
WELL_AT = 256
"""So many calls at once have gone well: there is nothing left to be careful about."""

_MINUTE_MS = 60_000


@dataclass(slots=True)
class _Record:
    """`rounds`: how often it has cooled since it was well. `ramp`: the calls begun since it cooled last.

    `lately`: when it failed within the last minute, where its model counts so.
    """

    failures: int = 0
    failed_ms: int = 0
    rounds: int = 0
    until_ms: int = 0
    ramp: Capacity | None = None
    lately: deque[int] = field(default_factory=deque[int])


class Health:
    """Of all deployments that have failed since they were last well."""

    def __init__(self) -> None:
        self._sick: dict[str, _Record] = {}

    def failed(
        self, deployment: str, started_ms: int, now_ms: int, retry_after_s: float | None = None, model: Model | None = None
    ) -> None:
        """A call that began at `started_ms` could not be made, or was not answered as it should be. `model`: whose rules hold."""
        record = self._sick.setdefault(deployment, _Record())
        if started_ms < record.until_ms:
            # It was begun before the deployment cooled: that says nothing of how it is now.
            return
        record.failures = record.failures + 1 if now_ms - record.failed_ms < FORGET_MS else 1
        record.failed_ms = now_ms
        probing = record.ramp is not None and record.ramp.total == PROBES
        if _too_often(record, now_ms, model.allowed_fails if model else None) or probing:
            cool_ms = _cool_ms(record.rounds, retry_after_s, model.cooldown_s if model else None)
            self._sick[deployment] = _Record(rounds=record.rounds + 1, until_ms=now_ms + cool_ms)

    def worked(self, deployment: str, started_ms: int) -> None:
        """A call that began at `started_ms` went well."""
        record = self._sick.get(deployment)
        if record is None or started_ms < record.until_ms:
            return
        record.failures = 0
        if record.ramp is not None:
            resize(record.ramp, record.ramp.total + 1)
        if record.ramp is None or record.ramp.total >= WELL_AT:
            if record.lately:
                # What failed within the minute still counts, where a model counts so.
                record.rounds, record.until_ms, record.ramp = 0, 0, None
            else:
                del self._sick[deployment]

    def cools_until(self, deployment: str, now_ms: int) -> int:
        """Until when it is to be left alone; 0 if it may be asked."""
        record = self._sick.get(deployment) if self._sick else None
        return record.until_ms if record and record.until_ms > now_ms else 0

    def ramp(self, deployment: str, now_ms: int) -> Capacity | None:
        """How many calls it may have at once while it recovers; None if it is well."""
        record = self._sick.get(deployment) if self._sick else None
        if record is None or not record.rounds or record.until_ms > now_ms:
            return None
        if record.ramp is None:
            record.ramp = capacity(PROBES)
        return record.ramp


def _too_often(record: _Record, now_ms: int, allowed: int | None) -> bool:
    """Whether it has failed, with this time, more often than a minute's `allowed`; or in a row, where nobody says otherwise."""
    if allowed is None:
        return record.failures >= IN_A_ROW
    lately = record.lately
    lately.append(now_ms)
    while lately[0] <= now_ms - _MINUTE_MS or len(lately) > allowed + 1:
        lately.popleft()
    return len(lately) > allowed


def _cool_ms(rounds: int, retry_after_s: float | None, cooldown_s: float | None) -> int:
    """How long it cools: as its model says, else longer each time; and as long as its provider asks for, up to a minute."""
    asked_ms = min(int((retry_after_s or 0) * 1000), LONGEST_COOL_MS)
    if cooldown_s is not None:
        return max(int(cooldown_s * 1000), asked_ms)
    return max(min(FIRST_COOL_MS * 2 ** min(rounds, 10), LONGEST_COOL_MS), asked_ms)


def capacity(total: int) -> Capacity:
    """Places for both lanes, as a stage has them; a single one goes to whoever comes."""
    return Capacity.of(total) if total > 1 else Capacity(total, reserved=0, guaranteed=0)


def resize(places: Capacity, total: int) -> None:
    """More or fewer places, with whoever has one of them."""
    if places.total != total:
        shares = capacity(total)
        places.total, places.reserved, places.guaranteed = shares.total, shares.reserved, shares.guaranteed
