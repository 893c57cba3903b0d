"""Which deployments have failed lately, and how many calls they may be given again. Pure: the time is passed in.

A deployment that failed some times in a row, or too many of whose calls fail, cools: it isn't asked at all. Then it ramps up, as
TCP does: two calls at once, and one more with each that goes well, so twice as many each round; if that fails too, it cools again
and longer. A model may say otherwise for its deployments: after how many failures a minute they cool, and for how long. One whose
provider refuses our credential is in quarantine, which is the same for longer.

All routers leave alone what one of them does, and one of them tries it first (shared_health.py carries what they tell each
other). While they can't be told, each goes by what it sees itself.
"""

from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field

from infra.kafka.capacity import Capacity
from infra.redis.health import Change, Closed, Eased, Lifted, Opened, Standing, Wants, Why
from schemas.control import Model
from schemas.deployments import BreakerState
from services.router.providers.base import Kind

IN_A_ROW = 5
"""More than one job alone makes: a request that breaks its provider doesn't take the deployment from all others."""
FIRST_COOL_MS = 5_000
LONGEST_COOL_MS = 60_000
FIRST_QUARANTINE_MS, LONGEST_QUARANTINE_MS = 60_000, 900_000
FORGET_MS = 60_000
"""So long after the last failure, the next one is the first again: what is hardly ever asked has no row of them."""
PROBES = 2
WELL_AT = 256
"""So many calls at once have gone well: there is nothing left to be careful about."""

WINDOW_MS, LEAST_CALLS, FAILING_SHARE, DEAD_SHARE = 10_000, 10, 0.5, 0.8
"""Of at least so many calls within this time half failed: whoever else there is does better. The last one that is up is given up
only if hardly any call goes well: half an answer is better than none."""

_MOST_CALLS = 100
_MINUTE_MS = 60_000
_LOOK_AGAIN_MS = 500


@dataclass(slots=True)
class _Record:
    """`rounds`: how often it has cooled since it was well. `ramp`: the calls begun since it cooled last.

    `lately`: when it failed within the last minute, where its model counts so. `window`: its last calls since one failed, and
    whether each did. `stamp`: of what all routers know of it, 0 if that is nothing; until `held_ms` one of them alone may try it.
    """

    failures: int = 0
    failed_ms: int = 0
    rounds: int = 0
    until_ms: int = 0
    why: Why = "failures"
    ramp: Capacity | None = None
    lately: deque[int] = field(default_factory=deque[int])
    window: deque[tuple[int, bool]] = field(default_factory=lambda: deque[tuple[int, bool]](maxlen=_MOST_CALLS))
    stamp: int = 0
    held_ms: int = 0
    is_mine: bool = False


