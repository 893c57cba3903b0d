"""What waits in front of each stage, known everywhere within half a second: who reads a partition tells, and everybody hears it.

By this a job is sent to the partition of its team's where least waits, and admission knows how long an answer would take.
"""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from typing import cast

from infra.clock import Clock
from infra.kafka.log import Partition
from infra.kafka.stage import Load, Stage, lane_of
from infra.redis.client import Redis, RedisUnavailable, Script
from infra.telemetry import metrics
from schemas.slip import Stage as StageName
from schemas.topics import Lane, job_topic

log = logging.getLogger(__name__)

_SHARE = Script.load("loads")
_KEY = "loads"
_EVERY_S = 0.25
_STALE_MS = 3_000
_ALIKE = 32
"""Partitions whose queues differ by less are as good as each other: else all that comes until the next report goes to one."""


class Loads:
    """The loads of the stages of this process, told; and those of all, heard."""

    def __init__(self, redis: Redis, clock: Clock) -> None:
        self._redis = redis
        self._clock = clock
        self._stages: list[Stage] = []
        # Only where something waits: mostly nothing does, and each request asks. So only that is told, and its end.
        self._known: Mapping[Partition, Load] = {}
        self._loop: asyncio.Task[None] | None = None

    def tell_of(self, stage: Stage) -> None:
        """Tells of what waits for this stage from now on."""
        self._stages.append(stage)

    async def start(self) -> None:
        self._loop = asyncio.create_task(self._exchange_often())

    async def stop(self) -> None:
        if self._loop is not None:
            self._loop.cancel()
            await asyncio.gather(self._loop, return_exceptions=True)

    def lightest(self, topic: str, partitions: Sequence[int], chance: int) -> int:
        """One of the partitions where least waits; `chance` chooses among those that are alike."""
        if not self._known:
            return partitions[chance % len(partitions)]
        depths = [self._depth(topic, number) for number in partitions]
        least = min(depths)
        alike = [number for number, depth in zip(partitions, depths, strict=True) if depth <= least + _ALIKE]
        return alike[chance % len(alike)]

    def lane(self, lane: Lane) -> Load:
        """What waits in a lane: records before all stages, and the longest that one had to wait."""
        own = [load for partition, load in self._known.items() if lane_of(partition) is lane]
        return Load(sum(load.depth for load in own), max((load.wait_ms for load in own), default=0))

    def wait_ms(self, lane: Lane, partitions: Sequence[int]) -> int:
        """How long a job would wait that goes by the best of these partitions, over all stages."""
        if not self._known:
            return 0
        topics = (job_topic(stage.value, lane) for stage in StageName)
        return sum(min(self._wait(topic, number) for number in partitions) for topic in topics)

    def _depth(self, topic: str, number: int) -> int:
        load = self._known.get(Partition(topic, number))
        return load.depth if load else 0

    def _wait(self, topic: str, number: int) -> int:
        load = self._known.get(Partition(topic, number))
        return load.wait_ms if load else 0

    async def _exchange_often(self) -> None:
        while True:
            try:
                self._known = await self._exchange()
            except RedisUnavailable:
                # What was known is better than nothing, for a moment; what is stale is forgotten with the next answer.
                log.debug("loads can't be exchanged")
            await asyncio.sleep(_EVERY_S)

    async def _exchange(self) -> Mapping[Partition, Load]:
        now_ms = self._clock()
        own: list[str] = []
        for stage in self._stages:
            loads = stage.loads(now_ms)
            _show(stage.name, loads)
            for partition, load in loads.items():
                if load.depth or partition in self._known:
                    own += (f"{partition.topic}/{partition.partition}", f"{load.depth} {load.wait_ms} {now_ms}")
        told = cast("list[bytes]", await self._redis.run(_SHARE, [_KEY], own))
        known: dict[Partition, Load] = {}
        for field, value in zip(told[::2], told[1::2], strict=True):
            topic, _, number = field.decode().rpartition("/")
            depth, wait_ms, at_ms = map(int, value.split())
            if depth and now_ms - at_ms < _STALE_MS:
                known[Partition(topic, int(number))] = Load(depth, wait_ms)
        return known


def _show(stage: str, loads: Mapping[Partition, Load]) -> None:
    """What waits here, in metrics."""
    for lane in Lane:
        own = [load for partition, load in loads.items() if lane_of(partition) is lane]
        metrics.LANE_DEPTH.labels(stage, lane.value).set(sum(load.depth for load in own))
        metrics.LANE_AGE.labels(stage, lane.value).set(max((load.wait_ms for load in own), default=0) / 1000)
