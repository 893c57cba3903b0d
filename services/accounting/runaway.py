"""Keys that run away: a pattern that jumps, seen in what they complete. The detector is pure, `Watch` looks up and tells.

Two patterns. Equal requests within a minute count in both lanes, from a key's first minute on. The pace of requests and of
spend is held against the key's own history, and in the interactive lane only: batches come in bursts by nature. History is kept
in this process alone: after a start, and for a key that was resumed, it is learned anew.
"""

import logging
from collections import OrderedDict
from dataclasses import dataclass
from typing import Final, Literal

from infra.alerts import Alerts
from infra.hierarchy import effective, levels
from infra.kafka.table import ControlTable
from schemas.alert import RunawayFacts
from schemas.budget import NANO, nano
from schemas.job import Caller
from schemas.policy import RunawayPolicy
from schemas.topics import Lane
from services.accounting.usual import Usual, few

log = logging.getLogger(__name__)

MOST_KEYS: Final = 50_000
MOST_PROMPTS: Final = 64
"""Different requests that are counted of each key in a minute."""
LEAST_MINUTES: Final = 10
"""Minutes with requests that a key must have had before its pace is judged."""

_MINUTE_MS: Final = 60_000
_SHARE: Final = 1 / 60
"""What a minute counts in the history: one in which requests came an hour ago counts a third of the last."""
_FADING: Final = 0.5 ** (1 / 4320)
"""The most there has been fades by half in three days of minutes with requests."""
_LEAST_REQUESTS: Final = 1.0
_LEAST_NANO: Final = NANO / 100
"""The least standard deviations, for keys that never varied."""
_STALE_MS: Final = 15 * _MINUTE_MS

Pattern = Literal["same_prompt", "requests", "spend"]


@dataclass(frozen=True, slots=True)
class Finding:
    """A key runs away. `reason` says it with numbers, as part of a sentence; `usual_requests` a minute, 0 if not known yet."""

    pattern: Pattern
    reason: str
    usual_requests: float


class _Key:
    """The running minute of a key, and its usual one. `minutes`: that its history has; `told`: in which its pace was found;
    `dearest`: what the dearest request of the running minute cost. Money is nano-dollars."""

    __slots__ = ("dearest", "minute", "minutes", "prompts", "requests", "spent", "told", "usual_requests", "usual_spent")

    def __init__(self, minute: int) -> None:
        self.minute = minute
        self.minutes = 0
        self.told = -1
        self.requests = 0
        self.spent = 0
        self.dearest = 0
        self.prompts: dict[str, int] = {}
        self.usual_requests = Usual()
        self.usual_spent = Usual()

    def requests_deviation(self) -> float:
        """At least that of requests that come by chance (Poisson): the root of their mean."""
        return self.usual_requests.deviation(self.usual_requests.mean, _LEAST_REQUESTS)

    def spent_deviation(self) -> float:
        """At least that of requests that come by chance and cost the same each."""
        mean, requests = self.usual_spent.mean, self.usual_requests.mean
        return self.usual_spent.deviation(mean * mean / requests if requests else 0, _LEAST_NANO)

    def begin(self, minute: int, z_score: float) -> None:
        """Ends the running minute. It becomes history: without requests it says nothing, if it jumped it counts as the limit."""
        if self.requests:
            self._learn(z_score)
        self.minute, self.requests, self.spent, self.dearest = minute, 0, 0, 0
        self.prompts.clear()

    def _learn(self, z_score: float) -> None:
        requests, spent = float(self.requests), float(self.spent)
        if self.minutes >= LEAST_MINUTES:
            requests = min(requests, self.usual_requests.limit(z_score, self.requests_deviation()))
            spent = min(spent, self.usual_spent.limit(z_score, self.spent_deviation()))
        self.minutes += 1
        share = max(1 / self.minutes, _SHARE)
        self.usual_requests.learn(requests, share, _FADING)
        self.usual_spent.learn(spent, share, _FADING)


