"""The long tail of providers, by LiteLLM's SDK: the optional extra `litellm`.

A deployment's model is `litellm/` and what LiteLLM takes as a model, such as `litellm/watsonx/ibm/granite-3-8b-instruct`. It is a
caller of APIs here and nothing else: its retries, fallbacks, callbacks, caches, logs and telemetry are off, and it gets what is
named below, so that a caller can't choose another address through it. Imported at first use: it takes seconds, and 200 MB.
"""

import asyncio
import importlib
import logging
import os
from collections.abc import AsyncGenerator, AsyncIterator, Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import Final, Protocol, cast

from pydantic import JsonValue
from pydantic_core import to_json

from schemas.base import JsonObject
from schemas.errors import InvalidRequest
from schemas.job import Api
from services.router.providers.base import DONE, ProviderFailure, ProviderRequest, SecretOf
from services.router.providers.failures import Words, refused, unavailable

_CHAT: Final = frozenset(
    {
        "audio",
        "frequency_penalty",
        "logit_bias",
        "logprobs",
        "max_completion_tokens",
        "max_tokens",
        "messages",
        "modalities",
        "n",
        "parallel_tool_calls",
        "prediction",
        "presence_penalty",
        "reasoning_effort",
        "response_format",
        "seed",
        "service_tier",
        "stop",
        "temperature",
        "thinking",
        "tool_choice",
        "tools",
        "top_k",
        "top_logprobs",
        "top_p",
        "user",
        "verbosity",
        "web_search_options",
    }
)
_EMBEDDINGS: Final = frozenset({"input", "dimensions", "encoding_format", "user"})
_OFF: Final[Mapping[str, object]] = {"num_retries": 0, "max_retries": 0, "drop_params": True, "caching": False, "no-log": True}
_CODES: Final = {
    "ContextWindowExceededError": "context_length_exceeded",
    "ContentPolicyViolationError": "content_filter",
}
_BEFORE_IMPORT: Final = {
    # Else it fetches its price list from the network, and reads a .env file.
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "LITELLM_MODE": "PRODUCTION",
}
_QUIET: Final[Mapping[str, object]] = {
    "telemetry": False,
    "suppress_debug_info": True,
    "set_verbose": False,
    "turn_off_message_logging": True,
    "disable_streaming_logging": True,
    "num_retries": 0,
    "cache": None,
    "fallbacks": None,
}
_CALLBACKS: Final = (
    "callbacks",
    "input_callback",
    "success_callback",
    "failure_callback",
    "service_callback",
    "_async_input_callback",
    "_async_success_callback",
    "_async_failure_callback",
)


class _Answer(Protocol):
    def model_dump(self, *, exclude_none: bool) -> JsonObject: ...


class _Sdk(Protocol):
    """What is used of the module."""

    async def acompletion(self, **arguments: object) -> object: ...
    async def aembedding(self, **arguments: object) -> _Answer: ...


class LiteLLM:
    """Calls deployments by the SDK. `secret` resolves a credential reference, at each call."""

    def __init__(self, secret: SecretOf) -> None:
        self._secret = secret
        self._sdk: _Sdk | None = None

    async def call(self, request: ProviderRequest) -> str:
        """Asks for a whole answer."""
        sdk, arguments, secrets = await self._asked(request)
        with _failures(request, secrets):
            if request.api is Api.EMBEDDINGS:
                answer = await sdk.aembedding(**arguments)
            else:
                answer = cast("_Answer", await sdk.acompletion(**arguments))
            body = answer.model_dump(exclude_none=True)
        return to_json(_whole(request, body)).decode()

    async def stream(self, request: ProviderRequest) -> AsyncGenerator[Sequence[str]]:
        """Asks for a stream, with usage at its end."""
        sdk, arguments, secrets = await self._asked(request)
        usage: JsonObject | None = None
        finished = False
        with _failures(request, secrets):
            chunks = cast(
                "AsyncIterator[_Answer]",
                await sdk.acompletion(**arguments, stream=True, stream_options={"include_usage": True}),
            )
        try:
            with _failures(request, secrets, billable=True):
                async for answer in chunks:
                    chunk = answer.model_dump(exclude_none=True)
                    usage = _taken(request, chunk) or usage
                    finished |= _ends(chunk)
                    if chunk.get("choices"):
                        yield [to_json(chunk).decode()]
        finally:
            with suppress(Exception):
                await cast("AsyncGenerator[object]", chunks).aclose()
        if usage:
            yield [to_json({"object": "chat.completion.chunk", "choices": [], "usage": usage}).decode()]
        if finished:
            yield [DONE]

    async def _asked(self, request: ProviderRequest) -> tuple[_Sdk, dict[str, object], tuple[str, ...]]:
        deployment = request.deployment
        arguments = _given(request)
        if self._sdk is None:
            self._sdk = await asyncio.to_thread(_imported, deployment.id)
        secret = await self._secret(deployment.api_key) if deployment.api_key else None
        if deployment.api_key and not secret:
            raise unavailable(deployment.id, "can't be asked: the credential that the deployment refers to is not set")
        told = {"api_key": secret, "api_base": deployment.api_base, "api_version": deployment.api_version}
        arguments |= {name: value for name, value in told.items() if value}
        return self._sdk, {**arguments, **_OFF, "model": deployment.model}, (secret,) if secret else ()


