"""Providers' quotas of calls and tokens a minute, which all routers share; and how much of all quotas is in use."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from infra import tokens
from infra.clock import Clock
from infra.estimates import output_bound
from infra.redis.client import RedisUnavailable
from infra.redis.quota import MINUTE_MS, Taken, Wish
from schemas.attempt import Attempt
from schemas.control import Deployment, Model
from schemas.job import Job
from services.router.places import Places

log = logging.getLogger(__name__)

Ask = Callable[[Deployment, Wish], Awaitable[Taken]]
"""Charges one call and its tokens. Raises RedisUnavailable."""

Correct = Callable[[Deployment, Wish, int], Awaitable[None]]
"""A call that was charged took so many tokens. Raises RedisUnavailable."""

_CHARACTERS_PER_TOKEN = 4
_MOST_CORRECTING = 1_000


class Patience(NamedTuple):
    """How long a job may still wait in its place, in seconds, and whether it was told to wait before."""

    left_s: float = 0.0
    again: bool = False


AT_ONCE = Patience()


class Quotas:
    """Asks for each call of a deployment that has such a quota, and remembers what it heard."""

    def __init__(self, ask: Ask, correct: Correct, places: Places, clock: Clock) -> None:
        self._ask, self._correct, self._places, self._clock = ask, correct, places, clock
        self._empty_ms: dict[str, int] = {}
        self._correcting: set[asyncio.Task[None]] = set()

    async def charge(self, deployment: Deployment, job: Job, patience: Patience = AT_ONCE) -> int:
        """0 if the call may be made, which is then charged; else milliseconds to wait.

        While Redis is away every call may be made: the provider knows its quota itself.
        """
        if deployment.rpm is None and deployment.tpm is None:
            return 0
        try:
            taken = await self._ask(deployment, _wish(deployment, job, patience))
        except RedisUnavailable as error:
            log.warning("the quota of %s is not known: %s", deployment.id, error)
            return 0
        self._empty_ms[deployment.id] = self._clock() + taken.full_ms
        return taken.wait_ms

    def took(self, deployment: Deployment, job: Job, attempt: Attempt) -> None:
        """A call that was charged is over: what it took beyond what was expected is charged in the background, or given back."""
        usage, wish = attempt.usage, _wish(deployment, job)
        used = usage.input_tokens + usage.output_tokens
        if deployment.tpm is None or used == wish.tokens or len(self._correcting) >= _MOST_CORRECTING:
            return
        task = asyncio.create_task(self._put_right(deployment, wish, used))
        self._correcting.add(task)
        task.add_done_callback(self._correcting.discard)

    async def _put_right(self, deployment: Deployment, wish: Wish, used: int) -> None:
        try:
            await self._correct(deployment, wish, used)
        except RedisUnavailable as error:
            log.warning("the tokens of a call of %s stay as they were expected: %s", deployment.id, error)

    def share(self, model: Model, now_ms: int) -> float:
        """How much of the quota is in use at the least used deployment of a model, from 0 to 1, as far as it is known here."""
        return min((self._share(deployment, now_ms) for deployment in model.deployments), default=0.0)

    def _share(self, deployment: Deployment, now_ms: int) -> float:
        limited = deployment.rpm is not None or deployment.tpm is not None
        minute = (self._empty_ms.get(deployment.id, 0) - now_ms) / MINUTE_MS if limited else 0.0
        return max(0.0, min(1.0, minute), self._places.share(deployment))


def expected_tokens(deployment: Deployment, job: Job) -> int:
    """Tokens in and out that a call is expected to take: as admission estimated, or else by the length of what is asked."""
    if job.estimate is not None:
        return job.estimate.input_tokens + job.estimate.output_tokens
    given = tokens.length(job.body) // _CHARACTERS_PER_TOKEN + 1
    return given + output_bound(job.api, job.body, job.policy, (deployment,))


def _wish(deployment: Deployment, job: Job, patience: Patience = AT_ONCE) -> Wish:
    expected = expected_tokens(deployment, job) if deployment.tpm else 0
    patience_ms = max(0, int(patience.left_s * 1000))
    return Wish(job.lane, job.caller.team, job.policy.weight, expected, patience_ms, patience.again)
