"""The way of a job: which stages are still to come, and which topic is next.

A slip is written once, at admission, from the caller's policy, always in the canonical order. A stage may only take
itself off the front. (Enterprise Integration Patterns, "Routing Slip".)
"""

from enum import StrEnum
from itertools import pairwise

from schemas.topics import Lane, job_topic


class Stage(StrEnum):
    """The stages of a job's way, in canonical order."""

    GUARD = "guard"
    CACHE = "cache"
    ROUTER = "router"


CANONICAL: tuple[Stage, ...] = tuple(Stage)

RoutingSlip = tuple[Stage, ...]


def is_canonical(slip: RoutingSlip) -> bool:
    """True if the stages stand in canonical order, none twice, and the slip ends where jobs are sent out."""
    places = [CANONICAL.index(stage) for stage in slip]
    return bool(slip) and slip[-1] is Stage.ROUTER and all(a < b for a, b in pairwise(places))


def next_topic(slip: RoutingSlip, lane: Lane) -> str:
    """The topic a job with this slip goes to next. Raises ValueError for a slip with nothing left."""
    if not slip:
        raise ValueError("the slip is empty: the job has no stage left to go to")
    return job_topic(slip[0].value, lane)


def without_front(slip: RoutingSlip, stage: Stage) -> RoutingSlip:
    """The slip after `stage` took itself off the front. Raises ValueError if another stage stands there."""
    if not slip or slip[0] is not stage:
        raise ValueError(f"{stage} is not at the front of the slip {slip}")
    return slip[1:]
