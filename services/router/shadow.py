"""Shadows: a share of a model's jobs is sent to another model too, so that both can be compared (`sluice.shadow_comparison`).

A shadow is a job of its own, in the batch lane and on the bill of the team that wants the comparison; its answer goes nowhere.
Where the data of the first job may not go, the shadow doesn't go either, and what may not be kept is not copied.
"""

import asyncio
import logging
from collections.abc import Callable
from hashlib import blake2b

from infra import hierarchy
from infra.clock import Clock
from infra.kafka.post import Post
from infra.kafka.table import ControlTable
from infra.signing import Signer
from infra.telemetry import metrics
from schemas.control import Model
from schemas.ids import uuid7_hex
from schemas.job import CacheRequest, Caller, Job, ReplyTo
from schemas.policy import narrowed_by
from schemas.routing import Shadow
from schemas.slip import Stage
from schemas.topics import Lane

log = logging.getLogger(__name__)

LIFE_MS = 3_600_000
"""A comparison that is made later is worth little."""

MOST_ON_THEIR_WAY = 64
_NOT_A_STREAM = ("stream", "stream_options")


class Shadows:
    """Sends shadows of jobs that were served. `close` waits for those that are on their way."""

    def __init__(self, table: ControlTable, post: Post, signer: Signer, clock: Clock) -> None:
        self._table, self._post, self._signer, self._clock = table, post, signer, clock
        self._sending: set[asyncio.Task[None]] = set()

    def follow(self, job: Job, model: Model, traceparent: str) -> None:
        """Sends a shadow of the job if its model wants one. Never waits: beyond a number on their way they are left out."""
        rule = model.shadow
        if rule is None or not wanted(job, rule):
            return
        if len(self._sending) >= MOST_ON_THEIR_WAY:
            metrics.SHADOWS.labels("dropped").inc()
            return
        task = asyncio.create_task(self._send(job, rule, traceparent))
        self._sending.add(task)
        task.add_done_callback(self._sending.discard)

    async def close(self) -> None:
        await asyncio.gather(*self._sending, return_exceptions=True)

    async def _send(self, job: Job, rule: Shadow, traceparent: str) -> None:
        try:
            await self._post.forward(self._signer.sign(self._shadow(job, rule)), traceparent)
        except Exception:
            # Nobody waits for it, and whom it was to be compared with is served.
            log.exception("the shadow of %s could not be sent", job.id)
            metrics.SHADOWS.labels("dropped").inc()
        else:
            metrics.SHADOWS.labels("sent").inc()

    def _shadow(self, job: Job, rule: Shadow) -> Job:
        now_ms = self._clock()
        caller = Caller(organization=job.caller.organization, team=rule.team, key_id="")
        rules = hierarchy.effective(hierarchy.levels(self._table, caller))
        return shadow_of(job, rule, caller, self._signer.derive).model_copy(
            update={"policy": narrowed_by(rules, job.policy), "accepted_ms": now_ms, "deadline_ms": now_ms + LIFE_MS}
        )


def wanted(job: Job, rule: Shadow) -> bool:
    """Whether this job is one of the share. The same job is always in it, or never."""
    if job.shadow_of or not job.policy.data.log:
        return False
    digest = blake2b(job.id.encode(), digest_size=8, person=b"sluice shadow").digest()
    return int.from_bytes(digest) < rule.share * 2**64


def shadow_of(job: Job, rule: Shadow, caller: Caller, derive: Callable[..., int]) -> Job:
    """The copy, without its policy and its times. A job that is delivered twice has the same shadow."""
    body = {name: value for name, value in job.body.items() if name not in _NOT_A_STREAM} | {"model": rule.model}
    return Job(
        id=f"job_{uuid7_hex(job.accepted_ms, derive('shadow', job.id))}",
        api=job.api,
        lane=Lane.BATCH,
        model=rule.model,
        body=body,
        caller=caller,
        labels=job.labels,
        policy=job.policy,
        slip=(Stage.ROUTER,),
        way=(Stage.ROUTER,),
        accepted_ms=job.accepted_ms,
        deadline_ms=job.deadline_ms,
        reply_to=ReplyTo(kind="nowhere"),
        cache=CacheRequest(read=False, write=False),
        verdict=job.verdict,
        shadow_of=job.id,
        fingerprint=job.fingerprint,
    )
