"""All strategies, and what they go by: each model names its own."""

from collections.abc import Callable
from decimal import Decimal

from infra.clock import Clock
from schemas.attempt import Attempt
from schemas.control import Deployment, Model
from services.router.strategies.base import Strategy
from services.router.strategies.cheapest import Cheapest
from services.router.strategies.fastest import Fastest, Latencies
from services.router.strategies.least_busy import LeastBusy
from services.router.strategies.least_used import LeastUsed, Used
from services.router.strategies.weighted import Weighted


class Strategies:
    """`busy` gives the calls of a deployment at work, `price` what the same call costs at each (None: nobody knows)."""

    def __init__(
        self, busy: Callable[[Deployment], int], price: Callable[[Deployment, int], Decimal | None], clock: Clock
    ) -> None:
        self._used = Used(clock)
        self._first_token, self._each_token = Latencies(clock), Latencies(clock)
        self._shuffle = Weighted()
        self._least_busy = LeastBusy(busy)
        self._least_used = LeastUsed(self._used.share)
        self._first_soonest = Fastest(self._first_token.mean_ms, busy)
        self._fastest = Fastest(self._each_token.mean_ms, busy)
        self._cheapest = Cheapest(lambda deployment: price(deployment, clock()))

    def of(self, model: Model, stream: bool) -> Strategy:
        """The strategy of a model, for a job that is streamed or not."""
        match model.strategy:
            case "simple-shuffle":
                return self._shuffle
            case "least-busy":
                return self._least_busy
            case "usage-based-routing":
                return self._least_used
            case "latency-based-routing":
                return self._first_soonest if stream else self._fastest
            case "cost-based-routing" | "usage-priority" | "lane-aware":
                return self._cheapest

    def begun(self, deployment: Deployment) -> None:
        """A call of it is about to be made."""
        self._used.add(deployment, calls=1)

    def ended(self, deployment: Deployment, attempt: Attempt, *, hung: bool = False) -> None:
        """A call of it is over. One that went well says how fast it is, and one that `hung` how slow."""
        tokens = attempt.usage.output_tokens
        self._used.add(deployment, tokens=attempt.usage.input_tokens + tokens)
        if attempt.status != "completed" and not hung:
            return
        self._each_token.add(deployment, attempt.latency_ms / max(1, tokens))
        first_ms = attempt.latency_ms if hung and not tokens else attempt.ttft_ms
        if first_ms is not None:
            self._first_token.add(deployment, first_ms)
