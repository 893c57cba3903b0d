"""Calls of the past by the prices that are known now: a pricing of its own beside the bill, which stays as it was sent.

A pricing is made page by page by who asks for it, so that no request takes long and no memory grows. It counts once its last
page is done (`sluice.pricings_log`); what was broken off counts for nothing, and is begun anew.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal
from typing import Final, Literal

from pydantic import BaseModel, Field, TypeAdapter

from infra.clock import Clock, new_id
from infra.kafka.table import ControlTable
from infra.prices import PriceBook, Priced
from infra.prices.capacity import HOUR_MS, spread
from schemas.errors import InvalidRequest
from schemas.usage import Usage
from services.portal.access import Actor, Right, check
from services.portal.books import Books

REPRICED: Final = "sluice.repriced_log"
PRICINGS: Final = "sluice.pricings_log"
PAGE: Final = 5_000
_ANSWER_S: Final = 60.0
_NANO: Final = Decimal("1e-9")

_CALLS = """
SELECT attempt_id, job_id, toUnixTimestamp64Milli(ts) AS at_ms, organization, team, model, deployment, provider,
       provider_model, service_tier, price_version, cost_usd, prompt_tokens AS input_tokens, cached_tokens AS cache_read_tokens,
       cache_write_tokens, cache_write_1h_tokens, completion_tokens AS output_tokens, reasoning_tokens, input_audio_tokens,
       input_image_tokens, cached_audio_tokens AS cache_read_audio_tokens, output_audio_tokens, output_image_tokens,
       rejected_prediction_tokens, web_searches, storage_searches, code_executions, audio_ms, usage_source AS source
FROM sluice.attempts_log FINAL
WHERE ts >= fromUnixTimestamp64Milli({begins:Int64}) AND ts < fromUnixTimestamp64Milli({ends:Int64})
  AND usage_source != 'none' AND ({model:String} = '' OR model = {model:String}) AND attempt_id > {after:String}
ORDER BY attempt_id LIMIT {most:UInt32}
"""
_OF_AN_HOUR = """
SELECT attempt_id, prompt_tokens + completion_tokens AS tokens FROM sluice.attempts_log FINAL
WHERE ts >= fromUnixTimestamp64Milli({begins:Int64}) AND ts < fromUnixTimestamp64Milli({ends:Int64})
  AND deployment = {deployment:String} AND usage_source != 'none'
