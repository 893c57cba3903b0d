"""Responses that are kept: found again, their events read again, their conversations gone on with."""

import asyncio
from collections.abc import AsyncGenerator, Iterable, Mapping
from contextlib import aclosing, suppress
from dataclasses import dataclass, replace
from typing import cast

from infra.platform import Platform
from infra.redis.client import RedisUnavailable
from infra.redis.conversations import Conversations
from infra.redis.tickets import Found
from schemas.base import JsonObject
from schemas.errors import InvalidRequest, NotFound, SluiceError, Unavailable
from schemas.openai.responses import KeptResponse
from schemas.reply import Answer, Event, Failed, Opened
from services.ingress.answers import Answers, Client, Whereabouts, is_last, retold
from services.ingress.http.jobs import Jobs
from services.ingress.responses.ids import job_id_of, response_id, response_of_item
from services.ingress.responses.items import input_items, references, resolved
from services.ingress.responses.response_object import frame, status_before_end, unfinished, with_end
from services.ingress.responses.telling import Telling

_LOOK_BACK_MS = 1_500
"""How long the events of a job that has ended are waited for: they all stand in the log, or no longer."""

_MOST_REFERENCES = 50
_ABOUT_TO_END = ("answered", "ending", "done")
"""States of a job whose end is about to be noted."""


@dataclass(frozen=True, slots=True)
class Whole:
    """A kept response, and how its job stands."""

    id: str
    found: Found
    kept: KeptResponse

    @property
    def job_id(self) -> str:
        return self.found.ticket.job_id

    @property
    def team(self) -> str:
        return self.found.ticket.caller.team

    @property
    def frame(self) -> JsonObject:
        return frame(self.id, self.found.ticket.accepted_ms, self.kept.told)

    @property
    def background(self) -> bool:
        return self.kept.told.get("background") is True


