"""Dead letters: looked at, and replayed: what was a job becomes a new one, everything else goes back to where it came from."""

import base64
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, Field, ValidationError, model_validator

from infra.clock import new_id
from infra.kafka.carriage import fetched, read_waiting_job
from infra.kafka.dead import DeadLetters, Letter
from infra.kafka.envelope import Poison, decode
from infra.kafka.log import Outgoing
from infra.platform import Platform
from infra.redis.admission import Keeping, admit
from infra.redis.replays import Replays
from infra.redis.tickets import list_key
from schemas.base import Message
from schemas.batch import BatchOrder, BatchResult
from schemas.completion import Completion
from schemas.errors import InvalidRequest, NotFound
from schemas.job import Job
from schemas.webhook import WebhookDelivery
from services.portal import policy
from services.portal.handler import Admin, NewJobToken
from services.portal.replay import Hopeless, first_try, renewed, ticket_of, way_of

log = logging.getLogger(__name__)

_AT_ONCE = 500
_TOKEN_S = 3600
_SHOWN_BYTES = 2 * 1024 * 1024
H_REPLAY_OF = "sluice_replay_of"


class LettersAsked(BaseModel):
    """GET /admin/v1/dead."""

    reason: str | None = None
    stage: str | None = None
    after: str | None = None
    limit: int = Field(default=20, ge=1, le=100)