ORDER BY attempt_id
"""
_SUMS = """
SELECT count() AS changed, sum(old_cost_usd) AS old_usd, sum(cost_usd) AS new_usd
FROM sluice.repriced_log FINAL WHERE pricing = {pricing:String}
"""


class PricingAsked(BaseModel):
    """POST /admin/v1/prices/reprice: a page of a pricing. The first has neither `pricing` nor `after`, the next ones what the one
    before has answered."""

    begins: date = Field(alias="from", description="the first day, UTC")
    ends: date = Field(alias="to", description="the last day, UTC")
    model: str = ""
    reason: str = Field(default="", max_length=1024)
    dry_run: bool = False
    pricing: str = Field(default="", pattern=r"^(prc_[0-9a-f-]{36})?$")
    after: str = Field(default="", max_length=64)


class PricingPage(BaseModel):
    """What a page changed. `after` None: the pricing is done, and counts unless it was only tried."""

    object: Literal["pricing"] = "pricing"
    pricing: str
    after: str | None
    attempts: int
    changed: int
    unpriced: int = Field(description="that have no price now, and keep what they had")
    old_usd: Decimal
    new_usd: Decimal


class Called(Usage):
    """An attempt as it is booked."""

    attempt_id: str
    job_id: str
    at_ms: int
    organization: str
    team: str
    model: str
    deployment: str
    provider: str
    provider_model: str
    service_tier: str
    price_version: str
    cost_usd: Decimal


_CALLED: TypeAdapter[list[Called]] = TypeAdapter(list[Called])


class Repricing:
    """Makes pricings. Raises NotAllowed, InvalidRequest, and Unavailable while ClickHouse is away."""

    def __init__(self, books: Books, table: ControlTable, clock: Clock) -> None:
        self._books, self._table, self._clock = books, table, clock
        self._prices = PriceBook(table)

    async def page(self, asked: PricingAsked, actor: Actor) -> PricingPage:
        """The next page, of calls that began before the last full hour. Raises also NotAllowed."""
        check(actor, Right.PLATFORM, what="Pricing calls again")
        begins_ms, ends_ms = self._span(asked)
        pricing = asked.pricing or new_id("prc", self._clock())
        told = {"begins": begins_ms, "ends": ends_ms, "model": asked.model, "after": asked.after, "most": PAGE}
        calls = _CALLED.validate_python(await self._books.ask(_CALLS, told, _ANSWER_S))
        priced = await self._again(calls)
        changed = [(call, now) for call, now in zip(calls, priced, strict=True) if now.version and now.cost_usd != call.cost_usd]
        if changed and not asked.dry_run:
            await self._books.add(REPRICED, self._columns(pricing, changed), f"{pricing}:{asked.after}")
        done = len(calls) < PAGE
        if done and not asked.dry_run:
            await self._finish(pricing, asked, begins_ms, ends_ms, actor)
        return PricingPage(
            pricing=pricing,
            after=None if done else calls[-1].attempt_id,
            attempts=len(calls),
            changed=len(changed),
            unpriced=sum(not now.version for now in priced),
            old_usd=sum((call.cost_usd for call in calls), Decimal(0)),
            new_usd=sum(
                (now.cost_usd if now.version else call.cost_usd for call, now in zip(calls, priced, strict=True)), Decimal(0)
            ),
        )

    def _span(self, asked: PricingAsked) -> tuple[int, int]:
        if asked.ends < asked.begins:
            raise InvalidRequest("`to` is before `from`: write the first day, then the last.", param="to")
        return _first_ms(asked.begins), min(_first_ms(asked.ends + timedelta(days=1)), self._clock() // HOUR_MS * HOUR_MS)

    async def _again(self, calls: Sequence[Called]) -> list[Priced]:
        deployments = {d.id: d for model in self._table.models.values() for d in model.deployments}
        hours: dict[tuple[str, int], Mapping[str, Decimal]] = {}
        priced: list[Priced] = []
        for call in calls:
            known = deployments.get(call.deployment)
            own, region = (known.price, known.region) if known else (None, None)
            now = self._prices.price(
                call.provider,
                call.provider_model,
                call,
                call.at_ms,
                own,
                call.service_tier,
                deployment=call.deployment,
                region=region,
            )
            hourly = self._prices.hourly_usd(
                call.provider, call.provider_model, call.at_ms, own, deployment=call.deployment, region=region
            )
            if hourly is not None:
                hour = (call.deployment, call.at_ms // HOUR_MS * HOUR_MS)
                if hour not in hours:
                    hours[hour] = await self._shares(*hour, hourly)
                share = hours[hour].get(call.attempt_id, Decimal(0))
                # What was booked says how much of it is margin.
                margin = share * now.margin_usd / (now.cost_usd - now.margin_usd) if now.margin_usd else Decimal(0)
                margin = margin.quantize(_NANO, ROUND_HALF_UP)
                now = Priced(share + margin, f"{now.version}+hour", margin)
            priced.append(now)
        return priced

    async def _shares(self, deployment: str, hour_ms: int, hourly_usd: Decimal) -> Mapping[str, Decimal]:
        """What each call of an hour has to pay of its whole price, by attempt."""
        told = {"deployment": deployment, "begins": hour_ms, "ends": hour_ms + HOUR_MS}
        rows = await self._books.ask(_OF_AN_HOUR, told, _ANSWER_S)
        shares = spread(hourly_usd, [int(str(row["tokens"])) for row in rows])
        return {str(row["attempt_id"]): share for row, share in zip(rows, shares, strict=True)}

    def _columns(self, pricing: str, changed: Sequence[tuple[Called, Priced]]) -> Mapping[str, Sequence[object]]:
        calls, now_ms = [call for call, _ in changed], self._clock()
        same = ("attempt_id", "job_id", "organization", "team", "model", "deployment", "provider")
        return {
            "pricing": [pricing] * len(calls),
            **{name: [getattr(call, name) for call in calls] for name in same},
            "ts": [call.at_ms for call in calls],
            "old_price_version": [call.price_version for call in calls],
            "price_version": [now.version for _, now in changed],
            "old_cost_usd": [call.cost_usd for call in calls],
            "cost_usd": [now.cost_usd for _, now in changed],
            "margin_usd": [now.margin_usd for _, now in changed],
            "at": [now_ms] * len(calls),
        }

    async def _finish(self, pricing: str, asked: PricingAsked, begins_ms: int, ends_ms: int, actor: Actor) -> None:
        (sums,) = await self._books.ask(_SUMS, {"pricing": pricing}, _ANSWER_S)
        line = {
            "pricing": pricing,
            "at": self._clock(),
            "actor": actor.name,
            "reason": asked.reason,
            "begins": begins_ms,
            "ends": ends_ms,
            "model": asked.model,
            **sums,
        }
        await self._books.add(PRICINGS, {name: [value] for name, value in line.items()}, f"{pricing}:done")


def _first_ms(day: date) -> int:
    return round(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp() * 1000)
