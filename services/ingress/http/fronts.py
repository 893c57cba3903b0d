"""What differs between APIs that make the same jobs: how a request is read, and how its answer is written."""

from collections.abc import AsyncGenerator, Mapping
from typing import Protocol

from starlette.responses import Response

from infra.faults import error_response
from schemas.base import JsonObject
from schemas.errors import Fault
from schemas.job import Job
from schemas.reply import Answer, Event
from services.ingress.http.responses import JSON
from services.ingress.http.streams import Numbered, chat_stream


class Front(Protocol):
    """One API. `endpoint`: what its jobs are told to have been asked at; empty: where jobs of their kind always are."""

    endpoint: str

    def body(self, given: JsonObject, *, later: bool) -> JsonObject:
        """The job's body; `later`: nobody waits for a stream. Raises InvalidRequest."""
        ...

    def headers(self, ours: Mapping[str, str]) -> dict[str, str]: ...

    def error(self, fault: Fault, headers: Mapping[str, str]) -> Response: ...

    async def whole(self, job: Job, answer: Answer, headers: Mapping[str, str]) -> Response: ...

    def stream(self, job: Job, events: AsyncGenerator[Event | None]) -> AsyncGenerator[bytes]:
        """Raises CallerGone."""
        ...


class OpenAIFront:
    """OpenAI's chats and embeddings: what comes and what goes is what jobs are made of."""

    endpoint = ""

    def body(self, given: JsonObject, *, later: bool) -> JsonObject:
        return given

    def headers(self, ours: Mapping[str, str]) -> dict[str, str]:
        return dict(ours)

    def error(self, fault: Fault, headers: Mapping[str, str]) -> Response:
        return error_response(fault, headers)

    async def whole(self, job: Job, answer: Answer, headers: Mapping[str, str]) -> Response:
        return Response(answer.body, answer.status, headers, JSON)

    def stream(self, job: Job, events: AsyncGenerator[Event | None]) -> AsyncGenerator[bytes]:
        return chat_stream(events, Numbered(job.id))
