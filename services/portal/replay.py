"""Dead letters are replayed: what was a job becomes a new one, everything else goes back to where it came from."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Self, TypeVar

from pydantic import BaseModel, Field, model_validator

from infra.clock import new_id
from infra.kafka.carriage import fetched, read_waiting_job
from infra.kafka.dead import Letter
from infra.kafka.envelope import Poison, decode
from infra.kafka.log import Outgoing
from infra.platform import Platform
from infra.redis.replays import Replays
from schemas.base import Message
from schemas.batch import BatchOrder, BatchResult
from schemas.completion import Completion
from schemas.job import Job
from schemas.webhook import WebhookDelivery
from services.portal.access import Actor
from services.portal.dead import Dead
from services.portal.handler import Admin
from services.portal.readmission import Readmission
from services.portal.wanted import NewJobToken
from services.portal.ways import Hopeless, Way, first_try, renewed, way_of

log = logging.getLogger(__name__)

H_REPLAY_OF = "sluice_replay_of"
_AT_ONCE = 500
_TOKEN_S = 3600

M = TypeVar("M", bound=Message)


class ReplayAsked(BaseModel):
    """POST /admin/v1/dead/replay: which letters, by id or origin, by reason, or all that were not replayed yet.

    `team`: who is to pay for records of the Kafka door, which have lost their token. `after`: where a former call ended.
    """

    ids: list[str] | None = Field(default=None, min_length=1, max_length=_AT_ONCE)
    reason: str | None = None
    all: bool = False
    team: str | None = None
    dry_run: bool = False
    force: bool = False
    after: str | None = None

    @model_validator(mode="after")
    def _one_choice(self) -> Self:
        if (self.ids is not None) + (self.reason is not None) + self.all != 1:
            raise ValueError("say which letters: `ids`, `reason` or `all`, one of them")
        return self


class Replayed(BaseModel):
    """What became of a letter: the job, or the topic it went to; or why it was left alone."""

    id: str
    origin: str
    result: Literal["replayed", "would be replayed", "left"]
    became: str = ""
    why: str = ""


@dataclass(frozen=True, slots=True)
class NewJob:
    """The letter becomes a job of its own, not signed yet."""

    job: Job


@dataclass(frozen=True, slots=True)
class Sent:
    """The letter goes to a topic as this record; `token_for`: with a token that this team pays for."""

    record: Outgoing
    token_for: str = ""


@dataclass(frozen=True, slots=True)
class Delivered:
    """The letter is a webhook that is tried again."""

    delivery: WebhookDelivery


Plan = NewJob | Sent | Delivered


class Replay:
    """Acts on `sluice.dead`."""

    def __init__(self, platform: Platform, admin: Admin, dead: Dead) -> None:
        self._platform = platform
        self._admin = admin
        self._dead = dead
        self._replays = Replays(platform.redis)
        self._post = platform.post("portal")
        self._readmission = Readmission(platform)

    async def replay(self, asked: ReplayAsked, actor: Actor) -> tuple[list[Replayed], str | None]:
        """What became of each letter, and the id to go on from if there are more than one call does.

        Of letters that weren't named, those replayed before are passed over. Raises NotFound for a letter or a team that isn't
        there, InvalidRequest, RedisUnavailable.
        """
        if asked.team is not None:
            self._admin.team(asked.team, actor)
        letters, after = await self._asked_for(asked)
        became = await self._replays.became([letter.id for letter in letters])
        results: list[Replayed] = []
        for letter, former in zip(letters, became, strict=True):
            if not former or asked.force:
                results.append(await self._replay(letter, asked, actor))
            elif asked.ids is not None:
                results.append(_left(letter, f"it was replayed before, as {former}; only --force replays it once more"))
        return results, after

    async def _asked_for(self, asked: ReplayAsked) -> tuple[Sequence[Letter], str | None]:
        if asked.ids is not None:
            return [await self._dead.find(name) for name in dict.fromkeys(asked.ids)], None
        page = await self._dead.letters(asked.reason, None, asked.after, _AT_ONCE)
        return page.letters, page.after

    async def _replay(self, letter: Letter, asked: ReplayAsked, actor: Actor) -> Replayed:
        plan = await self._plan(letter, asked.team)
        if isinstance(plan, Hopeless):
            return _left(letter, plan.why)
        becomes = _becomes(plan)
        if asked.dry_run:
            return Replayed(id=letter.id, origin=letter.origin, result="would be replayed", became=becomes)
        # Noted first: after a death in between --force repeats it, while of two jobs neither could be taken back.
        if former := await self._replays.begin(letter.id, becomes, again=asked.force):
            return _left(letter, f"somebody else has just replayed it, as {former}")
        try:
            hopeless = await self._carry_out(plan, actor)
        except Exception:
            await self._replays.forget(letter.id)
            raise
        if hopeless is not None:
            await self._replays.forget(letter.id)
            return _left(letter, hopeless.why)
        log.info("portal: the dead letter %s of %s became %s", letter.id, letter.origin, becomes)
        return Replayed(id=letter.id, origin=letter.origin, result="replayed", became=becomes)

    async def _plan(self, letter: Letter, team: str | None) -> Plan | Hopeless:
        topic = letter.home.topic if letter.home else ""
        way = way_of(topic, letter.reason)
        match way:
            case "job":
                return await self._as_job(letter)
            case "door":
                return await self._at_door(letter, topic, team)
            case "webhook":
                delivery = await self._read(letter, WebhookDelivery)
                if isinstance(delivery, Hopeless):
                    return delivery
                return Delivered(first_try(delivery, self._platform.clock()))
            case "completion" | "batch" | "batch result":
                found = await self._read(letter, _model(way))
                return found if isinstance(found, Hopeless) else Sent(letter.renewed())
            case Hopeless():
                return way

    async def _as_job(self, letter: Letter) -> NewJob | Hopeless:
        job = await read_waiting_job(letter.record, self._platform.files, self._platform.signer)
        if isinstance(job, Poison):
            return Hopeless(f"it is no job of ours: {job.detail}")
        now_ms = self._platform.clock()
        return NewJob(renewed(job, new_id("job", now_ms), now_ms))

    async def _at_door(self, letter: Letter, topic: str, team: str | None) -> Sent | Hopeless:
        if team is None:
            return Hopeless("its token was taken off: say with --team who asks, and pays")
        resolved = await fetched(letter.record, self._platform.files)
        if isinstance(resolved, Poison):
            return Hopeless(resolved.detail)
        return Sent(letter.moved(resolved.value or b"", topic, team, (H_REPLAY_OF, letter.id.encode())), token_for=team)

    async def _read(self, letter: Letter, model: type[M]) -> M | Hopeless:
        resolved = await fetched(letter.record, self._platform.files)
        found = resolved if isinstance(resolved, Poison) else decode(resolved, model)
        return Hopeless(f"it would be put aside again: {found.detail}") if isinstance(found, Poison) else found

    async def _carry_out(self, plan: Plan, actor: Actor) -> Hopeless | None:
        match plan:
            case NewJob(job=unsigned):
                return await self._begin(unsigned)
            case Sent(record=record, token_for=team):
                await (await self._platform.kafka.send(await self._with_token(record, team, actor) if team else record))
            case Delivered(delivery=delivery):
                await self._post.webhook(delivery, None)
        return None

    async def _begin(self, job: Job) -> Hopeless | None:
        """Admits the job and sends it on its way."""
        admitted = await self._readmission.admitted(job)
        if isinstance(admitted, Hopeless):
            return admitted
        await self._post.forward(self._platform.signer.sign(admitted), "")
        return None

    async def _with_token(self, record: Outgoing, team: str, actor: Actor) -> Outgoing:
        minted = await self._admin.job_token(NewJobToken(team=team, expires_in=_TOKEN_S), actor)
        authorization = ("authorization", f"Bearer {minted.token}".encode())
        return Outgoing(record.topic, record.key, record.value, (*record.headers, authorization), record.partition)


def _model(way: Way) -> type[Completion] | type[BatchOrder] | type[BatchResult]:
    match way:
        case "batch":
            return BatchOrder
        case "batch result":
            return BatchResult
        case _:
            return Completion


def _becomes(plan: Plan) -> str:
    match plan:
        case NewJob(job=job):
            return job.id
        case Sent(record=record):
            return record.topic
        case Delivered(delivery=delivery):
            return delivery.id


def _left(letter: Letter, why: str) -> Replayed:
    return Replayed(id=letter.id, origin=letter.origin, result="left", why=why)