class Detector:
    """Looks at what keys complete, minute by minute. It knows the keys that were seen last: 50,000, some 40 MB."""

    def __init__(self, most_keys: int = MOST_KEYS) -> None:
        self._most = most_keys
        self._keys: OrderedDict[str, _Key] = OrderedDict()
        self._minute = 0

    def saw(self, key_id: str, lane: Lane, at_ms: int, usd_nano: int, fingerprint: str, policy: RunawayPolicy) -> Finding | None:
        """A finding if this request makes its key one that runs away. Each is made once: of a pace in each minute, of equal
        requests as often as `same_prompt` of them have come.

        `at_ms`: when it ended, unix milliseconds; what comes after its key's minute is over is left out. An empty fingerprint
        equals no other.
        """
        minute = at_ms // _MINUTE_MS
        if minute > self._minute:
            self._drop_prompts(minute)
        key = self._keys.get(key_id)
        if key is None:
            key = self._new(key_id, minute)
        else:
            self._keys.move_to_end(key_id)
        if minute != key.minute:
            if minute < key.minute:
                return None
            key.begin(minute, policy.z_score)
        if fingerprint and _count(key.prompts, fingerprint) >= policy.same_prompt:
            del key.prompts[fingerprint]
            return _of_prompts(key, policy.same_prompt)
        if lane is Lane.BATCH:
            return None
        key.requests += 1
        key.spent += usd_nano
        if usd_nano > key.dearest:
            key.dearest = usd_nano
        if key.minutes < LEAST_MINUTES or key.told == minute:
            return None
        return _of_pace(key, policy)

    def forget(self, key_id: str) -> None:
        """Begins anew with this key."""
        self._keys.pop(key_id, None)

    def __len__(self) -> int:
        """Keys that are known."""
        return len(self._keys)

    def prompts(self) -> int:
        """Different requests that are counted now, of all keys."""
        return sum(len(key.prompts) for key in self._keys.values())

    def _new(self, key_id: str, minute: int) -> _Key:
        key = self._keys[key_id] = _Key(minute)
        if len(self._keys) > self._most:
            self._keys.popitem(last=False)
        return key

    def _drop_prompts(self, minute: int) -> None:
        """Once a minute (8 ms with 50,000 keys): a key that is silent now needn't keep what it asked before."""
        self._minute = minute
        for key in self._keys.values():
            if key.prompts and key.minute < minute:
                key.prompts.clear()


def _count(prompts: dict[str, int], fingerprint: str) -> int:
    """How often this request has come. Where there are too many different ones, all lose one (Misra and Gries, 1982): what comes
    often stays, counted short by a 65th of all requests at most."""
    count = prompts.get(fingerprint, 0) + 1
    if count > 1 or len(prompts) < MOST_PROMPTS:
        prompts[fingerprint] = count
        return count
    left = {one: n - 1 for one, n in prompts.items() if n > 1}
    prompts.clear()
    prompts.update(left)
    return 0


def _of_prompts(key: _Key, count: int) -> Finding:
    return Finding("same_prompt", f"{count:,} equal requests within a minute", _known_requests(key))


def _of_pace(key: _Key, policy: RunawayPolicy) -> Finding | None:
    """What is cheap to ask is asked first: most minutes stay below what is looked at, or below their mean."""
    usual = key.usual_requests
    if key.requests >= policy.least_requests and key.requests > usual.mean:
        deviation = key.requests_deviation()
        if key.requests >= usual.limit(policy.z_score, deviation):
            z = (key.requests - usual.mean) / deviation
            return _told(key, "requests", f"{key.requests:,} requests a minute are {_above(z, usual.mean)}")
    usual = key.usual_spent
    # One dear request is no pattern.
    if (lasting := key.spent - key.dearest) > usual.mean:
        deviation = key.spent_deviation()
        if lasting >= usual.limit(policy.z_score, deviation) and key.spent >= nano(policy.least_usd):
            z = (key.spent - usual.mean) / deviation
            return _told(key, "spend", f"spend of {few(key.spent / NANO)} USD a minute is {_above(z, usual.mean / NANO)}")
    return None


def _above(z: float, usual: float) -> str:
    return f"{z:,.0f} standard deviations above this key's usual {few(usual)}"


def _told(key: _Key, pattern: Pattern, reason: str) -> Finding:
    key.told = key.minute
    return Finding(pattern, reason, _known_requests(key))


