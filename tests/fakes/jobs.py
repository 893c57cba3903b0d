"""A job as admission makes it, and records of jobs without Redis."""

from decimal import Decimal

from infra.clock import new_id
from infra.redis.client import RedisUnavailable
from infra.redis.jobs import Ending, JobRecords
from infra.redis.tickets import Tickets
from infra.signing import Signer
from schemas.attempt import Attempt
from schemas.base import JsonObject
from schemas.job import Api, Caller, Job, ReplyTo
from schemas.policy import EffectivePolicy
from schemas.slip import Stage
from schemas.ticket import Ended
from schemas.topics import Lane
from schemas.usage import Usage

NOW_MS = 1_800_000_000_000
CALLER = Caller(organization="acme", team="fraud", project="scores", environment="prod", key_id="key_1", user="ada")
BODY: JsonObject = {"model": "small", "messages": [{"role": "user", "content": "Grüße, 世界"}], "x_unknown": [1, None]}
SIGNER = Signer(b"a key that only tests have")


def a_job(**members: object) -> Job:
    """A signed job at the front of its way, with a deadline of two minutes. `members` replace what it says."""
    way = (Stage.GUARD, Stage.CACHE, Stage.ROUTER)
    job = Job(
        id=new_id("job", NOW_MS),
        api=Api.CHAT,
        lane=Lane.INTERACTIVE,
        model="small",
        body=BODY,
        caller=CALLER,
        policy=EffectivePolicy(version="1"),
        slip=way,
        way=way,
        accepted_ms=NOW_MS,
        deadline_ms=NOW_MS + 120_000,
        reply_to=ReplyTo(kind="inbox", partition=5),
    )
    return SIGNER.sign(job.model_copy(update=members))


def an_attempt(**members: object) -> Attempt:
    """A call that was answered. `members` replace what it says."""
    attempt = Attempt(
        id="a",
        n=1,
        deployment="d",
        provider="openai",
        provider_model="m",
        started_ms=0,
        latency_ms=1_000,
        ttft_ms=250,
        status="completed",
        usage=Usage(input_tokens=100, output_tokens=9, source="provider"),
        cost_usd=Decimal("0.5"),
    )
    return attempt.model_copy(update=members)


class FakeTickets(Tickets):
    """The ends of jobs, without Redis: the first stays."""

    def __init__(self) -> None:
        self.ends: dict[str, Ended] = {}

    async def end(self, job_id: str, ended: Ended, keep_s: int) -> bool:
        return self.ends.setdefault(job_id, ended) is ended


class FakeRecords(JobRecords):
    """What the stages before the router ask of a job's record; `away` says how often Redis fails before it answers.

    Of these failures every other one has happened all the same: what was asked may have happened or not.
    """

    def __init__(self) -> None:
        self.away = 0
        self.ended: set[str] = set()
        self.ending: dict[str, str] = {}
        self.deliveries: dict[str, int] = {}
        self.kept: set[str] = set()
        self.waiting: dict[str, int] = {}
        self.at_router: dict[str, list[Ending]] = {}
        self.asked = 0

    async def may_end(self, job_id: str, rest_ms: int, copy: str, *, books: bool = False) -> Ending:
        if at_router := self.at_router.get(job_id):
            return at_router.pop(0)
        may = job_id not in self.ended and self.ending.get(job_id, copy) == copy
        if self._heard() and may:
            self.ending[job_id] = copy
        self._answer()
        return Ending("granted" if may else "done")

    async def was_ending(self, job_id: str, copy: str, *, forget: bool = False) -> bool:
        was = job_id not in self.ended and self.ending.get(job_id) == copy
        if self._heard() and was and forget:
            del self.ending[job_id]
        self._answer()
        return was

    async def done(self, job_id: str, rest_ms: int, *, keep_answer: bool) -> None:
        if self._heard():
            self.ended.add(job_id)
            if keep_answer:
                self.kept.add(job_id)
        self._answer()

    async def put_off(self, job_id: str, made: int) -> None:
        if self._heard():
            self.waiting[job_id] = made
        self._answer()

    async def seen(self, job_id: str, rest_ms: int, ask: str = "") -> int:
        if self._heard() and job_id not in self.ended:
            self.deliveries[job_id] = self.deliveries.get(job_id, 0) + 1
        self._answer()
        return 0 if job_id in self.ended else self.deliveries[job_id]

    def _heard(self) -> bool:
        self.asked += 1
        return self.away % 2 == 0

    def _answer(self) -> None:
        if self.away:
            self.away -= 1
            raise RedisUnavailable("Redis did not answer")
