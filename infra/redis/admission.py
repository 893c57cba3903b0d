"""Admission in one round trip: all limits of a caller, or none; a request that came before is found, and a ticket is kept."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

from infra.redis.client import Argument, Redis, Script

_ADMIT = Script.load("admit")

MOST_LISTED = 10_000
"""Jobs of a team that can be listed; older ones are still found by their id."""


@dataclass(frozen=True, slots=True)
class Limit:
    """Requests per minute at one level; `scope` says whose, such as `team/fraud`."""

    scope: str
    requests_per_minute: int


@dataclass(frozen=True, slots=True)
class Keeping:
    """What admission notes of a job beside its limits. `claim` binds later requests with the same `claim_key` to this one.

    One that `attaches` is bound to an earlier one, if there is any; one that doesn't takes the claim.

    `list_key`: where the job is listed, or empty. Times in milliseconds.
    """

    job_id: str
    accepted_ms: int
    claim_key: str = ""
    claim: bytes = b""
    claim_ms: int = 0
    attaches: bool = True
    ticket: bytes = b""
    ticket_ms: int = 0
    list_key: str = ""


@dataclass(frozen=True, slots=True)
class Admission:
    """What admission said. `limit` is the one that refused, or else the tightest; times in milliseconds.

    `wait_ms`: until a refused request may come again, or, if it may wait, until its turn comes.
    """

    allowed: bool
    limit: Limit | None
    remaining: int
    wait_ms: int
    reset_ms: int


@dataclass(frozen=True, slots=True)
class Attached:
    """The same request was made before. `sent`: it is known to be on its way; `attached`: how many came since, with this one."""

    claim: bytes
    sent: bool
    attached: int


async def admit(
    redis: Redis, limits: Sequence[Limit], keeping: Keeping | None = None, longest_wait_ms: int = 0
) -> Admission | Attached | None:
    """Charges one request to every limit, or to none if one refuses, and notes what is to be kept.

    A request that may wait is refused only if its turn would come after `longest_wait_ms`. None if there was nothing to ask.
    Raises RedisUnavailable.
    """
    if not limits and (keeping is None or not (keeping.claim or keeping.ticket)):
        return None
    kept = keeping or Keeping("", 0)
    keys = [f"rate:{limit.scope}" for limit in limits]
    keys += [kept.claim_key] if kept.claim else []
    keys += [f"ticket:{kept.job_id}"] if kept.ticket else []
    keys += [kept.list_key] if kept.ticket and kept.list_key else []
    args: list[Argument] = [len(limits), *(limit.requests_per_minute for limit in limits), longest_wait_ms, kept.job_id]
    args += [kept.claim, kept.claim_ms, int(kept.attaches), kept.ticket, kept.ticket_ms]
    args += [int(bool(kept.list_key)), MOST_LISTED, kept.accepted_ms]
    result = cast("list[int | bytes]", await redis.run(_ADMIT, keys, args))
    if result[0] == 2:
        return Attached(cast("bytes", result[1]), bool(result[2]), int(result[3]))
    allowed, index, wait_ms, remaining, reset_ms = cast("list[int]", result)
    return Admission(bool(allowed), limits[index - 1] if index else None, remaining, wait_ms, reset_ms)