class Keeper:
    """The responses of a team. One of another team doesn't exist."""

    def __init__(self, platform: Platform, answers: Answers, jobs: Jobs) -> None:
        self._conversations = Conversations(platform.redis, platform.files)
        self._tickets = platform.tickets
        self._clock = platform.clock
        self._answers = answers
        self._jobs = jobs

    async def find(self, team: str, response_id: str) -> Whole:
        """Raises NotFound, Unavailable."""
        whole = await self._find(team, response_id)
        if whole is None:
            raise NotFound(f"Response with id '{response_id[:100]}' not found.", code="response_not_found")
        return whole

    async def find_settled(self, team: str, response_id: str) -> Whole:
        """As `find`; if its last event may have gone out already, once its end is noted."""
        whole = await self.find(team, response_id)
        if whole.found.ended is None and (not whole.background or whole.found.state in _ABOUT_TO_END):
            return await self._settled(whole)
        return whole

    async def keep(self, job_id: str, kept: KeptResponse, life_ms: int) -> None:
        """Raises Unavailable."""
        try:
            await self._conversations.save(job_id, kept.model_dump_json().encode(), life_ms)
        except RedisUnavailable:
            raise _away() from None

    async def delete(self, whole: Whole) -> None:
        """Ends the job if it runs, and forgets the response. Raises Unavailable."""
        try:
            if whole.found.ended is None:
                await self._answers.cancel(whole.job_id, whole.found.ticket.deadline_ms)
            await self._conversations.delete(whole.job_id, whole.team)
        except RedisUnavailable:
            raise _away() from None

    async def cancel(self, whole: Whole) -> Whole:
        """The response, in most cases as it has ended by that. Raises Unavailable."""
        if whole.found.ended is not None:
            return whole
        try:
            await self._answers.cancel(whole.job_id, whole.found.ticket.deadline_ms)
            whole = replace(whole, found=await self._tickets.find(whole.job_id) or whole.found)
        except RedisUnavailable:
            raise _away() from None
        return await self._settled(whole)

    async def conversation(self, team: str, previous_id: str) -> tuple[JsonObject, ...]:
        """All items up to the end of a response: what came before it, its input, its output. Raises NotFound, InvalidRequest."""
        whole = await self._find(team, previous_id)
        if whole is None:
            raise NotFound(
                f"Previous response with id '{previous_id[:100]}' not found.",
                param="previous_response_id",
                code="previous_response_not_found",
            )
        whole = await self._settled(whole)
        if whole.found.ended is None:
            raise InvalidRequest("The previous response has not ended yet: wait for it.", param="previous_response_id")
        told = await self.told(whole)
        return (*whole.kept.before, *whole.kept.items, *cast("list[JsonObject]", told["output"]))

    async def in_full(self, team: str, items: tuple[JsonObject, ...]) -> tuple[JsonObject, ...]:
        """The items, with those that are only named in full. Raises InvalidRequest."""
        named = references(items)
        if not named:
            return items
        responses = {owner for name in named if (owner := response_of_item(name))}
        if len(responses) > _MOST_REFERENCES:
            raise InvalidRequest(
                f"References to more than {_MOST_REFERENCES} responses: send the items themselves", param="input"
            )
        known: dict[str, JsonObject] = {}
        for owner in responses:
            if whole := await self._find(team, owner):
                output = cast("list[JsonObject]", (await self.told(whole))["output"])
                known |= _by_id((*whole.kept.before, *whole.kept.items, *output))
        return input_items(resolved(items, known))

    async def told(self, whole: Whole) -> JsonObject:
        """The Response object. Raises NotFound if it was too long to be kept and is no longer in the log."""
        ended = whole.found.ended
        if ended is None:
            return unfinished(whole.frame, status_before_end(whole.found))
        telling = Telling(whole.frame)
        telling.begin()
        events = retold(ended) if isinstance(ended.last, Failed) else self.events(whole.found)
        async with aclosing(events):
            async for event in events:
                telling.take(event)
        return with_end(telling.response(), ended)

    def events(self, found: Found, client: Client | None = None) -> AsyncGenerator[Event | None]:
        """All events of a job, also those to come."""
        ended = found.ended
        if ended is None:
            return self.noted(found.ticket.job_id, self._answers.follow(self._place(found), client or _nobody()))
        if ended.stream or isinstance(ended.last, Answer) or not found.ticket.stream:
            return retold(ended)
        return self._from_the_log(found)

    async def noted(self, job_id: str, events: AsyncGenerator[Event | None]) -> AsyncGenerator[Event | None]:
        """The events of a kept job; the last only when who asks for the job finds that it has ended."""
        async with aclosing(events):
            async for event in events:
                if is_last(event):
                    with suppress(RedisUnavailable):
                        await self._jobs.ended_soon(await self._tickets.find(job_id))
                yield event

    async def _settled(self, whole: Whole) -> Whole:
        """The response once its end is noted, or as it stands after a while. Raises Unavailable."""
        try:
            found = await self._jobs.ended_soon(whole.found)
        except RedisUnavailable:
            raise _away() from None
        return replace(whole, found=found or whole.found)

    async def _from_the_log(self, found: Found) -> AsyncGenerator[Event | None]:
        """Of a stream that wasn't kept, since it failed or was too long. Raises NotFound if the log doesn't hold it any more."""
        ended = found.ended
        assert ended is not None
        events, heard = self._answers.follow(self._place(found), _nobody()), False
        async with aclosing(events):
            try:
                async for event in events:
                    heard = heard or isinstance(event, Opened | Failed)
                    yield event
            except SluiceError:
                if heard:
                    raise
        if not heard and isinstance(ended.last, Failed):
            yield ended.last
        elif not heard:
            raise NotFound("The output of this response was too long to be kept.", code="response_output_gone")

    def _place(self, found: Found) -> Whereabouts:
        ticket = found.ticket
        deadline_ms = ticket.deadline_ms if found.ended is None else self._clock() + _LOOK_BACK_MS
        return Whereabouts(ticket.job_id, ticket.partition, ticket.accepted_ms, deadline_ms)

    async def _find(self, team: str, name: str) -> Whole | None:
        job_id = job_id_of(name)
        if job_id is None:
            return None
        try:
            kept, found = await asyncio.gather(self._conversations.find(job_id), self._tickets.find(job_id))
        except RedisUnavailable:
            raise _away() from None
        if kept is None or found is None or found.ticket.caller.team != team:
            return None
        return Whole(response_id(job_id), found, kept)


def _by_id(items: Iterable[JsonObject]) -> Mapping[str, JsonObject]:
    return {str(item["id"]): item for item in items if "id" in item}


def _nobody() -> Client:
    """A client that never leaves, and without which the job goes on."""
    return Client(asyncio.get_running_loop().create_future(), stays=True)


def _away() -> Unavailable:
    return Unavailable("The store of responses does not answer. Try again.", code="responses_unavailable", retry_after_s=1)
