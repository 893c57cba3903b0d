"""Bedrock against a mock that verifies signatures and knows AWS's own model of the API, by cases written from AWS's reference."""

import base64
import struct
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import cast

import pytest
from pydantic import BaseModel
from pydantic_core import from_json

from infra.usage import canonical
from schemas.base import JsonObject
from schemas.control import AwsSettings, Deployment
from schemas.job import Api
from services.router.answers import read_answer, read_event
from services.router.providers.base import DONE, ProviderFailure, ProviderRequest
from services.router.providers.bedrock import Bedrock
from services.router.providers.failures import leads_to
from services.router.providers.http import Http
from tests.mocks.bedrock import ACCESS_KEY, API_KEY, REGION, SECRET_KEY, Mishap, MockBedrock, mock_bedrock

SONNET = "anthropic.claude-sonnet-4-5-20250929-v1:0"
HELLO: JsonObject = {"model": "alias", "messages": [{"role": "user", "content": "Hello"}]}
TOKEN = "session-token-CANARY"
SECRETS = {"env/ID": ACCESS_KEY, "env/KEY": SECRET_KEY, "env/TOKEN": TOKEN, "env/API": API_KEY, "env/OTHER": "wrong-CANARY"}
SIGNED = AwsSettings(access_key_id="env/ID", secret_access_key="env/KEY")


class Case(BaseModel):
    """A chat, what is sent of it, what comes back, and what that is in OpenAI's words."""

    why: str
    model: str
    request: JsonObject
    sent: JsonObject
    answer: JsonObject
    message: JsonObject
    finish_reason: str
    usage: JsonObject


CASES = {path.stem: path for path in sorted(Path("tests/recorded/wire/bedrock").glob("*.json"))}


@pytest.fixture
async def mock() -> AsyncIterator[MockBedrock]:
    async with mock_bedrock() as started:
        yield started


@pytest.fixture
async def bedrock() -> AsyncIterator[Bedrock]:
    http = Http(10)
    provider = Bedrock(_secret, http)
    yield provider
    await provider.close()
    await http.close()


async def _secret(reference: str) -> str | None:
    return SECRETS.get(reference)


def asked(
    mock: MockBedrock,
    body: JsonObject = HELLO,
    model: str = SONNET,
    aws: AwsSettings = SIGNED,
    api: Api = Api.CHAT,
    api_key: str | None = None,
    region: str | None = REGION,
) -> ProviderRequest:
    deployment = Deployment(
        id="d1", provider="bedrock", model=model, api_base=mock.base_url, api_key=api_key, region=region, aws=aws
    )
    return ProviderRequest("att_1", api, body, deployment, "00-" + "1" * 32 + "-" + "2" * 16 + "-00")


async def events(bedrock: Bedrock, request: ProviderRequest) -> list[str]:
    async with aclosing(bedrock.stream(request)) as batches:
        return [data async for batch in batches for data in batch]


async def failure(bedrock: Bedrock, request: ProviderRequest, *, stream: bool = False) -> ProviderFailure:
    """The failure, of which neither text nor chain may hold a credential."""
    with pytest.raises(ProviderFailure) as caught:
        await (events(bedrock, request) if stream else bedrock.call(request))
    said = repr(caught.value) + caught.value.fault.model_dump_json()
    assert not any(secret in said for secret in SECRETS.values())
    assert caught.value.__cause__ is None
    return caught.value


def gathered(streamed: Sequence[str]) -> JsonObject:
    """The message of a stream, as an SDK puts it together."""
    message: JsonObject = {"role": None, "content": None, "refusal": None}
    for data in streamed:
        for choice in from_json(data)["choices"]:
            _add(message, choice["delta"])
    if message.get("tool_calls") and not message["content"]:
        message["content"] = None
    return message


def _add(message: JsonObject, delta: JsonObject) -> None:
    for name, value in delta.items():
        if name == "tool_calls":
            for piece in cast("list[JsonObject]", value):
                _add_call(cast("list[JsonObject]", message.setdefault(name, [])), piece)
        elif name == "thinking_blocks":
            blocks = cast("list[JsonObject]", message.setdefault(name, []))
            blocks += [{key: part for key, part in block.items() if key != "index"} for block in cast("list[JsonObject]", value)]
        else:
            message[name] = f"{message.get(name) or ''}{value}"


def _add_call(calls: list[JsonObject], piece: JsonObject) -> None:
    if piece["index"] == len(calls):
        calls.append({name: value for name, value in piece.items() if name != "index"})
    else:
        call = cast("JsonObject", calls[cast("int", piece["index"])]["function"])
        call["arguments"] = f"{call['arguments']}{cast('JsonObject', piece['function'])['arguments']}"


