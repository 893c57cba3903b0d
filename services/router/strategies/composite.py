"""All strategies, and what they go by: each model names its own."""

from collections.abc import Callable
from decimal import Decimal

from infra.clock import Clock
from schemas.attempt import Attempt
from schemas.control import Deployment, Model
from schemas.errors import ContentBlocked
from schemas.topics import Lane
from services.router.providers.failures import PASSED_ON
from services.router.strategies.base import Strategy
from services.router.strategies.cheapest import Cheapest
from services.router.strategies.durations import Durations
from services.router.strategies.fastest import Fastest, Latencies
from services.router.strategies.least_busy import LeastBusy
from services.router.strategies.least_used import LeastUsed, Used
from services.router.strategies.reserved_first import ReservedFirst
from services.router.strategies.weighted import Weighted

SLOWEST_FIRST_MS, SLOWEST_TOKEN_MS = 60_000.0, 2_000.0
"""Who takes so long for the first token, or for each one, is as slow as can be."""


_OF_THE_REQUEST = PASSED_ON - {404}
"""Where a provider doesn't know the model that a deployment names, that is no fault of the request."""


class Strategies:
    """`busy` gives the calls of a deployment at work, `price` what the same call costs at each (None: nobody knows)."""

    def __init__(
        self, busy: Callable[[Deployment], int], price: Callable[[Deployment, int], Decimal | None], clock: Clock
    ) -> None:
        self._used = Used(clock)
        self._first_token, self._each_token = Latencies(clock, SLOWEST_FIRST_MS), Latencies(clock, SLOWEST_TOKEN_MS)
        self._until_first, self._until_last = Durations(), Durations()
        self._shuffle = Weighted()
        self._least_busy = LeastBusy(busy)
        self._least_used = LeastUsed(self._used.share)
        self._first_soonest = Fastest(self._first_token.ms, busy)
        self._fastest = Fastest(self._each_token.ms, busy)
        self._cheapest = Cheapest(lambda deployment: price(deployment, clock()))
        self._reserved_first = ReservedFirst()

    def of(self, model: Model, lane: Lane, stream: bool) -> Strategy:
        """The strategy of a model, for a job of this lane that is streamed or not."""
        match model.strategy:
            case "simple-shuffle":
                return self._shuffle
            case "least-busy":
                return self._least_busy
            case "usage-based-routing":
                return self._least_used
            case "usage-priority":
                return self._reserved_first
            case "lane-aware" if lane is Lane.BATCH:
                return self._cheapest
            case "latency-based-routing" | "lane-aware":
                return self._first_soonest if stream else self._fastest
            case "cost-based-routing":
                return self._cheapest

    def begun(self, deployment: Deployment) -> None:
        """A call of it is about to be made."""
        self._used.add(deployment, calls=1)

    def ended(self, deployment: Deployment, attempt: Attempt, *, hung: bool = False, stream: bool = False) -> None:
        """A call of it is over. One that went well says how fast it is; one that failed, or `hung`, how slow.

        `stream`: of a call that had no first token, whether there was to be one.
        """
        self._used.add(deployment, tokens=attempt.usage.input_tokens + attempt.usage.output_tokens)
        streamed = stream or attempt.ttft_ms is not None
        self._learn(deployment, attempt, hung, streamed)
        if attempt.ttft_ms is not None:
            self._until_first.add(deployment, attempt.ttft_ms)
        elif attempt.status == "completed":
            self._until_last.add(deployment, attempt.latency_ms)
        elif hung or attempt.status == "cancelled":
            (self._until_first if streamed else self._until_last).add_at_least(deployment, attempt.latency_ms)

    def _learn(self, deployment: Deployment, attempt: Attempt, hung: bool, streamed: bool) -> None:
        """How fast it is."""
        took_ms, first_ms = attempt.latency_ms, attempt.ttft_ms
        each_ms = took_ms / max(1, attempt.usage.output_tokens)
        if hung or (attempt.status == "failed" and not _of_the_request(attempt)):
            self._each_token.add_failure(deployment, each_ms)
            self._first_token.add_failure(deployment, took_ms if first_ms is None else first_ms)
            return
        if attempt.status == "completed":
            self._each_token.add(deployment, each_ms)
        if first_ms is not None:
            self._first_token.add(deployment, first_ms)
        elif streamed and attempt.status == "cancelled":
            self._first_token.add_at_least(deployment, took_ms)

    def p95_ms(self, deployment: Deployment, stream: bool) -> float | None:
        """What 19 of 20 calls take: until the first token of a stream, else until they are over. None: too few are known."""
        return (self._until_first if stream else self._until_last).p95_ms(deployment)


def _of_the_request(attempt: Attempt) -> bool:
    """True if it failed for what was asked, which says nothing of whom."""
    return attempt.http_status in _OF_THE_REQUEST or attempt.error == ContentBlocked.code
