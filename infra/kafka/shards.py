"""Shuffle sharding: each team owns a few of a topic's partitions, so that one team's queue delays its own work only. Pure."""

import hashlib
from collections.abc import Callable, Sequence
from functools import lru_cache

SHARDS_PER_TEAM = 4


@lru_cache(maxsize=4096)
def partitions_of(team: str, partitions: int) -> tuple[int, ...]:
    """The partitions of a team: the same at every writer, chosen by rendezvous hashing."""
    ranked = sorted(range(partitions), key=lambda n: hashlib.sha256(f"{team}/{n}".encode()).digest())
    return tuple(ranked[:SHARDS_PER_TEAM])


Choice = Callable[[str, Sequence[int], int], int]
"""Chooses one of some partitions of a topic, by a number that is different for each job."""


def by_chance(_: str, partitions: Sequence[int], chance: int) -> int:
    """Any of them."""
    return partitions[chance % len(partitions)]


def partition_of(team: str, job_id: str, topic: str, partitions: int, choose: Choice = by_chance) -> int:
    """The partition of a job: one of its team's."""
    return choose(topic, partitions_of(team, partitions), int(job_id[-4:], 16))