class Health:
    """Of all deployments that have failed since they were last well. `drained`: those that an operator has taken out.

    `changed` is called when the other routers should hear something soon.
    """

    def __init__(self) -> None:
        self.drained: Collection[str] = ()
        self.changed: Callable[[], None] = lambda: None
        self._sick: dict[str, _Record] = {}
        self._changes: dict[str, Change] = {}
        self._tries: set[str] = set()
        self._checks: set[str] = set()
        self._shares = False

    def failed(
        self,
        deployment: str,
        started_ms: int,
        now_ms: int,
        retry_after_s: float | None = None,
        model: Model | None = None,
        kind: Kind = "unavailable",
    ) -> None:
        """A call that began at `started_ms` could not be made, or was not answered as it should be.

        `model`: whose rules hold, with those of its deployments that could have been asked instead.
        """
        record = self._sick.setdefault(deployment, _Record())
        if started_ms < record.until_ms and (kind != "denied" or record.why == "credential"):
            # It was begun before the deployment cooled: that says nothing of how it is now.
            return
        if kind == "denied":
            rounds = record.rounds if record.why == "credential" else 0
            quarantine_ms = min(FIRST_QUARANTINE_MS * 2 ** min(rounds, 10), LONGEST_QUARANTINE_MS)
            self._open(Opened(deployment, now_ms + quarantine_ms, rounds + 1, "credential"))
            return
        record.failures = record.failures + 1 if now_ms - record.failed_ms < FORGET_MS else 1
        record.failed_ms = now_ms
        record.window.append((now_ms, True))
        others = tuple(other.id for other in model.deployments if other.id != deployment) if model else ()
        is_last = model is not None and all(self.cools_until(other, now_ms) for other in others)
        why = _given_up(record, now_ms, model.allowed_fails if model else None, is_last=is_last)
        if why is not None:
            cool_ms = _cool_ms(record.rounds, retry_after_s, model.cooldown_s if model else None)
            spared = others if why == "errors" else ()
            self._open(Opened(deployment, now_ms + cool_ms, record.rounds + 1, why, spared))

    def worked(self, deployment: str, started_ms: int, now_ms: int) -> None:
        """A call that began at `started_ms` went well."""
        record = self._sick.get(deployment)
        if record is None or started_ms < record.until_ms:
            return
        record.failures = 0
        record.window.append((now_ms, False))
        if record.stamp:
            self._tell(Closed(deployment, record.stamp))
            record.stamp = record.held_ms = 0
        elif isinstance(self._changes.get(deployment), Opened):
            del self._changes[deployment]
        if record.ramp is not None:
            resize(record.ramp, record.ramp.total + 1)
        if record.ramp is None or record.ramp.total >= WELL_AT:
            record.rounds, record.until_ms, record.ramp = 0, 0, None
            # What failed lately still counts.
            if not record.lately and not _lately(record, now_ms):
                del self._sick[deployment]

    def cools_until(self, deployment: str, now_ms: int) -> int:
        """Until when it is to be left alone; 0 if it may be asked."""
        if deployment in self.drained:
            return now_ms + _MINUTE_MS
        record = self._sick.get(deployment) if self._sick else None
        if record is None or not record.rounds:
            return 0
        if record.stamp and self._shares:
            held = record.held_ms > now_ms
            if not held and deployment not in self._tries:
                self._tries.add(deployment)
                if record.until_ms <= now_ms:
                    # Nobody tries it yet: this router does, and the others hear of it.
                    self.changed()
            if held and not record.is_mine:
                return max(record.until_ms, min(record.held_ms, now_ms + _LOOK_AGAIN_MS))
        return record.until_ms if record.until_ms > now_ms else 0

    def ramp(self, deployment: str, now_ms: int) -> Capacity | None:
        """How many calls it may have at once while it recovers; None if it is well."""
        record = self._sick.get(deployment) if self._sick else None
        if record is None or not record.rounds or record.until_ms > now_ms:
            return None
        if record.ramp is None:
            record.ramp = capacity(PROBES)
        return record.ramp

    def state(self, deployment: str, now_ms: int) -> tuple[BreakerState, str, int]:
        """How it is, why, and until when (0: nobody knows)."""
        if deployment in self.drained:
            return "drained", "operator", 0
        record = self._sick.get(deployment)
        if record is None or not record.rounds:
            return "closed", "", 0
        if record.until_ms <= now_ms:
            tried = not record.stamp if self._shares else record.ramp is not None and record.ramp.total > PROBES
            return ("closed", "", 0) if tried else ("half_open", record.why, 0)
        return "quarantined" if record.why == "credential" else "open", record.why, record.until_ms

    def credential_changed(self, deployment: str, now_ms: int) -> None:
        """It is called with another credential from now on: what the one before was told says nothing any more."""
        record = self._sick.get(deployment)
        if record and record.rounds and record.why == "credential":
            self._tell(Lifted(deployment))
            _lift(record, now_ms)
        elif record is None or not record.rounds:
            # Calls that are under way with the one before may still be refused.
            self._sick[deployment] = _Record(until_ms=now_ms, why="credential")

    def forget(self, deployments: Iterable[str]) -> None:
        """They are there no more; should they come back, nothing is held against them."""
        for deployment in deployments:
            if self._sick.pop(deployment, None):
                self._tell(Lifted(deployment))

    def rounds(self, now_ms: int) -> Mapping[str, int]:
        """How often each of those that are left alone now has been so in a row."""
        return {name: record.rounds for name, record in self._sick.items() if record.rounds and record.until_ms > now_ms}

    def may_check(self, deployment: str, now_ms: int) -> bool:
        """True if this router may look after it, though it is left alone; it asks for that right if it has none."""
        record = self._sick.get(deployment)
        if record is None or record.until_ms <= now_ms:
            return False
        if self._shares and record.held_ms <= now_ms:
            self._checks.add(deployment)
        return not self._shares or (record.held_ms > now_ms and record.is_mine)

    def eased(self, deployment: str, now_ms: int) -> None:
        """It has been looked after, and may be tried at once."""
        record = self._sick.get(deployment)
        if record is None or record.until_ms <= now_ms:
            return
        if record.stamp:
            self._tell(Eased(deployment, record.stamp))
        else:
            self._changes.pop(deployment, None)
        record.until_ms = now_ms

    # What all routers know

    def to_tell(self) -> tuple[list[Change], Wants]:
        """What has changed since this was asked last, and what this router would do."""
        changes, wants = list(self._changes.values()), Wants(frozenset(self._tries), frozenset(self._checks))
        self._changes.clear()
        self._tries.clear()
        self._checks.clear()
        return changes, wants

    def heard(self, standing: Mapping[str, Standing], told: Collection[Change], now_ms: int) -> None:
        """What stands for all routers, after they were `told`. What changed here meanwhile goes before it."""
        self._shares = True
        for deployment, state in standing.items():
            if deployment not in self._changes:
                record = self._sick.get(deployment)
                if record is None or record.stamp != state.stamp:
                    record = _Record(rounds=state.rounds, until_ms=state.until_ms, why=state.why, stamp=state.stamp)
                    self._sick[deployment] = record
                record.held_ms, record.is_mine = state.held_ms, state.is_mine
        spared = {change.deployment for change in told if isinstance(change, Opened)}
        for deployment, record in list(self._sick.items()):
            if deployment in standing or deployment in self._changes:
                continue
            if record.stamp:
                _lift(record, now_ms)
            elif deployment in spared or (record.rounds and record.until_ms + FORGET_MS < now_ms):
                # Another router has given up the others of its model meanwhile; or some router has had answers for a while.
                del self._sick[deployment]

    def unheard(self, told: Collection[Change]) -> None:
        """The others can't be told: each goes on by what it sees, and tells of it later."""
        self._shares = False
        for change in told:
            self._changes.setdefault(change.deployment, change)

    def _open(self, opened: Opened) -> None:
        self._sick[opened.deployment] = _Record(rounds=opened.rounds, until_ms=opened.until_ms, why=opened.why)
        self._tell(opened)

    def _tell(self, change: Change) -> None:
        self._changes[change.deployment] = change
        self.changed()


