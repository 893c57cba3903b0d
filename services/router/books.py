"""What a provider call cost: its tokens, counted by the provider or else by us, and their price. One `Attempt` a call."""

import asyncio
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Literal

from pydantic_core import to_json

from infra import tokens
from infra.prices import PriceBook, Priced, is_free
from infra.telemetry import meters
from infra.telemetry.genai import Facts
from infra.usage import canonical
from schemas.attempt import Attempt
from schemas.base import JsonObject
from schemas.control import Deployment, Model
from schemas.ids import attempt_id
from schemas.job import Job
from schemas.policy import Ceiling
from schemas.usage import Usage
from services.router.providers.base import Told

log = logging.getLogger(__name__)

_THREAD_FROM = 50_000

AttemptStatus = Literal["completed", "failed", "cancelled"]


@dataclass(slots=True)
class Call:
    """A provider call while it runs. `text`: what was generated, as far as it came here.

    `model` that the deployment is asked for. `refusable`: another model will be asked if this one won't touch the content.
    `hung`: it took all the time it had.
    """

    n: int
    deployment: Deployment
    started_ms: int
    model: str = ""
    refusable: bool = False
    hung: bool = False
    began: float = field(default_factory=time.perf_counter)
    ttft_ms: float | None = None
    text: list[str] = field(default_factory=list[str])
    usage: JsonObject | None = None
    told: Told = field(default_factory=Told)
    facts: Facts = field(default_factory=Facts)
    service_tier: str = ""
    hedge: bool = False
    ended: float | None = None

    def over(self) -> None:
        self.ended = time.perf_counter() if self.ended is None else self.ended

    def elapsed_ms(self) -> float:
        """Since it began, until it was over."""
        until = time.perf_counter() if self.ended is None else self.ended
        return round((until - self.began) * 1000, 3)


class Books:
    """Makes attempts of calls, and counts them."""

    def __init__(self, prices: PriceBook) -> None:
        self._prices = prices
        self._warming: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Reads price list and tokenizer in the background: the service is at work at once, and who needs them first waits."""
        self._warming = asyncio.create_task(asyncio.to_thread(self._warm))

    async def stop(self) -> None:
        if self._warming is not None:
            await asyncio.gather(self._warming, return_exceptions=True)

    def _warm(self) -> None:
        self._prices.warm()
        tokens.count("warm")

    async def attempt(
        self,
        job: Job,
        call: Call,
        status: AttemptStatus,
        *,
        http_status: int | None = None,
        error: str | None = None,
        billable: bool = True,
    ) -> Attempt:
        """The attempt that `call` was. `billable`: if the provider told no usage, it is estimated."""
        latency_ms = call.elapsed_ms()
        usage = canonical(call.usage)
        if usage is None:
            usage = await _estimate(job, call.deployment, call.text) if billable else Usage()
        priced = await self._price(call.deployment, usage, call.started_ms, job.policy.unpriced, call.service_tier)
        attempt = Attempt(
            id=attempt_id(job.id, call.n),
            n=call.n,
            deployment=call.deployment.id,
            provider=call.deployment.provider,
            provider_model=call.deployment.model,
            started_ms=call.started_ms,
            latency_ms=latency_ms,
            ttft_ms=call.ttft_ms,
            status=status,
            http_status=http_status,
            error=error,
            usage=usage,
            cost_usd=priced.cost_usd if priced else Decimal(0),
            price_version=priced.version if priced else "",
            margin_usd=priced.margin_usd if priced else Decimal(0),
            service_tier=call.service_tier,
            raw_usage=to_json(raw).decode() if (raw := call.told.usage or call.usage) else "",
            hedge=call.hedge,
            model=call.model,
        )
        meters.attempted(job.api, job.caller.team, attempt, len(call.text))
        return attempt

    async def unknown(self, job: Job, deployments: Mapping[str, Deployment], attempts: Sequence[Attempt]) -> list[Attempt]:
        """Attempts of a dead life with what they may have cost: at least their input. `deployments` by id."""
        booked: list[Attempt] = []
        for attempt in attempts:
            deployment = deployments.get(attempt.deployment)
            usage = await _estimate(job, deployment, ())
            priced = await self._price(deployment, usage, attempt.started_ms, job.policy.unpriced) if deployment else None
            cost: dict[str, object] = {}
            if priced:
                cost = {"cost_usd": priced.cost_usd, "price_version": priced.version, "margin_usd": priced.margin_usd}
            booked.append(attempt.model_copy(update={"usage": usage, **cost}))
            meters.lost(booked[-1], job.caller.team)
        return booked

    def input_usd_per_mtok(self, model: Model, now_ms: int) -> Decimal | None:
        """What a million input tokens cost at the cheapest deployment; None if no price is known, or none has been read yet."""
        thousand = Usage(input_tokens=1_000)
        costs = (self._cost_usd(deployment, thousand, now_ms) for deployment in model.deployments)
        return min((usd * 1_000 for usd in costs if usd is not None), default=None)

    def usd_of_the_same(self, deployment: Deployment, now_ms: int) -> Decimal | None:
        """What a call of a thousand tokens in and as many out costs; None if no price is known, or none has been read yet."""
        return self._cost_usd(deployment, Usage(input_tokens=1_000, output_tokens=1_000), now_ms)

    def _cost_usd(self, deployment: Deployment, usage: Usage, now_ms: int) -> Decimal | None:
        if self._warming is not None and not self._warming.done():
            return None
        priced = self._priced(deployment, usage, now_ms)
        return priced.cost_usd if priced.version else None

    def _priced(self, deployment: Deployment, usage: Usage, at_ms: int, service_tier: str = "") -> Priced:
        d = deployment
        return self._prices.price(d.provider, d.model, usage, at_ms, d.price, service_tier, deployment=d.id, region=d.region)

    async def _price(
        self, deployment: Deployment, usage: Usage, at_ms: int, ceiling: Ceiling | None, service_tier: str = ""
    ) -> Priced | None:
        """By the price list, or by the ceiling of the caller's policy where the list knows nothing."""
        if usage.source == "none":
            return None
        if self._warming is not None and not self._warming.done():
            await asyncio.shield(self._warming)
        priced = self._priced(deployment, usage, at_ms, service_tier)
        if priced.version or ceiling is None:
            return priced
        return Priced(ceiling.cost_usd(usage.input_tokens, usage.output_tokens), "policy:ceiling")


async def _estimate(job: Job, deployment: Deployment | None, text: Sequence[str]) -> Usage:
    """Tokens as our tokenizer counts them, where they matter; a long prompt is counted on a thread."""
    if is_free(job.api, deployment.price if deployment else None):
        return Usage()
    generated = "".join(text)
    if len(generated) + tokens.length(job.body) < _THREAD_FROM:
        return _estimated(job, generated)
    return await asyncio.to_thread(_estimated, job, generated)


def _estimated(job: Job, generated: str) -> Usage:
    given = tokens.prompt_tokens(job.api, job.body)
    return Usage(input_tokens=given, output_tokens=tokens.count(generated), source="estimated")