# What is said, both ways


@pytest.mark.parametrize("name", CASES)
async def test_a_chat_is_asked_and_answered_as_recorded(name: str, mock: MockBedrock, bedrock: Bedrock) -> None:
    case = Case.model_validate_json(CASES[name].read_bytes())
    mock.answer = lambda model, body: case.answer
    request = asked(mock, case.request, case.model)
    said = await bedrock.call(request)
    answer = from_json(said)
    assert mock.asked == [case.sent]
    assert answer["choices"] == [
        {"index": 0, "message": case.message, "logprobs": None, "finish_reason": case.finish_reason},
    ]
    assert (answer["object"], answer["model"], answer["usage"]) == ("chat.completion", case.model, case.usage)
    assert request.told.usage == case.answer["usage"]
    tier = cast("Mapping[str, str]", case.answer.get("serviceTier", {})).get("type", "")
    assert read_answer(Api.CHAT, said).service_tier == tier


@pytest.mark.parametrize("name", CASES)
async def test_a_stream_says_what_the_whole_answer_says(name: str, mock: MockBedrock, bedrock: Bedrock) -> None:
    case = Case.model_validate_json(CASES[name].read_bytes())
    mock.answer = lambda model, body: case.answer
    request = asked(mock, {**case.request, "stream": True}, case.model)
    *chunks, last, done = await events(bedrock, request)
    assert done == DONE
    assert mock.asked == [case.sent]
    assert gathered(chunks) == case.message
    readings = [read_event(data) for data in chunks]
    assert [reading.finished for reading in readings] == [False] * (len(chunks) - 1) + [True]
    assert from_json(chunks[-1])["choices"][0]["finish_reason"] == case.finish_reason
    assert read_event(last).usage_only
    assert read_event(last).usage == case.usage
    assert request.told.usage == case.answer["usage"]


@pytest.mark.parametrize("name", CASES)
def test_the_parts_of_usage_add_up(name: str) -> None:
    case = Case.model_validate_json(CASES[name].read_bytes())
    usage, raw = canonical(case.usage), cast("Mapping[str, int]", case.answer["usage"])
    assert usage is not None
    assert usage.source == "provider"
    assert usage.input_tokens + usage.output_tokens == raw["totalTokens"]
    assert usage.input_tokens - usage.cache_read_tokens - usage.cache_write_tokens == raw["inputTokens"]


async def test_usage_that_cannot_be_true_is_none(mock: MockBedrock, bedrock: Bedrock) -> None:
    message: JsonObject = {"role": "assistant", "content": [{"text": "Hi"}]}
    mock.answer = lambda model, body: {"output": {"message": message}, "stopReason": "new_one", "usage": {"inputTokens": -3}}
    request = asked(mock)
    answer = from_json(await bedrock.call(request))
    assert (answer["usage"], answer["choices"][0]["finish_reason"]) == (None, "stop")
    assert request.told.usage == {"inputTokens": -3}
    assert (await events(bedrock, asked(mock)))[-1] == DONE


@pytest.mark.parametrize("stream", [False, True])
async def test_a_model_that_wrote_no_answer_has_failed_and_costs(stream: bool, mock: MockBedrock, bedrock: Bedrock) -> None:
    message: JsonObject = {"role": "assistant", "content": [{"text": "<call"}]}
    mock.answer = lambda model, body: {"output": {"message": message}, "stopReason": "malformed_tool_use", "usage": {}}
    failed = await failure(bedrock, asked(mock), stream=stream)
    assert (failed.kind, failed.billable) == ("unavailable", True)


# Who asks


@pytest.mark.parametrize(
    "model",
    [
        SONNET,
        f"arn:aws:bedrock:eu-central-1:123456789012:inference-profile/eu.{SONNET}",
        "arn:aws:bedrock:eu-central-1:123456789012:application-inference-profile/a1b2c3d4e5f6",
        "arn:aws:bedrock:us-east-1:123456789012:provisioned-model/abcdefabcdef",
    ],
)
async def test_the_signature_fits_what_is_sent(model: str, mock: MockBedrock, bedrock: Bedrock) -> None:
    assert (await events(bedrock, asked(mock, model=model)))[-1] == DONE
    sent = mock.sent[0]
    assert sent.path == f"/model/{model.replace('/', '%2F')}/converse-stream"
    assert sent.headers["host"] == mock.base_url.removeprefix("http://")
    assert sent.headers["content-type"] == "application/json"
    assert sent.headers["traceparent"].startswith("00-1")


