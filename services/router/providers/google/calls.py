"""A call of a Google model, whatever the door: what is asked, and what becomes of the answer."""

import time
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field

from pydantic_core import to_json

from schemas.base import JsonObject
from schemas.google.answers import Embedding
from schemas.job import Api
from services.router.providers.base import ProviderRequest
from services.router.providers.chat import refusal
from services.router.providers.failures import unavailable
from services.router.providers.google.answers import Translation
from services.router.providers.google.embeddings import EmbeddingWay, embeddings_answer, wanted
from services.router.providers.google.request import generate_request
from services.router.providers.google.words import google_words
from services.router.providers.http import Http, events, whole


@dataclass(frozen=True, slots=True)
class Door:
    """Where a model is asked: its address, without the method, and what opens it."""

    url: str
    headers: dict[str, str] = field(repr=False)
    secrets: tuple[str, ...] = field(repr=False)


class Google(ABC):
    """Chats and embeddings. `fetches`: how addresses begin from which Google itself fetches images and files."""

    fetches: tuple[str, ...] = ()

    def __init__(self, http: Http) -> None:
        self._http = http

    @abstractmethod
    async def door(self, request: ProviderRequest) -> Door:
        """Raises ProviderFailure if the deployment can't be asked."""

    @abstractmethod
    def embeds(self, model: str) -> EmbeddingWay: ...

    async def call(self, request: ProviderRequest) -> str:
        """Asks for a whole answer, or for embeddings."""
        if request.api is Api.EMBEDDINGS:
            return await self._embed(request)
        asked = self._asked(request)
        door = await self.door(request)
        body = await self._post(request, door, "generateContent", asked)
        return Translation(request, int(time.time()), door.secrets).whole(body)

    async def stream(self, request: ProviderRequest) -> AsyncGenerator[Sequence[str]]:
        """Asks for a stream. Google's ends with the transfer, so DONE comes only if the answer was complete by then."""
        asked = self._asked(request)
        door = await self.door(request)
        translation = Translation(request, int(time.time()), door.secrets)
        async with (
            self._http.post(
                request,
                f"{door.url}:streamGenerateContent?alt=sse",
                door.headers,
                to_json(asked),
                secrets=door.secrets,
                words=google_words,
            ) as response,
            aclosing(events(response, request)) as batches,
        ):
            async for batch in batches:
                # Also what says nothing: the model is still at it.
                yield [chunk for data in batch for chunk in translation.chunks(data)]
        if end := translation.end():
            yield end

    def _asked(self, request: ProviderRequest) -> JsonObject:
        if request.api is not Api.CHAT:
            raise refusal("This provider chats and makes embeddings; it moderates nothing.", "model")
        return generate_request(request.body, request.deployment.model, self.fetches)

    async def _embed(self, request: ProviderRequest) -> str:
        texts, dimensions = wanted(request.body)
        model = request.deployment.model
        way, door = self.embeds(model), await self.door(request)
        found: list[Embedding] = []
        for first in range(0, len(texts), way.most_texts):
            some = texts[first : first + way.most_texts]
            body = await self._post(request, door, way.method, way.ask(some, dimensions))
            found += _vectors(request, way, body, len(some))
        return embeddings_answer(model, found, request.body)

    async def _post(self, request: ProviderRequest, door: Door, method: str, asked: JsonObject) -> bytes:
        url = f"{door.url}:{method}"
        async with self._http.post(
            request, url, door.headers, to_json(asked), secrets=door.secrets, words=google_words
        ) as response:
            return await whole(response, request)


def _vectors(request: ProviderRequest, way: EmbeddingWay, body: bytes, wanted: int) -> Sequence[Embedding]:
    try:
        found = way.read(body)
    except ValueError:
        found = ()
    if len(found) != wanted:
        raise unavailable(request.deployment.id, "sent what is no answer", http_status=200, billable=True)
    return found
