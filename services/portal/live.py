"""What goes on now: the traffic of the last minute, what was spent today, what waits in each lane."""

from collections.abc import Mapping
from decimal import Decimal
from typing import Final

from pydantic import BaseModel, Field

from infra.clock import Clock
from infra.kafka.loads import Loads
from schemas.ids import uuid7_hex
from schemas.topics import DAY_MS, Lane
from services.portal.access import Actor, Right, check, check_any
from services.portal.books import Books

_LONGEST_MS: Final = 15 * 60_000
"""Jobs that took longer are not in the last minute's traffic: the books are searched by when a job was born."""

_TRAFFIC: Final = """
SELECT team, model, count() AS jobs, countIf(status = 'failed') AS failed, countIf(cache IN ('hit', 'semantic')) AS cached,
       sum(prompt_tokens + completion_tokens) AS tokens, sum(u.cost_usd) AS cost_usd,
       quantileTDigest(0.5)(latency_ms) AS p50_ms, quantileTDigest(0.95)(latency_ms) AS p95_ms,
       quantileTDigestIfOrNull(0.5)(ttft_ms, isNotNull(ttft_ms)) AS ttft_p50_ms
FROM sluice.usage AS u
WHERE job_id >= {born:String} AND ended >= fromUnixTimestamp64Milli({since:Int64})
  AND ({all:Bool} OR team IN {teams:Array(String)})
GROUP BY team, model ORDER BY jobs DESC, team, model LIMIT {most:UInt32}
"""
_SPENT: Final = """
SELECT team, sum(d.cost_usd) AS cost_usd, sum(d.saved_usd) AS saved_usd, sum(d.jobs) AS jobs
FROM sluice.chargeback_daily AS d
WHERE day = toDate(fromUnixTimestamp64Milli({today:Int64})) AND ({all:Bool} OR team IN {teams:Array(String)})
GROUP BY team ORDER BY cost_usd DESC, team LIMIT {most:UInt32}
"""


class LiveAsked(BaseModel):
    """GET /admin/v1/live."""

    team: str | None = None
    window_s: int = Field(default=60, ge=5, le=600, description="how far back traffic is counted")
    limit: int = Field(default=20, ge=1, le=200, description="lines of traffic, and teams")


class Traffic(BaseModel):
    """What a team asked of a model, of jobs that ended within the window."""

    team: str
    model: str
    jobs: int
    failed: int
    cached: int
    tokens: int
    cost_usd: Decimal
    p50_ms: float
    p95_ms: float
    ttft_p50_ms: float | None


class Spent(BaseModel):
    """What a team has spent since midnight UTC."""

    team: str
    jobs: int
    cost_usd: Decimal
    saved_usd: Decimal


class LaneNow(BaseModel):
    """What waits in a lane, over all stages, and the longest that one record has waited."""

    lane: Lane
    depth: int
    wait_ms: int


class Live(BaseModel):
    """What goes on at `at_ms`. Money as strings, exactly."""

    at_ms: int
    window_s: int
    traffic: list[Traffic]
    today: list[Spent]
    lanes: list[LaneNow]


class LiveDesk:
    """Tells what goes on, to each what he may see. Raises Unavailable while ClickHouse is away."""

    def __init__(self, books: Books, loads: Loads, clock: Clock) -> None:
        self._books, self._loads, self._clock = books, loads, clock

    async def look(self, asked: LiveAsked, actor: Actor) -> Live:
        """Raises NotFound for a team that isn't one's own, NotAllowed."""
        if asked.team is not None:
            check(actor, Right.READ, asked.team, "Looking at traffic")
        check_any(actor, "Looking at traffic")
        now_ms = self._clock()
        parameters = self._parameters(asked, actor, now_ms)
        lanes = [LaneNow(lane=lane, depth=load.depth, wait_ms=load.wait_ms) for lane in Lane for load in [self._loads.lane(lane)]]
        return Live(
            at_ms=now_ms,
            window_s=asked.window_s,
            traffic=[Traffic.model_validate(row) for row in await self._books.ask(_TRAFFIC, parameters)],
            today=[Spent.model_validate(row) for row in await self._books.ask(_SPENT, parameters)],
            lanes=lanes,
        )

    def _parameters(self, asked: LiveAsked, actor: Actor, now_ms: int) -> Mapping[str, object]:
        since_ms = now_ms - 1000 * asked.window_s
        seen = [asked.team] if asked.team is not None else sorted(actor.teams())
        return {
            "born": f"job_{uuid7_hex(since_ms - _LONGEST_MS, 0)}",
            "since": since_ms,
            "today": now_ms - now_ms % DAY_MS,
            "all": asked.team is None and actor.sees_all(),
            "teams": seen,
            "most": asked.limit,
        }
