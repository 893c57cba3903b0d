"""Rates over the last minutes, and what of them is worth an alert: errors of providers, second calls, late first tokens. Pure.

Completions become counts by minute. Those of all instances come together in Redis (infra/redis/rates.py), so that each judges
the whole, whatever partitions it reads.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

from infra.kafka.table import ControlTable
from schemas.alert import AlertKind, Severity
from schemas.alerting import LONGEST_MINUTES, AlertRules
from schemas.base import JsonObject
from schemas.topics import Lane
from services.accounting.sums import Call, Ended

MINUTE_MS: Final = 60_000
KEPT_MINUTES: Final = 360
"""As long as the longest window of a burn rate."""
MOST_FIELDS: Final = 2_000
"""Different things that a process counts in a minute; beyond that it counts those that it knows."""

_MOST_NAME: Final = 128
_APART: Final = "\x1f"
_CALLERS_FAULT: Final = frozenset({400, 404, 405, 409, 413, 415, 422})
_SHORT_LIVED_MINUTES: Final = LONGEST_MINUTES + 10
"""What isn't about objectives is kept for so long: rates, and the ten minutes of spend that are over."""

Kind = Literal["calls", "failed", "jobs", "fell", "first", "late", "spent"]
_OF_OBJECTIVES: Final = ("first", "late")
_Counted = dict[str, dict[tuple[str, ...], int]]


@dataclass(frozen=True, slots=True)
class Burn:
    """A pair of windows in minutes, and how many times faster than sustainable the budget of errors burns in both.

    These are the SRE workbook's ("Alerting on SLOs", 6: Multiwindow, Multi-Burn-Rate Alerts): 2 % of a month's budget in an
    hour, 5 % in six hours.
    """

    name: str
    long: int
    short: int
    rate: float
    severity: Severity


BURNS: Final = (Burn("fast", 60, 5, 14.4, "critical"), Burn("slow", 360, 30, 6, "warning"))


@dataclass(frozen=True, slots=True)
class Finding:
    """Something worth an alert. `about` tells those of one scope apart."""

    what: AlertKind
    scope: str
    message: str
    team: str = ""
    severity: Severity = "warning"
    facts: JsonObject = field(default_factory=dict)
    about: str = ""


def counts_of(ended: Ended, rules: AlertRules, table: ControlTable) -> Iterator[tuple[str, int]]:
    """What a completion adds, by field. Models that nobody has declared are not counted: there would be no end to them."""
    for call in ended.attempts:
        if call.status in ("completed", "failed", "unknown"):
            yield _field("calls", call.provider, call.deployment), 1
            if call.status != "completed" and call.http_status not in _CALLERS_FAULT:
                yield _field("failed", call.provider, call.deployment), 1
    if ended.shadow_of:
        return
    model = table.models.get(ended.model)
    if model is not None and ended.attempts:
        ways = {*model.fallbacks, *model.context_window_fallbacks, *model.content_policy_fallbacks}
        yield _field("jobs", model.name), 1
        if sum(not call.hedge for call in ended.attempts) > 1 or ended.attempts[-1].model in ways:
            yield _field("fell", model.name), 1
    if ended.lane is Lane.BATCH:
        return
    slo = rules.slo(ended.model) if model is not None else None
    if model is not None and slo is not None and (first_ms := _first_ms(ended)) is not None:
        # The threshold is part of the name: an objective that changes begins anew.
        yield _field("first", str(slo.ttft_ms), model.name), 1
        if first_ms > slo.ttft_ms:
            yield _field("late", str(slo.ttft_ms), model.name), 1
    if cost := ended.usd_nano:
        for scope in _scopes(ended):
            yield _field("spent", *scope), cost


def _first_ms(ended: Ended) -> float | None:
    """From acceptance to the first token, as the caller has waited for it; None where nothing was streamed."""
    streamed: Iterator[Call] = (c for c in reversed(ended.attempts) if c.status == "completed" and c.ttft_ms is not None)
    call = next(streamed, None)
    return None if call is None or call.ttft_ms is None else call.started_ms + call.ttft_ms - ended.accepted_ms


def _scopes(ended: Ended) -> Iterator[tuple[str, ...]]:
    """Whose spend it is: kind, team, name."""
    team = ended.caller.team
    yield "team", team
    if ended.caller.project:
        yield "project", team, ended.caller.project
    if ended.labels.feature:
        yield "feature", team, ended.labels.feature[:_MOST_NAME]


def _field(kind: Kind, *names: str) -> str:
    return _APART.join((kind, *names))


