"""Shuffle sharding: each team owns a few of a topic's partitions, so that one team's queue delays its own work only. Pure."""

import hashlib
from functools import lru_cache

SHARDS_PER_TEAM = 4


@lru_cache(maxsize=4096)
def partitions_of(team: str, partitions: int) -> tuple[int, ...]:
    """The partitions of a team: the same at every writer, chosen by rendezvous hashing."""
    ranked = sorted(range(partitions), key=lambda n: hashlib.sha256(f"{team}/{n}".encode()).digest())
    return tuple(ranked[:SHARDS_PER_TEAM])


def partition_of(team: str, job_id: str, partitions: int) -> int:
    """The partition of a job: one of its team's, by the random end of its id."""
    own = partitions_of(team, partitions)
    return own[int(job_id[-4:], 16) % len(own)]