def _imported(deployment: str) -> _Sdk:
    for name, value in _BEFORE_IMPORT.items():
        os.environ.setdefault(name, value)
    try:
        sdk = importlib.import_module("litellm")
    except ImportError:
        raise unavailable(deployment, "can't be asked: LiteLLM isn't installed; run `pip install sluice[litellm]`") from None
    for name, value in _QUIET.items():
        setattr(sdk, name, value)
    for name in _CALLBACKS:
        setattr(sdk, name, [])
    for name in ("LiteLLM", "LiteLLM Router", "LiteLLM Proxy"):
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    return cast("_Sdk", sdk)


def _given(request: ProviderRequest) -> dict[str, object]:
    """What of the body is passed on. Raises ProviderFailure for what can't be asked through LiteLLM."""
    if request.api not in (Api.CHAT, Api.EMBEDDINGS):
        raise _invalid("This deployment chats and embeds, and does nothing else.", "model")
    if request.api is Api.CHAT and _has_address(request.body.get("messages")):
        # LiteLLM would fetch it from within our network, for those providers that take no addresses.
        raise _invalid("This deployment takes no addresses of images or files: send a data URL.", "messages")
    known = _CHAT if request.api is Api.CHAT else _EMBEDDINGS
    return {name: value for name, value in request.body.items() if name in known and value is not None}


def _has_address(value: JsonValue, *, in_part: bool = False) -> bool:
    """True if a part of a message's content holds an address, other than in a text."""
    if isinstance(value, str):
        return in_part and "://" in value[:32]
    if isinstance(value, list):
        return any(_has_address(item, in_part=in_part) for item in value)
    if not isinstance(value, dict):
        return False
    if in_part:
        return any(_has_address(inner, in_part=True) for name, inner in value.items() if name != "text")
    content = value.get("content")
    return isinstance(content, list) and _has_address(content, in_part=True)


def _whole(request: ProviderRequest, body: JsonObject) -> JsonObject:
    usage = _taken(request, body)
    for choice in _objects(body.get("choices")):
        if isinstance(message := choice.get("message"), dict):
            message.setdefault("content", None)
    return {**body, "usage": usage} if usage else body


def _taken(request: ProviderRequest, body: JsonObject) -> JsonObject | None:
    """The usage, taken out of an answer or a chunk; the provider's own words of it are told."""
    usage = body.pop("usage", None)
    for choice in _objects(body.get("choices")):
        choice.pop("provider_specific_fields", None)
        choice.setdefault("finish_reason", None)
        for said in (choice.get("message"), choice.get("delta")):
            if isinstance(said, dict):
                said.pop("provider_specific_fields", None)
    if not isinstance(usage, dict):
        return None
    request.told.usage = usage
    return _usage(usage)


def _usage(raw: JsonObject) -> JsonObject:
    """OpenAI's usage object, which LiteLLM's is but for what is written to a cache: that it has under several names."""
    details = raw.get("prompt_tokens_details")
    prompt: JsonObject = dict(details) if isinstance(details, dict) else {}
    spans = prompt.get("cache_creation_token_details")
    within: JsonObject = {
        "cached_tokens": prompt.get("cached_tokens", raw.get("cache_read_input_tokens")),
        "cache_write_tokens": prompt.get(
            "cache_write_tokens", prompt.get("cache_creation_tokens", raw.get("cache_creation_input_tokens"))
        ),
        "audio_tokens": prompt.get("audio_tokens"),
        "image_tokens": prompt.get("image_tokens"),
        "cache_write_1h_tokens": spans.get("ephemeral_1h_input_tokens") if isinstance(spans, dict) else None,
    }
    usage: JsonObject = {name: raw[name] for name in ("prompt_tokens", "completion_tokens", "total_tokens") if name in raw}
    told: JsonObject = {name: value for name, value in within.items() if value is not None}
    if told:
        usage["prompt_tokens_details"] = told
    if isinstance(made := raw.get("completion_tokens_details"), dict):
        usage["completion_tokens_details"] = made
    if isinstance(tools := raw.get("server_tool_use"), dict):
        usage["server_tool_use"] = tools
    return usage


def _ends(chunk: JsonObject) -> bool:
    return any(choice.get("finish_reason") is not None for choice in _objects(chunk.get("choices")))


def _objects(value: JsonValue) -> list[JsonObject]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


@contextmanager
def _failures(request: ProviderRequest, secrets: Sequence[str], *, billable: bool = False) -> Generator[None]:
    """Turns what the SDK raises into a ProviderFailure: its errors carry a status, and a message that repeats the request's."""
    try:
        yield
    except ProviderFailure:
        raise
    except Exception as error:
        failure = _failure(error, request.deployment.id, secrets)
        failure.billable = billable
        # From None: the chain would hold the request, and with it the credential.
        raise failure from None


def _failure(error: Exception, deployment: str, secrets: Sequence[str]) -> ProviderFailure:
    status, name = getattr(error, "status_code", None), type(error).__name__
    if isinstance(status, str) and status.isdigit():
        status = int(status)
    if not isinstance(status, int) or name in ("Timeout", "APIConnectionError"):
        return unavailable(deployment, f"can't be reached, or didn't answer as it should ({name})")
    words: Words = {"message": str(getattr(error, "message", "") or error)}
    if name in _CODES:
        words["code"] = _CODES[name]
    response = cast("object", getattr(error, "response", None))
    given = cast("object", getattr(response, "headers", None) or getattr(error, "litellm_response_headers", None))
    headers: Mapping[str, str] = cast("Mapping[str, str]", given) if isinstance(given, Mapping) else {}

    def words_of(status: int, headers: Mapping[str, str], body: bytes) -> Words:
        return words

    return refused(status, headers, b"", deployment, secrets, datetime.now(UTC), words_of)


def _invalid(message: str, param: str) -> ProviderFailure:
    return ProviderFailure("final", InvalidRequest(message, param=param).fault(), http_status=400)
