"""What becomes of requests, in metrics. Labels stay few whatever comes: what is one too many is counted as `other`.

prometheus_client looks children up under a lock; they are few and asked for on every job, so they are kept.
"""

from functools import cache
from typing import Final

from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from infra.telemetry import metrics
from infra.telemetry.genai import OPERATIONS
from schemas.attempt import Attempt
from schemas.completion import Completion
from schemas.errors import Fault
from schemas.job import Api

OTHER: Final = "other"


class Capped:
    """The first so many names; all later ones are `other`."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._known: set[str] = set()

    def __call__(self, name: str) -> str:
        if name in self._known:
            return name
        if len(self._known) >= self._most:
            return OTHER
        self._known.add(name)
        return name


team = Capped(1_000)
"""Teams and models come from the control topic, which may grow all the same, and change."""
model = Capped(1_000)
_pairs = Capped(10_000)
"""Teams times models."""


def attempted(api: Api, of: str, attempt: Attempt, chunks: int) -> None:
    """A provider call is over. `of`: the team; `chunks`: pieces of text that came."""
    operation, provider, usage = OPERATIONS[api], attempt.provider, attempt.usage
    _attempts(provider, attempt.status).inc()
    _seconds(operation, provider).observe(attempt.latency_ms / 1000)
    if usage.source != "none":
        _used("input", provider).observe(usage.input_tokens)
        _used("output", provider).observe(usage.output_tokens)
        who, asked = _pair(of, attempt.model)
        _tokens(who, asked, "input").inc(usage.input_tokens)
        _tokens(who, asked, "output").inc(usage.output_tokens)
        _cost(who, asked, provider).inc(float(attempt.cost_usd))
    if attempt.ttft_ms is None:
        return
    _first_chunk(operation, provider).observe(attempt.ttft_ms / 1000)
    rest_s = max(0.0, attempt.latency_ms - attempt.ttft_ms) / 1000
    if attempt.status == "completed" and chunks > 1:
        _chunk(operation, provider).observe(rest_s / (chunks - 1))
    if attempt.status == "completed" and usage.output_tokens > 1:
        _token(operation).observe(rest_s / (usage.output_tokens - 1))


def lost(attempt: Attempt, of: str) -> None:
    """A call of a dead life is booked: nobody knows how long it took."""
    _attempts(attempt.provider, attempt.status).inc()
    who, asked = _pair(of, attempt.model)
    _tokens(who, asked, "input").inc(attempt.usage.input_tokens)
    _cost(who, asked, attempt.provider).inc(float(attempt.cost_usd))


def ended(completion: Completion) -> None:
    """A job has ended."""
    status = completion.status.value
    _ended(completion.ended_by, status).inc()
    _requests(*_pair(completion.caller.team, completion.model), status).inc()
    if completion.attempts:
        _queued(completion.lane.value).observe(completion.queue_ms / 1000)
    if completion.fault is not None:
        failed(completion.fault)


def failed(fault: Fault) -> None:
    """A request was refused, or a job has failed."""
    _errors(fault.owner, status_class(fault.status)).inc()


def budget(scope: str, period: str, share: float) -> None:
    """So much of a budget is spent. Only teams' are shown: they are few."""
    kind, _, name = scope.partition("/")
    if kind == "team" and (of := team(name)) != OTHER:
        metrics.BUDGET_SPENT.labels(of, period).set(share)


def status_class(status: int) -> str:
    """Such as 4xx."""
    return f"{status // 100}xx" if 100 <= status < 600 else OTHER


def _pair(of: str, asked: str) -> tuple[str, str]:
    known = _pairs(f"{of}\x1f{asked}") != OTHER
    return (team(of), model(asked)) if known else (OTHER, OTHER)


class Counted:
    """Counts requests to an application by the template of their path, never by the path."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        status = 0

        async def noted(message: Message) -> None:
            nonlocal status
            status = status or message.get("status", 0)
            await send(message)

        try:
            await self._app(scope, receive, noted)
        except Exception:
            status = status or 500
            raise
        finally:
            found, method = scope.get("route"), scope.get("method", "")
            route = found.path if isinstance(found, Route) else OTHER
            _http(route, method if method in _METHODS else OTHER, status_class(status)).inc()


_METHODS: Final = frozenset({"DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"})

_http: Final = cache(metrics.HTTP_REQUESTS.labels)
_attempts: Final = cache(metrics.ATTEMPTS.labels)
_seconds: Final = cache(metrics.OPERATION_SECONDS.labels)
_used: Final = cache(metrics.TOKEN_USAGE.labels)
_tokens: Final = cache(metrics.TOKENS.labels)
_cost: Final = cache(metrics.COST_USD.labels)
_first_chunk: Final = cache(metrics.FIRST_CHUNK_SECONDS.labels)
_chunk: Final = cache(metrics.CHUNK_SECONDS.labels)
_token: Final = cache(metrics.TOKEN_SECONDS.labels)
_ended: Final = cache(metrics.ENDED.labels)
_requests: Final = cache(metrics.REQUESTS.labels)
_queued: Final = cache(metrics.QUEUE_SECONDS.labels)
_errors: Final = cache(metrics.ERRORS.labels)