def _lift(record: _Record, now_ms: int) -> None:
    """It may be tried: what began before says nothing of how it is now."""
    record.until_ms, record.stamp, record.held_ms, record.ramp = min(record.until_ms, now_ms), 0, 0, None


def _given_up(record: _Record, now_ms: int, allowed: int | None, *, is_last: bool) -> Why | None:
    """Why it cools after this failure, if it does: by a minute's `allowed` ones, or where nobody says otherwise by a row of them,
    or the share that fails. The first calls after it cooled must not fail at all.
    """
    if record.ramp is not None and record.ramp.total == PROBES:
        return "failures"
    if allowed is not None:
        return "failures" if _too_often(record.lately, now_ms, allowed) else None
    calls = _lately(record, now_ms)
    failing = sum(failed for _, failed in calls) / len(calls)
    if record.failures >= IN_A_ROW and (not is_last or failing >= DEAD_SHARE):
        return "failures"
    return "errors" if len(calls) >= LEAST_CALLS and failing >= FAILING_SHARE and not is_last else None


def _lately(record: _Record, now_ms: int) -> deque[tuple[int, bool]]:
    """Its calls within the window; none before one failed."""
    calls = record.window
    while calls and calls[0][0] <= now_ms - WINDOW_MS:
        calls.popleft()
    if not any(failed for _, failed in calls):
        calls.clear()
    return calls


def _too_often(lately: deque[int], now_ms: int, allowed: int) -> bool:
    """Whether it has failed, with this time, more often than a minute's `allowed`."""
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