def _known_requests(key: _Key) -> float:
    return key.usual_requests.mean if key.minutes >= LEAST_MINUTES else 0.0


class Watch:
    """Gives what is settled to the detector, and tells of what it finds: the portal holds the key if the policy says so."""

    def __init__(self, table: ControlTable, alerts: Alerts, detector: Detector | None = None) -> None:
        self._table, self._alerts = table, alerts
        self._detector = detector or Detector()
        self._version = -1
        self._policies: dict[tuple[str, str], RunawayPolicy | None] = {}
        self._braked: OrderedDict[str, int] = OrderedDict()

    async def saw(self, caller: Caller, lane: Lane, at_ms: int, usd_nano: int, fingerprint: str) -> None:
        """Takes note of a completion (`at_ms`: its end), and tells if its key runs away. A key that is held is not looked at.

        Doesn't raise: billing goes on without the alert, and a key that goes on running away is found again a minute later.
        """
        policy = self._policy(caller)
        if policy is None:
            return
        now_ms = self._alerts.clock()
        # A clock that is ahead would make a key's later completions late for ever.
        finding = self._detector.saw(_watched(caller), lane, min(at_ms, now_ms), usd_nano, fingerprint, policy)
        # What accounting catches up with after an absence is history: a key that still runs away shows it soon.
        if finding is not None and now_ms - at_ms < _STALE_MS:
            await self._tell(caller, finding, policy)

    def _policy(self, caller: Caller) -> RunawayPolicy | None:
        """The policy that the caller's key is watched under; None: it isn't. Worked out once a change of the control topic."""
        if self._version != self._table.version or len(self._policies) > MOST_KEYS:
            self._policies.clear()
            self._version = self._table.version
        place = (caller.key_id, caller.user)
        try:
            return self._policies[place]
        except KeyError:
            found = self._policies[place] = self._looked_up(caller)
            return found

    def _looked_up(self, caller: Caller) -> RunawayPolicy | None:
        key = self._table.keys.get(caller.key_id)
        if key is not None and key.held is not None:
            return None
        braked = self._braked.get(caller.key_id)
        if key is not None and braked is not None and key.version != braked:
            # Somebody has resumed it, and so says that what it did was in order.
            del self._braked[caller.key_id]
            self._detector.forget(_watched(caller))
        policy = effective(levels(self._table, caller)).runaway
        return None if policy.action == "off" else policy

    async def _tell(self, caller: Caller, finding: Finding, policy: RunawayPolicy) -> None:
        key = self._table.keys.get(caller.key_id)
        # Who has come with an identity alone has no key to be held.
        action = policy.action if key is not None and policy.action != "off" else "alert"
        version = key.version if key is not None else 0
        facts = RunawayFacts(
            action=action,
            pattern=finding.pattern,
            reason=finding.reason,
            key_id=caller.key_id,
            key_version=version,
            usual_requests_per_minute=round(finding.usual_requests, 2),
        )
        if action != "alert":
            self._braked[caller.key_id] = version
            if len(self._braked) > MOST_KEYS:
                self._braked.popitem(last=False)
        try:
            await self._alerts.raise_(
                "runaway",
                _watched(caller),
                caller.team,
                message(caller, facts),
                "critical" if action == "pause" else "warning",
                facts.model_dump(mode="json"),
                about=str(version),
            )
        except Exception as error:
            log.warning("runaway: no alert about %s could be sent (%s)", _watched(caller), type(error).__name__)


def message(caller: Caller, facts: RunawayFacts) -> str:
    """What is told to people."""
    who = f"Key {caller.key_id}" if caller.key_id else f"User {caller.user}"
    done = {
        "alert": "",
        "throttle": f" It is throttled; `sluice keys resume {caller.key_id}` lifts that.",
        "pause": f" It is paused; `sluice keys resume {caller.key_id}` lets it go on.",
    }[facts.action]
    return f"{who} of team {caller.team} runs away: {facts.reason}.{done}"


def _watched(caller: Caller) -> str:
    return f"key/{caller.key_id}" if caller.key_id else f"user/{caller.user}"
