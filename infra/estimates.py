"""The most that a job is expected to need, before it is sent out: what is reserved of budgets and of token rates.

The rule is that of CONVENTIONS.md, "Tokens and cost": input by our tokenizer with 3 % and a constant on top, images by a formula,
output as far as the request, the policy or the model bounds it, all choices, at the dearest deployment that can be reached, its
cliffs and the price of writing to its cache included; rounded up to the micro-dollar.
"""

import asyncio
from collections.abc import Mapping
from typing import NamedTuple

from infra import tokens
from infra.kafka.table import ControlTable
from infra.prices import PriceBook, is_free
from infra.reachable import reachable
from schemas.base import JsonObject
from schemas.budget import nano_up
from schemas.control import Deployment, Model
from schemas.errors import NotAllowed
from schemas.job import Api, Estimate
from schemas.policy import EffectivePolicy

USUAL_OUTPUT_TOKENS = 1024
"""What an answer is expected to have where nothing bounds it. It may have more: a stream then asks for more as it flows."""

_MARGIN, _FRAMING = 0.03, 8
_MOST_KNOWN = 10_000
_ANSWERS_AS = {"fast": "priority"}


class Unpriced(NotAllowed):
    """What it would cost can't be told, and somebody's budget depends on it."""

    code = "model_not_priced"


class Dearer(NamedTuple):
    """What of a request may cost more than text: audio, and what its provider is asked to keep for an hour."""

    audio: bool
    hour: bool


class Estimator:
    """Estimates jobs. Cheap where nobody asks for money: then no price is looked up."""

    def __init__(self, table: ControlTable, prices: PriceBook) -> None:
        self._table = table
        self._prices = prices
        self._warming: asyncio.Task[None] | None = None
        self._version = -1
        self._deployments: dict[tuple[object, ...], tuple[Deployment, ...]] = {}

    def start(self) -> None:
        """Reads price list and tokenizer in the background; who needs them first waits."""
        self._warming = asyncio.create_task(asyncio.to_thread(self._warm))

    async def stop(self) -> None:
        if self._warming is not None:
            await asyncio.gather(self._warming, return_exceptions=True)

    async def estimate(
        self, api: Api, body: JsonObject, model: Model, policy: EffectivePolicy, now_ms: int, *, money: bool
    ) -> Estimate:
        """What a request needs at most. Raises Unpriced if `money` is asked for and no price is known."""
        if self._warming is not None and not self._warming.done():
            await asyncio.shield(self._warming)
        given = await tokens.counted(api, body)
        input_tokens = given + int(given * _MARGIN) + _FRAMING + tokens.media_tokens(body)
        deployments = self._reachable(model, policy)
        output_tokens = output_bound(api, body, policy, deployments)
        if not money:
            return Estimate(input_tokens=input_tokens, output_tokens=output_tokens)
        usd_nano = self.usd_nano(body, model, policy, input_tokens, output_tokens, now_ms, api)
        return Estimate(input_tokens=input_tokens, output_tokens=output_tokens, usd_nano=usd_nano)

    def usd_nano(
        self,
        body: JsonObject,
        model: Model,
        policy: EffectivePolicy,
        input_tokens: int,
        output_tokens: int,
        now_ms: int,
        api: Api = Api.CHAT,
    ) -> int:
        """What so many tokens cost at most, wherever they are asked for. Raises Unpriced."""
        deployments = tuple(d for d in self._reachable(model, policy) if not is_free(api, d.price))
        dear = dearer(body)
        return 1000 * max(
            self._most_micro(deployments, model, policy, input_tokens, output_tokens, now_ms, tier, dear) for tier in _tiers(body)
        )

    def _reachable(self, model: Model, policy: EffectivePolicy) -> tuple[Deployment, ...]:
        """Worked out once for what the policy says about it, and change of the table."""
        if self._version != self._table.version or len(self._deployments) > _MOST_KNOWN:
            self._version = self._table.version
            self._deployments.clear()
        # Not by the policy's version: that of another caller has the same one.
        asked = (model.name, policy.data.regions, policy.data.hipaa, policy.route.providers)
        found = self._deployments.get(asked)
        if found is None:
            found = self._deployments[asked] = reachable(self._table.models, model, policy.data, policy.route)
        return found

    def _most_micro(
        self,
        deployments: tuple[Deployment, ...],
        model: Model,
        policy: EffectivePolicy,
        input_tokens: int,
        output_tokens: int,
        now_ms: int,
        tier: str,
        dear: Dearer,
    ) -> int:
        most = 0
        for d in deployments:
            micro = self._prices.most_micro(
                d.provider,
                d.model,
                input_tokens,
                output_tokens,
                now_ms,
                d.price,
                tier,
                deployment=d.id,
                region=d.region,
                audio=dear.audio,
                hour=dear.hour,
            )
            if micro is None:
                if policy.unpriced is None:
                    raise Unpriced(
                        f"The model `{model.name}` has no known price at {d.id}, so no budget in USD covers it. Ask your "
                        "platform team for its price (model_info) or for a ceiling (policy: unpriced).",
                        param="model",
                    )
                micro = nano_up(policy.unpriced.cost_usd(input_tokens, output_tokens)) // 1000
            most = max(most, micro)
        return most

    def _warm(self) -> None:
        self._prices.warm()
        tokens.count("warm")


def _tiers(body: JsonObject) -> tuple[str, ...]:
    """The service tiers that a request may be served in: the usual one, and the one that it asks for, which may be dearer."""
    asked = body.get("service_tier")
    if not isinstance(asked, str):
        return ("",)
    return "", _ANSWERS_AS.get(asked, asked)


def dearer(body: JsonObject) -> Dearer:
    """By the parts of its messages and by its tools, as OpenAI writes audio and Anthropic a cache."""
    modalities, messages, tools = body.get("modalities"), body.get("messages"), body.get("tools")
    parts = [tool for tool in tools if isinstance(tool, dict)] if isinstance(tools, list) else []
    parts += [function for tool in parts if isinstance(function := tool.get("function"), dict)]
    for message in messages if isinstance(messages, list) else ():
        if not isinstance(message, dict):
            continue
        parts.append(message)
        content = message.get("content")
        parts += [part for part in content if isinstance(part, dict)] if isinstance(content, list) else ()
    kept = [part.get("cache_control") for part in parts]
    return Dearer(
        audio=(isinstance(modalities, list) and "audio" in modalities)
        or any(part.get("type") == "input_audio" for part in parts),
        hour=any(isinstance(control, dict) and control.get("ttl") == "1h" for control in (*kept, body.get("cache_control"))),
    )


def output_bound(api: Api, body: JsonObject, policy: EffectivePolicy, deployments: tuple[Deployment, ...]) -> int:
    """The most tokens that the answer has, as far as anything says so."""
    if api is not Api.CHAT:
        return 0
    asked = asked_output_tokens(body) or policy.max_output_tokens
    bound = asked or max((d.max_output_tokens or 0 for d in deployments), default=0) or USUAL_OUTPUT_TOKENS
    choices = body.get("n")
    return bound * (choices if isinstance(choices, int) and choices > 1 else 1)


def asked_output_tokens(body: Mapping[str, object]) -> int | None:
    """The most tokens that the request itself allows."""
    given = (body.get("max_completion_tokens"), body.get("max_tokens"))
    return next((n for n in given if isinstance(n, int) and n > 0), None)
