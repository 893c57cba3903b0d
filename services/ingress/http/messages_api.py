"""POST /v1/messages and /v1/messages/count_tokens: Anthropic's Messages in front of any provider."""

from collections.abc import AsyncGenerator, Iterable, Mapping
from contextlib import aclosing

from pydantic_core import to_json
from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from infra import anthropic, tokens
from infra.clock import now_ms
from infra.faults import error_response
from infra.platform import Platform
from schemas.anthropic.requests import MessagesRequest, Prompt
from schemas.base import JsonObject
from schemas.errors import Fault, SluiceError
from schemas.job import Api, Job
from schemas.reply import Answer, Event
from schemas.usage import Usage
from services.ingress import policy
from services.ingress.chunks import read_chunk
from services.ingress.handler import Admissions, CallerGone, checked
from services.ingress.http.completions import CLIENT_CLOSED
from services.ingress.http.requests import credentials, parse_object, read_body
from services.ingress.http.responses import JSON
from services.ingress.messages.request import chat_body, check, prompt_body
from services.ingress.messages.telling import MESSAGES, Telling, told_whole


class MessagesFront:
    """Reads requests for messages, and writes their answers."""

    endpoint = MESSAGES

    def body(self, given: JsonObject, *, later: bool) -> JsonObject:
        asked = checked(MessagesRequest, given)
        check(given)
        return chat_body(asked, stream=bool(asked.stream) and not later)

    def headers(self, ours: Mapping[str, str]) -> dict[str, str]:
        return anthropic.headers(ours, now_ms())

    def error(self, fault: Fault, headers: Mapping[str, str]) -> Response:
        return error_response(fault, headers, to_anthropics=True)

    async def whole(self, job: Job, answer: Answer, headers: Mapping[str, str]) -> Response:
        usage = read_chunk(answer.body).usage or await _given(job.body)
        return Response(to_json(told_whole(job.id, job.model, [answer], usage)), answer.status, headers, JSON)

    async def stream(self, job: Job, events: AsyncGenerator[Event | None]) -> AsyncGenerator[bytes]:
        async with aclosing(events):
            telling = Telling(job.id, job.model, await _given(job.body))
            yield _wire(telling.begin())
            try:
                async for event in events:
                    yield _wire(telling.take(event))
            except SluiceError as error:
                yield _wire(telling.interrupted(error.fault()))


class TokenCounts:
    """POST /v1/messages/count_tokens: no job, no cost, and only for models that the caller may use."""

    def __init__(self, platform: Platform, admissions: Admissions) -> None:
        self._platform = platform
        self._admissions = admissions

    async def count(self, http: HttpRequest) -> Response:
        identity = await self._admissions.identify(credentials(http))
        try:
            given = parse_object(await read_body(http, self._platform.settings.max_body_bytes))
        except CallerGone:
            return Response(status_code=CLIENT_CLOSED)
        asked = checked(Prompt, given)
        check(given)
        policy.check_model(asked.model, identity.policy, self._platform.control.table.models, self._platform.clock())
        usage = await _given(prompt_body(asked))
        return Response(to_json({"input_tokens": usage.input_tokens}), media_type=JSON)


async def _given(body: JsonObject) -> Usage:
    """What is known of a request's usage before its provider tells."""
    return Usage(input_tokens=await tokens.counted(Api.CHAT, body) + tokens.media_tokens(body))


def _wire(events: Iterable[JsonObject]) -> bytes:
    return b"".join(b"event: %s\ndata: %s\n\n" % (str(event["type"]).encode(), to_json(event)) for event in events)
