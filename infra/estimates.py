"""The most that a job is expected to need, before it is sent out: what is reserved of budgets and of token rates.

The rule is that of CONVENTIONS.md, "Tokens and cost": input by our tokenizer with 3 % and a constant on top, images by a formula,
output as far as the request, the policy or the model bounds it, all choices, at the dearest deployment that can be reached, its
cliffs and the price of writing to its cache included; rounded up to the micro-dollar.
"""

import asyncio
from collections.abc import Mapping
from decimal import Decimal

from infra import tokens
from infra.kafka.table import ControlTable
from infra.prices import PriceBook
from infra.reachable import reachable
from schemas.base import JsonObject
from schemas.budget import nano_up
from schemas.control import Deployment, Model
from schemas.errors import NotAllowed
from schemas.job import Api, Estimate
from schemas.policy import Ceiling, EffectivePolicy
from schemas.usage import Usage

USUAL_OUTPUT_TOKENS = 1024
"""What an answer is expected to have where nothing bounds it. It may have more: a stream then asks for more as it flows."""

_MARGIN, _FRAMING = 0.03, 8
_THREAD_FROM = 50_000


class Unpriced(NotAllowed):
    """What it would cost can't be told, and somebody's budget depends on it."""

    code = "model_not_priced"


class Estimator:
    """Estimates jobs. Cheap where nobody asks for money: then no price is looked up."""

    def __init__(self, table: ControlTable, prices: PriceBook) -> None:
        self._table = table
        self._prices = prices
        self._warming: asyncio.Task[None] | None = None

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
        if tokens.length(body) >= _THREAD_FROM:
            given = await asyncio.to_thread(tokens.prompt_tokens, api, body)
        else:
            given = tokens.prompt_tokens(api, body)
        input_tokens = given + int(given * _MARGIN) + _FRAMING + tokens.media_tokens(body)
        deployments = reachable(self._table.models, model, policy.data, policy.route)
        output_tokens = output_bound(api, body, policy, deployments)
        if not money:
            return Estimate(input_tokens=input_tokens, output_tokens=output_tokens)
        dearest = max(
            (self._cost(d, input_tokens, output_tokens, now_ms, policy.unpriced, model) for d in deployments), default=Decimal(0)
        )
        return Estimate(input_tokens=input_tokens, output_tokens=output_tokens, usd_nano=nano_up(dearest))

    def output_usd_nano(self, model: Model, policy: EffectivePolicy, output_tokens: int, now_ms: int) -> int:
        """What so many more tokens of an answer cost at most."""
        deployments = reachable(self._table.models, model, policy.data, policy.route)
        costs = (self._cost(d, 0, output_tokens, now_ms, policy.unpriced, model) for d in deployments)
        return nano_up(max(costs, default=Decimal(0)))

    def _cost(
        self, deployment: Deployment, given: int, answered: int, now_ms: int, ceiling: Ceiling | None, model: Model
    ) -> Decimal:
        fresh = Usage(input_tokens=given, output_tokens=answered)
        written = Usage(input_tokens=given, output_tokens=answered, cache_write_tokens=given)
        priced = [
            self._prices.price(deployment.provider, deployment.model, u, now_ms, deployment.price) for u in (fresh, written)
        ]
        if all(one.version for one in priced):
            return max(one.cost_usd for one in priced)
        if ceiling is None:
            raise Unpriced(
                f"The model `{model.name}` has no known price at {deployment.id}, so no budget in USD covers it. Ask your "
                "platform team for its price (model_info) or for a ceiling (policy: unpriced).",
                param="model",
            )
        return ceiling.cost_usd(given, answered)

    def _warm(self) -> None:
        self._prices.warm()
        tokens.count("warm")


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