async def test_a_session_token_is_sent_and_signed(mock: MockBedrock, bedrock: Bedrock) -> None:
    mock.token = TOKEN
    aws = SIGNED.model_copy(update={"session_token": "env/TOKEN"})
    assert from_json(await bedrock.call(asked(mock, aws=aws)))["object"] == "chat.completion"
    assert (await failure(bedrock, asked(mock))).kind == "denied"


async def test_a_wrong_secret_is_denied(mock: MockBedrock, bedrock: Bedrock) -> None:
    failed = await failure(bedrock, asked(mock, aws=AwsSettings(access_key_id="env/ID", secret_access_key="env/OTHER")))
    assert (failed.kind, failed.http_status) == ("denied", 403)


async def test_a_stale_signature_is_denied(mock: MockBedrock, bedrock: Bedrock) -> None:
    mock.now = lambda: datetime.now(UTC) + timedelta(minutes=6)
    assert (await failure(bedrock, asked(mock))).kind == "denied"


async def test_a_region_of_others_is_denied(mock: MockBedrock, bedrock: Bedrock) -> None:
    assert (await failure(bedrock, asked(mock, region="us-east-1"))).kind == "denied"


async def test_an_api_key_is_a_bearer_and_needs_no_region(mock: MockBedrock, bedrock: Bedrock) -> None:
    await bedrock.call(asked(mock, aws=AwsSettings(), api_key="env/API", region=None))
    assert mock.sent[0].headers["authorization"] == f"Bearer {API_KEY}"
    assert (await failure(bedrock, asked(mock, api_key="env/OTHER"))).kind == "denied"


@pytest.mark.parametrize(
    ("aws", "api_key", "region"),
    [
        (AwsSettings(access_key_id="env/ID", secret_access_key="env/NONE"), None, REGION),
        (AwsSettings(access_key_id="env/ID"), None, REGION),
        (SIGNED, "env/NONE", REGION),
        (SIGNED, None, None),
    ],
)
async def test_without_credential_or_region_nobody_is_asked(
    aws: AwsSettings, api_key: str | None, region: str | None, mock: MockBedrock, bedrock: Bedrock
) -> None:
    failed = await failure(bedrock, asked(mock, aws=aws, api_key=api_key, region=region))
    assert (failed.kind, failed.http_status, mock.sent) == ("unavailable", None, [])
    assert "can't be asked" in failed.fault.message


# What goes wrong

REFUSED = [
    (429, "ThrottlingException", "Too many tokens", ("throttled", 429, "rate_limit_exceeded")),
    (429, "ModelNotReadyException", "Not ready", ("throttled", 429, "rate_limit_exceeded")),
    (503, "ServiceUnavailableException", "Later", ("unavailable", 502, "provider_error")),
    (500, "InternalServerException", "Oh", ("unavailable", 502, "provider_error")),
    (408, "ModelTimeoutException", "Slow", ("unavailable", 502, "provider_error")),
    (400, "ServiceQuotaExceededException", "Your quota", ("throttled", 429, "rate_limit_exceeded")),
    (424, "ModelErrorException", "The model failed", ("unavailable", 502, "provider_error")),
    (403, "AccessDeniedException", "You don't have access", ("denied", 502, "provider_error")),
    (400, "UnrecognizedClientException", "Who?", ("denied", 502, "provider_error")),
    (403, "ExpiredTokenException", "Expired", ("denied", 502, "provider_error")),
    (404, "ResourceNotFoundException", "No such model", ("final", 404, "ResourceNotFoundException")),
    (400, "ValidationException", "temperature: too high", ("final", 400, "ValidationException")),
    (400, "ValidationException", "Input is too long for requested model.", ("final", 400, "context_length_exceeded")),
]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("status", "name", "message", "told"), REFUSED)
async def test_errors(
    status: int, name: str, message: str, told: tuple[str, int, str], stream: bool, mock: MockBedrock, bedrock: Bedrock
) -> None:
    mock.mishaps.append(Mishap(name, message, status))
    failed = await failure(bedrock, asked(mock), stream=stream)
    assert (failed.kind, failed.fault.status, failed.fault.code) == told
    assert not failed.billable
    if told[0] in ("final", "throttled"):
        assert failed.fault.message == message


async def test_a_prompt_that_is_too_long_leads_to_a_larger_model(mock: MockBedrock, bedrock: Bedrock) -> None:
    mock.mishaps.append(Mishap("ValidationException", "Input is too long for requested model.", 400))
    assert leads_to(await failure(bedrock, asked(mock))) == "context"


IN_STREAMS = [
    ("throttlingException", "throttled"),
    ("modelStreamErrorException", "unavailable"),
    ("internalServerException", "unavailable"),
    ("serviceUnavailableException", "unavailable"),
    ("modelTimeoutException", "unavailable"),
    ("validationException", "final"),
    ("somethingNewException", "unavailable"),
]


