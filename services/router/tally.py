"""What became of the calls of each deployment: in metrics, and of the last minute for who looks.

Labels are ids of deployments, which come from the control table alone; what is gone from there loses its series.
"""

from collections.abc import Mapping, Set
from typing import Final, Literal

from prometheus_client import Counter, Gauge, Histogram

from infra.clock import Clock
from infra.telemetry import metrics
from infra.telemetry.minute import Minute
from schemas.deployments import BreakerState
from services.router.providers.base import Kind

Outcome = Literal["ok", "cancelled"] | Kind
"""How a call ended: well, or because nobody waited any more, or as its failure says."""

_ERRORS: Final = frozenset({"denied", "throttled", "unavailable"})
"""What speaks against the deployment, not the request."""

_STATES: Final[Mapping[BreakerState, int]] = {"closed": 0, "half_open": 1, "open": 2, "quarantined": 3, "drained": 4}


class _Of:
    """What is counted of one deployment. prometheus_client looks children up under a lock."""

    def __init__(self, deployment: str) -> None:
        self.minute = Minute()
        self.outcomes: dict[Outcome, Counter] = {}
        self.took: Histogram = metrics.DEPLOYMENT_SECONDS.labels(deployment)
        self.first: Histogram = metrics.DEPLOYMENT_FIRST_TOKEN_SECONDS.labels(deployment)


class Tally:
    """Of all deployments that this process has called."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._of: dict[str, _Of] = {}
        self._states: dict[str, Gauge] = {}
        self._limited: set[str] = set()

    def ended(self, deployment: str, outcome: Outcome, latency_ms: float, first_ms: float | None = None) -> None:
        """A call is over. `first_ms`: until the first token of a stream."""
        of = self._known(deployment)
        counter = of.outcomes.get(outcome)
        if counter is None:
            counter = of.outcomes[outcome] = metrics.DEPLOYMENT_CALLS.labels(deployment, outcome)
        counter.inc()
        of.minute.add(self._clock(), latency_ms if outcome == "ok" else None, error=outcome in _ERRORS)
        if outcome == "ok":
            of.took.observe(latency_ms / 1000)
            if first_ms is not None:
                of.first.observe(first_ms / 1000)

    def minute(self, deployment: str) -> tuple[int, int, Mapping[int, int]]:
        """Calls and errors of the last minute, and how many took how long (infra/telemetry/minute.py)."""
        of = self._of.get(deployment)
        return of.minute.total(self._clock()) if of else (0, 0, {})

    def stands(self, deployment: str, state: BreakerState, limit: int | None) -> None:
        """How it is now, and how many calls at once it may have."""
        if deployment not in self._states:
            self._states[deployment] = metrics.DEPLOYMENT_STATE.labels(deployment)
        self._states[deployment].set(_STATES[state])
        if limit is not None:
            self._limited.add(deployment)
            metrics.DEPLOYMENT_LIMIT.labels(deployment).set(limit)
        elif deployment in self._limited:
            self._limited.remove(deployment)
            metrics.DEPLOYMENT_LIMIT.remove(deployment)

    def keep(self, deployments: Set[str]) -> None:
        """Forgets all but these."""
        for deployment in (self._of.keys() | self._states.keys()) - deployments:
            self._of.pop(deployment, None)
            self._states.pop(deployment, None)
            self._limited.discard(deployment)
            for metric in _METRICS:
                metric.remove_by_labels({"deployment": deployment})

    def _known(self, deployment: str) -> _Of:
        of = self._of.get(deployment)
        if of is None:
            of = self._of[deployment] = _Of(deployment)
        return of


_METRICS: Final = (
    metrics.DEPLOYMENT_CALLS,
    metrics.DEPLOYMENT_SECONDS,
    metrics.DEPLOYMENT_FIRST_TOKEN_SECONDS,
    metrics.DEPLOYMENT_STATE,
    metrics.DEPLOYMENT_LIMIT,
)


def fell_back(model: str, to: str) -> None:
    """A job of this model is asked of another one."""
    metrics.FALLBACKS.labels(model, to).inc()


def hedged(result: Literal["won", "lost"]) -> None:
    """A second call was first, or was not."""
    metrics.HEDGES.labels(result).inc()
