"""POST /v1/completions: OpenAI's older API in front of any model that chats."""

from collections.abc import AsyncGenerator, Mapping
from functools import partial

from starlette.responses import Response

from schemas.base import JsonObject
from schemas.job import Job
from schemas.openai.requests import CompletionRequest
from schemas.reply import Answer, Event
from services.ingress.handler import checked
from services.ingress.http.fronts import OpenAIFront
from services.ingress.http.responses import JSON
from services.ingress.http.streams import Numbered, chat_stream
from services.ingress.text_completions import COMPLETIONS, chat_body, told_text


class TextFront(OpenAIFront):
    """Reads prompts, and writes texts; for the rest it is as chats are."""

    endpoint = COMPLETIONS

    def body(self, given: JsonObject, *, later: bool) -> JsonObject:
        return chat_body(checked(CompletionRequest, given), given)

    async def whole(self, job: Job, answer: Answer, headers: Mapping[str, str]) -> Response:
        return Response(told_text(job.id, answer.body), answer.status, headers, JSON)

    def stream(self, job: Job, events: AsyncGenerator[Event | None]) -> AsyncGenerator[bytes]:
        return chat_stream(events, Numbered(job.id, told=partial(told_text, job.id)))