@pytest.mark.parametrize("after", [0, 1, 3])
@pytest.mark.parametrize(("name", "kind"), IN_STREAMS)
async def test_exceptions_in_a_stream(name: str, kind: str, after: int, mock: MockBedrock, bedrock: Bedrock) -> None:
    mock.mishaps.append(Mishap(name, "It went wrong.", after=after))
    failed = await failure(bedrock, asked(mock), stream=True)
    assert (failed.kind, failed.billable) == (kind, True)


@pytest.mark.parametrize("after", [0, 2])
async def test_a_wrong_sum_is_no_answer(after: int, mock: MockBedrock, bedrock: Bedrock) -> None:
    mock.mishaps.append(Mishap(after=after, then="corrupt"))
    failed = await failure(bedrock, asked(mock), stream=True)
    assert (failed.kind, failed.http_status, failed.billable) == ("unavailable", 200, True)


@pytest.mark.parametrize("after", range(7))
async def test_a_stream_ends_well_only_with_the_end_of_the_message(after: int, mock: MockBedrock, bedrock: Bedrock) -> None:
    message: JsonObject = {"role": "assistant", "content": [{"text": "Hello there"}]}
    mock.answer = lambda model, body: {"output": {"message": message}, "stopReason": "end_turn", "usage": {"inputTokens": 1}}
    mock.mishaps.append(Mishap(after=after, then="cut"))
    streamed = await events(bedrock, asked(mock))
    ended = after >= 5
    assert (DONE in streamed, any(read_event(data).finished for data in streamed if data != DONE)) == (ended, ended)


async def test_only_chats_and_embeddings_are_there(mock: MockBedrock, bedrock: Bedrock) -> None:
    failed = await failure(bedrock, asked(mock, api=Api.MODERATIONS))
    assert (failed.kind, failed.fault.status, mock.sent) == ("final", 400, [])


# Embeddings


def embedding(texts: object, **more: object) -> JsonObject:
    return cast("JsonObject", {"model": "alias", "input": texts, **more})


async def test_titan_embeds_one_text_a_call_in_order(mock: MockBedrock, bedrock: Bedrock) -> None:
    texts = [f"text {'x' * n}" for n in range(1, 21)]
    request = asked(mock, embedding(texts, dimensions=256), "amazon.titan-embed-text-v2:0", api=Api.EMBEDDINGS)
    answer = from_json(await bedrock.call(request))
    assert [row["embedding"][0] for row in answer["data"]] == [len(text) for text in texts]
    assert [row["index"] for row in answer["data"]] == list(range(20))
    assert answer["usage"] == {"prompt_tokens": 40, "total_tokens": 40}
    assert sorted(str(body["inputText"]) for body in mock.asked if body["dimensions"] == 256) == sorted(texts)


@pytest.mark.parametrize("model", ["cohere.embed-multilingual-v3", "us.cohere.embed-v4:0"])
async def test_cohere_embeds_by_batches(model: str, mock: MockBedrock, bedrock: Bedrock) -> None:
    texts = [f"text {n}" for n in range(100)]
    body = embedding(texts, encoding_format="base64", input_type="search_query")
    answer = from_json(await bedrock.call(asked(mock, body, model, api=Api.EMBEDDINGS)))
    assert {str(body["input_type"]) for body in mock.asked} == {"search_query"}
    assert sorted(len(cast("list[str]", body["texts"])) for body in mock.asked) == [4, 96]
    assert answer["usage"] == {"prompt_tokens": 200, "total_tokens": 200}
    rows = [struct.unpack("<2f", base64.b64decode(row["embedding"])) for row in answer["data"]]
    assert rows == [(len(text), 0.25) for text in texts]


@pytest.mark.parametrize(
    ("model", "texts"), [("amazon.nova-pro-v1:0", "a"), ("amazon.titan-embed-text-v1", [1, 2]), ("cohere.embed-english-v3", [])]
)
async def test_what_cannot_be_embedded_is_refused(model: str, texts: object, mock: MockBedrock, bedrock: Bedrock) -> None:
    failed = await failure(bedrock, asked(mock, embedding(texts), model, api=Api.EMBEDDINGS))
    assert (failed.kind, failed.fault.status, mock.sent) == ("final", 400, [])


async def test_one_text_that_fails_fails_all(mock: MockBedrock, bedrock: Bedrock) -> None:
    mock.mishaps.append(Mishap(status=429))
    request = asked(mock, embedding(["a", "b", "c"]), "amazon.titan-embed-text-v2:0", api=Api.EMBEDDINGS)
    assert (await failure(bedrock, request)).kind == "throttled"