class Minutes:
    """Counts of the last six hours by minute: what all have counted, and what of it only we know yet."""

    def __init__(self) -> None:
        self.pending: dict[int, Counter[str]] = {}
        self._known: dict[int, _Counted] = {}

    def add(self, minute: int, name: str, by: int) -> None:
        """Counts."""
        counts = self.pending.get(minute)
        if counts is None:
            counts = self.pending[minute] = Counter()
        if name in counts or len(counts) < MOST_FIELDS:
            counts[name] += by

    def taken(self, added: Mapping[int, Counter[str]], known: Mapping[int, dict[str, int]]) -> None:
        """`added` stands in `known` now, and so does what the others have counted."""
        for minute, counts in added.items():
            self.pending[minute] -= counts
            if not self.pending[minute]:
                del self.pending[minute]
        for minute, counts in known.items():
            self._known[minute] = _sorted(counts)

    def forget(self, now: int) -> None:
        """Forgets what is too old to matter."""
        for minute in [minute for minute in self._known if minute <= now - KEPT_MINUTES]:
            del self._known[minute]
        for minute, counts in self._known.items():
            if minute <= now - _SHORT_LIVED_MINUTES:
                self._known[minute] = {kind: counts[kind] for kind in _OF_OBJECTIVES if kind in counts}

    def over(self, first: int, last: int, *kinds: Kind) -> dict[Kind, Counter[tuple[str, ...]]]:
        """The sums of these kinds over minutes, both included, by name."""
        sums: dict[Kind, Counter[tuple[str, ...]]] = {kind: Counter() for kind in kinds}
        for minute in range(first, last + 1):
            counts = self._known.get(minute, {})
            for kind in kinds:
                sums[kind].update(counts.get(kind, {}))
        return sums


def _sorted(counts: Mapping[str, int]) -> _Counted:
    """By kind, then by name."""
    found: _Counted = {}
    for field_, n in counts.items():
        kind, *names = field_.split(_APART)
        found.setdefault(kind, {})[tuple(names)] = n
    return found


def judged(minutes: Minutes, now: int, rules: AlertRules) -> list[Finding]:
    """All that is worth an alert in the minutes that end with this one."""
    return [*errors(minutes, now, rules), *fallbacks(minutes, now, rules), *burns(minutes, now, rules)]


def errors(minutes: Minutes, now: int, rules: AlertRules) -> Iterator[Finding]:
    """Deployments that fail; a provider where none of its deployments shows it by itself."""
    rule = rules.errors
    if not rule.enabled:
        return
    found = minutes.over(now - rule.minutes + 1, now, "calls", "failed")
    calls, failed = found["calls"], found["failed"]
    told = set[str]()
    for (provider, deployment), n in sorted(calls.items()):
        bad = failed[provider, deployment]
        if n >= rule.least_calls and bad / n >= rule.share:
            told.add(provider)
            yield _errors(f"deployment/{deployment}", f"Deployment {deployment} of {provider}", bad, n, rule.minutes)
    for provider in sorted({provider for provider, _ in calls} - told):
        n, bad = (sum(k for (whose, _), k in counts.items() if whose == provider) for counts in (calls, failed))
        if n >= rule.least_calls and bad / n >= rule.share:
            yield _errors(f"provider/{provider}", f"Provider {provider}", bad, n, rule.minutes)


def _errors(scope: str, who: str, bad: int, n: int, minutes: int) -> Finding:
    message = f"{who} failed {bad:,} of {n:,} calls in {minutes} minutes: {bad / n:.0%}"
    facts: JsonObject = {"failed": bad, "calls": n, "share": round(bad / n, 4), "minutes": minutes}
    return Finding("provider_errors", scope, message, severity="critical" if bad == n else "warning", facts=facts)


def fallbacks(minutes: Minutes, now: int, rules: AlertRules) -> Iterator[Finding]:
    """Models whose jobs need a second call too often."""
    rule = rules.fallbacks
    if not rule.enabled:
        return
    found = minutes.over(now - rule.minutes + 1, now, "jobs", "fell")
    for (model,), n in sorted(found["jobs"].items()):
        fell = found["fell"][model,]
        if n >= rule.least_jobs and fell / n >= rule.share:
            message = (
                f"{fell:,} of {n:,} jobs of model {model} needed a retry or a fallback in {rule.minutes} minutes: {fell / n:.0%}"
            )
            facts: JsonObject = {"fell": fell, "jobs": n, "share": round(fell / n, 4), "minutes": rule.minutes}
            yield Finding("fallback_rate", f"model/{model}", message, facts=facts)


def burns(minutes: Minutes, now: int, rules: AlertRules) -> Iterator[Finding]:
    """Models whose objective for first tokens burns: each by its fastest pair of windows."""
    if not rules.slos or not minutes.over(now - BURNS[-1].short + 1, now, "late")["late"]:
        return
    windows = {m: minutes.over(now - m + 1, now, "first", "late") for burn in BURNS for m in (burn.long, burn.short)}
    for place in sorted(windows[KEPT_MINUTES]["late"]):
        threshold, model = place
        slo = rules.slo(model)
        if slo is None or str(slo.ttft_ms) != threshold:
            continue
        for burn in BURNS:
            pair = [(windows[m]["late"][place], windows[m]["first"][place]) for m in (burn.long, burn.short)]
            rates = [late / first / (1 - slo.objective) if first else 0.0 for late, first in pair]
            late, first = pair[0]
            if first >= slo.least and min(rates) >= burn.rate:
                yield Finding(
                    "slo_burn",
                    f"model/{model}",
                    f"{late:,} of {first:,} first tokens of model {model} took more than {slo.ttft_ms / 1000:g} s in "
                    f"{burn.long} minutes: its objective of {slo.objective:.4g} burns {rates[0]:.1f} times too fast",
                    severity=burn.severity,
                    facts={
                        "late": late,
                        "first_tokens": first,
                        "burn_rate": round(rates[0], 2),
                        "burn_rate_short": round(rates[1], 2),
                        "minutes": burn.long,
                        "ttft_ms": slo.ttft_ms,
                        "objective": slo.objective,
                    },
                    about=burn.name,
                )
                break