class ReplayAsked(BaseModel):
    """POST /admin/v1/dead/replay: which letters, by id or origin, by reason, or all that weren't replayed yet.

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
    def _one_choice(self) -> "ReplayAsked":
        if (self.ids is not None) + (self.reason is not None) + self.all != 1:
            raise ValueError("say which letters: `ids`, `reason` or `all`, one of them")
        return self


class LetterShown(BaseModel):
    """A dead letter. `became`: the job or the topic that it was replayed to, or empty."""

    id: str
    object: Literal["dead_letter"] = "dead_letter"
    at_ms: int
    reason: str
    detail: str
    origin: str
    stage: str
    type: str
    bytes: int
    became: str


class LetterOpened(LetterShown):
    """A dead letter with all that stands in it. `value` null: its body is gone; `base64` where it is no text."""

    headers: dict[str, str]
    value: str | None
    encoding: Literal["text", "base64"]


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


Plan = NewJob | Sent | Delivered | Hopeless


class Dead:
    """Acts on `sluice.dead`."""

    def __init__(self, platform: Platform, admin: Admin) -> None:
        self._platform = platform
        self._admin = admin
        self._letters = DeadLetters(platform.kafka)
        self._replays = Replays(platform.redis)
        self._post = platform.post("portal")

    async def page(self, asked: LettersAsked) -> tuple[list[LetterShown], str | None]:
        """Letters, the youngest first, and the id to go on from, if anything older is left. Raises InvalidRequest."""

        def wanted(letter: Letter) -> bool:
            return asked.reason in (None, letter.reason) and asked.stage in (None, letter.stage)

        try:
            page = await self._letters.page(asked.after, wanted, asked.limit)
        except ValueError as error:
            raise InvalidRequest(str(error), param="after") from None
        became = await self._replays.became([letter.id for letter in page.letters])
        return [LetterShown(**_about(*pair)) for pair in zip(page.letters, became, strict=True)], page.after

    async def open(self, name: str) -> LetterOpened:
        """The letter with this id or origin. Raises NotFound."""
        letter = await self._find(name)
        (became,) = await self._replays.became([letter.id])
        resolved = await fetched(letter.record, self._platform.files)
        value = None if isinstance(resolved, Poison) else (resolved.value or b"")[:_SHOWN_BYTES]
        text, encoding = _readable(value)
        headers = {name: header.decode("utf-8", "replace") for name, header in letter.headers}
        return LetterOpened(**_about(letter, became), headers=headers, value=text, encoding=encoding)

    async def replay(self, asked: ReplayAsked) -> tuple[list[Replayed], str | None]:
        """What became of each letter, and the id to go on from if there are more than one call does.

        Raises NotFound for a letter or a team that isn't there, InvalidRequest, RedisUnavailable.
        """
        if asked.team is not None:
            policy.the_team(self._admin.by_name, asked.team)
        letters, after = await self._asked_for(asked)
        became = await self._replays.became([letter.id for letter in letters])
        results: list[Replayed] = []
        for letter, former in zip(letters, became, strict=True):
            if former and not asked.force:
                if asked.ids is not None:
                    results.append(_left(letter, f"it was replayed before, as {former}; --force replays it once more"))
                continue
            results.append(await self._replay(letter, asked))
        return results, after

    async def _asked_for(self, asked: ReplayAsked) -> tuple[Sequence[Letter], str | None]:
        if asked.ids is not None:
            return [await self._find(name) for name in asked.ids], None
        try:
            page = await self._letters.page(asked.after, lambda letter: asked.reason in (None, letter.reason), _AT_ONCE)
        except ValueError as error:
            raise InvalidRequest(str(error), param="after") from None
        return page.letters, page.after

    async def _find(self, name: str) -> Letter:
        letter = await self._letters.find(name)
        if letter is None:
            raise NotFound(f"There is no dead letter {name[:200]!r}. `sluice dead list` shows them.")
        return letter

    async def _replay(self, letter: Letter, asked: ReplayAsked) -> Replayed:
        plan = await self._plan(letter, asked.team)
        if isinstance(plan, Hopeless):
            return _left(letter, plan.why)
        becomes = _becomes(plan)
        if asked.dry_run:
            return Replayed(id=letter.id, origin=letter.origin, result="would be replayed", became=becomes)
        # Noted first: what dies in between is found as replayed, and --force repeats it, while two jobs can't be taken back.
        if former := await self._replays.begin(letter.id, becomes, again=asked.force):
            return _left(letter, f"somebody else has just replayed it, as {former}")
        try:
            await self._carry_out(plan)
        except Exception:
            await self._replays.forget(letter.id)
            raise
        log.info("portal: the dead letter %s of %s became %s", letter.id, letter.origin, becomes)
        return Replayed(id=letter.id, origin=letter.origin, result="replayed", became=becomes)

    async def _plan(self, letter: Letter, team: str | None) -> Plan:
        home = letter.home
        way = way_of(home.topic if home else "", letter.reason)
        match way:
            case "job":
                return await self._as_job(letter)
            case "door":
                return await self._at_door(letter, home.topic if home else "", team)
            case "webhook":
                delivery = await self._read(letter, WebhookDelivery)
                if isinstance(delivery, Hopeless):
                    return delivery
                return Delivered(first_try(delivery, self._platform.clock()))
            case "completion" | "batch" | "batch result":
                model = {"completion": Completion, "batch": BatchOrder, "batch result": BatchResult}[way]
                found = await self._read(letter, model)
                return found if isinstance(found, Hopeless) else Sent(letter.renewed())
            case Hopeless():
                return way

    async def _as_job(self, letter: Letter) -> Plan:
        job = await read_waiting_job(letter.record, self._platform.files, self._platform.signer)
        if isinstance(job, Poison):
            return Hopeless(f"it is no job of ours: {job.detail}")
        now_ms = self._platform.clock()
        return NewJob(renewed(job, new_id("job", now_ms), now_ms))

    async def _at_door(self, letter: Letter, topic: str, team: str | None) -> Plan:
        if team is None:
            return Hopeless("its token was taken off: say with --team who asks, and pays")
        resolved = await fetched(letter.record, self._platform.files)
        if isinstance(resolved, Poison):
            return Hopeless(resolved.detail)
        return Sent(letter.moved(resolved.value or b"", topic, team, (H_REPLAY_OF, letter.id.encode())), token_for=team)

    async def _read(self, letter: Letter, model: type[Message]) -> Message | Hopeless:
        resolved = await fetched(letter.record, self._platform.files)
        found = resolved if isinstance(resolved, Poison) else decode(resolved, model)
        return Hopeless(f"it would be put aside again: {found.detail}") if isinstance(found, Poison) else found

    async def _carry_out(self, plan: NewJob | Sent | Delivered) -> None:
        match plan:
            case NewJob(job=unsigned):
                await self._begin(self._platform.signer.sign(unsigned))
            case Sent(record=record, token_for=team):
                await (await self._platform.kafka.send(await self._with_token(record, team) if team else record))
            case Delivered(delivery=delivery):
                await self._post.webhook(delivery, None)

    async def _begin(self, job: Job) -> None:
        """Sends the job on its way; a job that is to be asked for has its ticket before that. No limit is charged again."""
        if job.keep_s:
            rest_ms = job.deadline_ms - job.accepted_ms
            keeping = Keeping(
                job_id=job.id,
                accepted_ms=job.accepted_ms,
                ticket=ticket_of(job).model_dump_json(exclude_defaults=True).encode(),
                ticket_ms=rest_ms + job.keep_s * 1000,
                list_key=list_key(job.caller.team),
            )
            await admit(self._platform.redis, (), keeping)
        await self._post.forward(job, "")

    async def _with_token(self, record: Outgoing, team: str) -> Outgoing:
        minted = await self._admin.job_token(NewJobToken(team=team, expires_in=_TOKEN_S))
        authorization = ("authorization", f"Bearer {minted.token}".encode())
        return Outgoing(record.topic, record.key, record.value, (*record.headers, authorization), record.partition)
