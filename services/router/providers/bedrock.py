"""AWS Bedrock: whoever answers there, by Converse and ConverseStream; embeddings by InvokeModel.

Requests are signed with SigV4, or carry a Bedrock API key where the deployment has one.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from datetime import UTC, datetime
from struct import error as StructError
from typing import Protocol, cast
from urllib.parse import quote

import httpx
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.eventstream import EventStreamBuffer, ParserError
from pydantic import ValidationError
from pydantic_core import from_json, to_json

from schemas.base import JsonObject
from schemas.bedrock.answers import ConverseAnswer
from schemas.job import Api
from services.router.providers.aws_credentials import AwsCredentials, Keys, NoCredentials
from services.router.providers.base import DONE, ProviderFailure, ProviderRequest, SecretOf
from services.router.providers.bedrock_answer import Chunks, Head, NoAnswer, completion
from services.router.providers.bedrock_embeddings import Calls, Vectors, calls_of, embeddings
from services.router.providers.bedrock_request import Asked, converse_request
from services.router.providers.chat import refusal
from services.router.providers.failures import Words, refused, unavailable
from services.router.providers.http import Http, exhaust, failures, pieces, whole

_AT_ONCE = 8
"""Calls for the texts of one request: a Titan embeds one text a call."""

_SERVICE = "bedrock"
_JSON, _EVENTS = "application/json", "application/vnd.amazon.eventstream"

_STATUS_OF = {
    "ValidationException": 400,
    "ExpiredTokenException": 403,
    "UnrecognizedClientException": 403,
    "ModelTimeoutException": 408,
    "ThrottlingException": 429,
    # A 400 of AWS's, and a 424: the caller can do nothing about them.
    "ServiceQuotaExceededException": 429,
    "ModelErrorException": 500,
    "ServiceUnavailableException": 503,
}
"""What an error means, whatever status it has; in a stream it has none."""

_TOO_LONG = (
    "input is too long",
    "too many input tokens",
    "input tokens exceeded",
    "maximum context length",
    "prompt is too long",
    "exceeds the maximum number of tokens",
    "exceed context limit",
)


class Bedrock:
    """Calls deployments over HTTP. `secret` resolves a credential reference, at each call."""

    def __init__(self, secret: SecretOf, http: Http, credentials: AwsCredentials | None = None) -> None:
        self._secret = secret
        self._http = http
        self._credentials = credentials or AwsCredentials(secret)

    async def call(self, request: ProviderRequest) -> str:
        """Asks for a whole answer."""
        if request.api is Api.EMBEDDINGS:
            return await self._embed(request)
        asked = _chat(request)
        _, body = await self._ask(request, "converse", asked.body)
        try:
            answer = ConverseAnswer.model_validate_json(body)
            chat = completion(answer, _head(request, asked.answers_by_tool))
        except (ValidationError, NoAnswer):
            # From None: the chain would hold the answer.
            raise _no_answer(request) from None
        request.told.usage = answer.usage
        return chat

    async def stream(self, request: ProviderRequest) -> AsyncGenerator[Sequence[str]]:
        """Asks for a stream."""
        asked = _chat(request)
        chunks = Chunks(_head(request, asked.answers_by_tool))
        post = self._post(request, "converse-stream", asked.body)
        async with post as (response, secrets), aclosing(_messages(response, request)) as batches:
            async for batch in batches:
                # What came together with an error is held back: as long as nothing went out, another may be asked unseen.
                found = [chunk for message in batch for chunk in _chunks(chunks, message, request, secrets)]
                request.told.usage = chunks.usage
                yield found
                if found and found[-1] == DONE:
                    await exhaust(response)
                    return
            if chunks.stopped:
                yield [DONE]

    async def close(self) -> None:
        await self._credentials.close()

    async def _embed(self, request: ProviderRequest) -> str:
        calls, limit = calls_of(request.body, request.deployment.model), asyncio.Semaphore(_AT_ONCE)
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(self._invoke(request, calls, body, limit)) for body in calls.bodies]
        except* ProviderFailure as failed:
            failure = cast("ProviderFailure", failed.exceptions[0])
        else:
            form = "base64" if request.body.get("encoding_format") == "base64" else "float"
            return embeddings([task.result() for task in tasks], request.deployment.model, form)
        raise failure

    async def _invoke(self, request: ProviderRequest, calls: Calls, body: JsonObject, limit: asyncio.Semaphore) -> Vectors:
        async with limit:
            headers, answer = await self._ask(request, "invoke", body)
        try:
            return calls.read(headers, answer)
        except NoAnswer:
            raise _no_answer(request) from None

    async def _ask(self, request: ProviderRequest, action: str, body: JsonObject) -> tuple[Mapping[str, str], bytes]:
        """Headers and body of the answer."""
        async with self._post(request, action, body) as (response, _):
            with failures(request, billable=True):
                return response.headers, await whole(response, request)

    @asynccontextmanager
    async def _post(
        self, request: ProviderRequest, action: str, body: JsonObject
    ) -> AsyncGenerator[tuple[httpx.Response, tuple[str, ...]]]:
        """The response, and our secrets, which nobody may be told."""
        deployment = request.deployment
        base = deployment.api_base or (deployment.region and f"https://bedrock-runtime.{deployment.region}.amazonaws.com")
        if not base:
            raise unavailable(deployment.id, "has no address: the deployment needs a region")
        # The slashes of an ARN are data. A colon is itself: yarl would undo its quotes, and the signature is over what is sent.
        url = f"{base.rstrip('/')}/model/{quote(deployment.model, safe=':')}/{action}"
        content = to_json(body)
        accept = _EVENTS if action == "converse-stream" else _JSON
        headers, secrets = await self._authorized(request, url, {"content-type": _JSON, "accept": accept}, content)
        async with self._http.post(request, url, headers, content, secrets=secrets, words=bedrock_words) as response:
            yield response, secrets

    async def _authorized(
        self, request: ProviderRequest, url: str, headers: Mapping[str, str], content: bytes
    ) -> tuple[Mapping[str, str], tuple[str, ...]]:
        deployment = request.deployment
        if deployment.api_key:
            if not (secret := await self._secret(deployment.api_key)):
                raise unavailable(deployment.id, "can't be asked: the credential that the deployment refers to is not set")
            return {**headers, "authorization": f"Bearer {secret}"}, (secret,)
        if not deployment.region:
            raise unavailable(deployment.id, "can't be asked: requests are signed for a region, and the deployment names none")
        try:
            keys = await self._credentials.of(deployment.aws, deployment.region)
        except NoCredentials as error:
            raise unavailable(deployment.id, str(error)) from None
        with failures(request):
            signed = sign(url, headers, content, keys, deployment.region)
        return signed, tuple(filter(None, (keys.access_key, keys.secret_key, keys.token)))


def sign(url: str, headers: Mapping[str, str], content: bytes, keys: Keys, region: str) -> Mapping[str, str]:
    """The headers with SigV4's signature over them, the host, the time and the content: all must be sent as they are."""
    request = AWSRequest("POST", url, {**headers, "host": httpx.URL(url).netloc.decode()}, content)
    cast("_Signer", SigV4Auth(keys, _SERVICE, region)).add_auth(request)
    return {name.lower(): value for name, value in cast("Mapping[str, str]", request.headers).items()}


