"""The way of one job through the cache, and of one completion into it."""

import asyncio
import logging

from pydantic import ValidationError

from infra.clock import Clock
from infra.kafka.carriage import Delivery, Finish, Forward, Outcome
from infra.kafka.envelope import Poison, decode
from infra.kafka.log import Incoming
from infra.kafka.post import Post
from infra.redis.cache import fill, lookup
from infra.redis.client import Redis, RedisUnavailable
from infra.telemetry import metrics, spans
from schemas.completion import Completion, completion_of
from schemas.job import Job, JobStatus
from schemas.kept import Kept
from schemas.reply import Closed, Delta, Event, Opened, Served
from schemas.slip import Stage
from services.cache import policy

log = logging.getLogger(__name__)

_RETRY_S = 0.25


class Cache:
    """Answers jobs from what was answered before."""

    def __init__(self, redis: Redis, post: Post, clock: Clock) -> None:
        self._redis = redis
        self._post = post
        self._clock = clock

    async def handle(self, job: Job, delivery: Delivery) -> Outcome:
        """Ends the job with a kept answer, or sends it on with the key under which its answer may be kept."""
        key = policy.cache_key(job)
        if job.cache.read and (kept := await self._find(key, job)) is not None:
            metrics.CACHE_LOOKUPS.labels("hit").inc()
            return await self._hit(job, kept, delivery)
        status = "miss" if job.cache.read else "bypass"
        metrics.CACHE_LOOKUPS.labels(status).inc()
        asked = job.cache.model_copy(update={"key": key if job.cache.write else None, "status": status})
        return Forward(job.past(Stage.CACHE).model_copy(update={"cache": asked}))

    async def _find(self, key: str, job: Job) -> Kept | None:
        try:
            entry = await lookup(self._redis, key)
        except RedisUnavailable:
            return None
        if entry is None:
            return None
        try:
            kept = Kept.model_validate_json(entry)
        except ValidationError:
            log.warning("a cache entry is not understood and counts as a miss")
            return None
        return kept if policy.serves(kept, job.cache, job.stream, self._clock()) else None

    async def _hit(self, job: Job, kept: Kept, delivery: Delivery) -> Finish:
        now = self._clock()
        completion = completion_of(
            job,
            JobStatus.COMPLETED,
            Stage.CACHE.value,
            now,
            cache="hit",
            saved_usd=kept.completion.cost_usd + kept.completion.saved_usd,
            trace_id=spans.trace_id(delivery.traceparent),
        )
        served = Served(
            model=job.model, cache="hit", verdict=job.verdict, cost_usd=completion.cost_usd, age_s=policy.age_s(kept, now)
        )
        if kept.answer is not None:
            return Finish(completion, kept.answer.model_copy(update={"served": served}))
        events: tuple[Event, Event] = (Opened(served=served), Delta(data=kept.stream))
        for seq, event in enumerate(events):
            await self._post.reply(job, event, 0, seq, delivery.traceparent)
        return Finish(completion, Closed(), seq=len(events), stream=kept.stream)

    async def keep(self, record: Incoming, _: bool) -> None:
        """Makes the answer of a completed job an entry, if its policy allows it."""
        completion = decode(record, Completion)
        if isinstance(completion, Poison):
            # Accounting reads the same record and puts it aside.
            log.warning("cache: %s at %s@%d", completion.reason, record.topic, record.offset)
            return
        if completion.cache_key is None or completion.status is not JobStatus.COMPLETED:
            return
        while True:
            try:
                await fill(self._redis, completion.job_id, completion.cache_key, completion.cache_ttl_s)
                return
            except RedisUnavailable:
                await asyncio.sleep(_RETRY_S)
