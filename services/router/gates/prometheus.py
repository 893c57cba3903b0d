"""Open by a metric. The gate decides on what was read last; `Metrics` reads, in the background and never for a job."""

import asyncio
import logging
import math
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import cast

import httpx
from pydantic_core import from_json

from infra.clock import Clock
from schemas.gates import PrometheusRule
from services.router.gates.base import LOOK_AGAIN_MS

log = logging.getLogger(__name__)

STALE_MS = 30_000
"""What was read longer ago says nothing of now."""
REFRESH_S = 5.0

_TIMEOUT_S = 3.0
_AT_ONCE = 8
_MOST_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Reading:
    """A value, and when it was read."""

    value: float
    at_ms: int


@dataclass(frozen=True, slots=True)
class Prometheus:
    """Closed while nobody knows the value, unless its rule says open."""

    rule: PrometheusRule
    reading: Callable[[PrometheusRule], Reading | None]

    def closed_until(self, now_ms: int) -> int:
        last = self.reading(self.rule)
        known = last is not None and now_ms - last.at_ms <= STALE_MS
        is_open = last.value < self.rule.below if last and known else self.rule.on_error == "open"
        return 0 if is_open else now_ms + LOOK_AGAIN_MS


class Metrics:
    """Asks Prometheus for the values of all rules that `rules` gives, every few seconds."""

    def __init__(
        self, rules: Callable[[], Collection[PrometheusRule]], clock: Clock, transport: httpx.AsyncBaseTransport | None = None
    ) -> None:
        self._rules, self._clock = rules, clock
        self._readings: dict[PrometheusRule, Reading] = {}
        self._transport = transport
        self._http: httpx.AsyncClient | None = None
        self._loop: asyncio.Task[None] | None = None

    def reading(self, rule: PrometheusRule) -> Reading | None:
        """What was read last."""
        return self._readings.get(rule)

    async def start(self) -> None:
        self._loop = asyncio.create_task(self._refresh_often())

    async def stop(self) -> None:
        if self._loop is not None:
            self._loop.cancel()
            await asyncio.gather(self._loop, return_exceptions=True)
        if self._http is not None:
            await self._http.aclose()

    async def refresh(self) -> None:
        """Asks for each value once. What can't be had stays as it was, until it is stale."""
        rules = set(self._rules())
        self._readings = {rule: reading for rule, reading in self._readings.items() if rule in rules}
        turn = asyncio.Semaphore(_AT_ONCE)
        await asyncio.gather(*(self._read(rule, turn) for rule in rules))

    async def _refresh_often(self) -> None:
        while True:
            await self.refresh()
            await asyncio.sleep(REFRESH_S)

    async def _read(self, rule: PrometheusRule, turn: asyncio.Semaphore) -> None:
        try:
            async with turn, asyncio.timeout(_TIMEOUT_S):
                value = value_of(await self._asked(rule))
        except Exception as error:
            log.warning("a dispatch gate can't read %r at %s: %s", rule.query, rule.url, type(error).__name__)
            return
        if value is not None:
            self._readings[rule] = Reading(value, self._clock())

    async def _asked(self, rule: PrometheusRule) -> bytes:
        url, body = f"{rule.url.rstrip('/')}/api/v1/query", bytearray()
        async with self._opened().stream("GET", url, params={"query": rule.query}) as response:
            response.raise_for_status()
            async for data in response.aiter_bytes():
                body += data
                if len(body) > _MOST_BYTES:
                    raise ValueError("an answer too long to be a metric")
        return bytes(body)

    def _opened(self) -> httpx.AsyncClient:
        # Not before the first rule: most systems have none, and certificates take 20 ms to read.
        if self._http is None:
            self._http = httpx.AsyncClient(transport=self._transport, timeout=_TIMEOUT_S, trust_env=False)
        return self._http


def value_of(body: bytes) -> float | None:
    """The highest value in an answer of Prometheus' API (a scalar or an instant vector); None if there is none.

    Raises ValueError, TypeError, KeyError or IndexError for what is no such answer.
    """
    data = cast("dict[str, object]", from_json(body)["data"])
    result = cast("list[object]", data["result"])
    if data["resultType"] == "scalar":
        samples = [result]
    else:
        samples = [cast("list[object]", cast("dict[str, object]", entry)["value"]) for entry in result]
    values = [float(cast("str", sample[1])) for sample in samples]
    return max((value for value in values if not math.isnan(value)), default=None)