def bedrock_words(status: int, headers: Mapping[str, str], body: bytes) -> Words:
    """The words of AWS's errors, whose name is in a header, or in the body; with OpenAI's codes, and the status that is meant."""
    try:
        parsed = cast("object", from_json(body))
    except ValueError:
        parsed = None
    given = cast("JsonObject", parsed) if isinstance(parsed, dict) else {}
    said = given.get("message") or given.get("Message")
    name = headers.get("x-amzn-errortype") or given.get("__type") or ""
    # ValidationException:http://internal…, com.amazon.coral#ValidationException
    name = str(name).partition(":")[0].rpartition("#")[2]
    status = _STATUS_OF.get(name, status)
    message = said if isinstance(said, str) else ""
    too_long = status == 400 and any(sign in message.lower() for sign in _TOO_LONG)
    words = {"message": message, "code": "context_length_exceeded" if too_long else name, "status": str(status)}
    return {word: text for word, text in words.items() if text}


class _Signer(Protocol):
    """What botocore's SigV4Auth is."""

    def add_auth(self, request: AWSRequest) -> None: ...


class _Event(Protocol):
    """A message of an event stream."""

    headers: Mapping[str, object]
    payload: bytes


class _Buffer(Protocol):
    """What botocore's EventStreamBuffer is: takes bytes, and gives the messages that are complete."""

    def add_data(self, data: bytes) -> None: ...
    def __iter__(self) -> Iterator[_Event]: ...


async def _messages(response: httpx.Response, request: ProviderRequest) -> AsyncGenerator[list[_Event]]:
    """Messages of the event stream, in batches of those that arrived together. Raises ProviderFailure, also for a wrong sum."""
    buffer = cast("_Buffer", EventStreamBuffer())
    async for data in pieces(response, request):
        buffer.add_data(data)
        try:
            found = list(buffer)
        except (ParserError, StructError, KeyError, ValueError):
            raise _no_answer(request) from None
        if found:
            yield found


def _chunks(chunks: Chunks, event: _Event, request: ProviderRequest, secrets: Sequence[str]) -> list[str]:
    name = event.headers.get(":event-type")
    if not isinstance(name, str):
        raise _broken(event, request, secrets)
    try:
        return chunks.of(name, event.payload)
    except NoAnswer:
        raise _no_answer(request) from None


def _broken(event: _Event, request: ProviderRequest, secrets: Sequence[str]) -> ProviderFailure:
    """The failure that an exception in a stream is: as if it had come with its status, but that it may cost."""
    name = str(event.headers.get(":exception-type") or event.headers.get(":error-code") or "")
    body = event.payload or to_json({"message": str(event.headers.get(":error-message", ""))})
    headers = {"x-amzn-errortype": name[:1].upper() + name[1:]}
    failure = refused(500, headers, body, request.deployment.id, secrets, datetime.now(UTC), bedrock_words)
    failure.billable = True
    return failure


def _chat(request: ProviderRequest) -> Asked:
    if request.api is not Api.CHAT:
        raise refusal("Bedrock's models chat, and some make embeddings; nothing else.", "model")
    return converse_request(request.body, request.deployment.model)


def _head(request: ProviderRequest, answers_by_tool: bool) -> Head:
    chat_id = f"chatcmpl-{request.id.removeprefix('att_')}"
    return Head(chat_id, int(time.time()), request.deployment.model, answers_by_tool)


def _no_answer(request: ProviderRequest) -> ProviderFailure:
    return unavailable(request.deployment.id, "sent what is no answer", http_status=200, billable=True)
