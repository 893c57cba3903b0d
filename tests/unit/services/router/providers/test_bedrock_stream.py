"""The event stream of Bedrock, wherever its bytes are cut and whatever is wrong with them. No network."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from itertools import pairwise
from typing import cast

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic_core import from_json, to_json

from schemas.base import JsonObject
from schemas.control import AwsSettings, Deployment
from schemas.job import Api
from services.router.providers.base import DONE, ProviderFailure, ProviderRequest
from services.router.providers.bedrock import Bedrock
from services.router.providers.http import Http
from tests.mocks.bedrock import event_frame, events_of, exception_frame, frame

ANSWER: JsonObject = {
    "output": {
        "message": {
            "role": "assistant",
            "content": [
                {"reasoningContent": {"reasoningText": {"text": "Think of déjà vu.", "signature": "c2ln"}}},
                {"text": "I look 😀 it up."},
                {"toolUse": {"toolUseId": "t1", "name": "f", "input": {"city": "Paris"}}},
                {"toolUse": {"toolUseId": "t2", "name": "f", "input": {}}},
            ],
        }
    },
    "stopReason": "tool_use",
    "usage": {"inputTokens": 3, "outputTokens": 5, "totalTokens": 8},
    "metrics": {"latencyMs": 1},
}
FRAMES = [event_frame(name, body) for name, body in events_of(ANSWER)]
STREAM = b"".join(FRAMES)


class _Bytes(httpx.AsyncByteStream):
    def __init__(self, pieces: Sequence[bytes]) -> None:
        self._pieces = pieces

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self._pieces:
            yield piece


class _Wire:
    """Http, as far as Bedrock asks it; answers with these bytes."""

    def __init__(self, pieces: Sequence[bytes]) -> None:
        self._pieces = pieces

    @asynccontextmanager
    async def post(self, *_: object, **__: object) -> AsyncGenerator[httpx.Response]:
        yield httpx.Response(200, stream=_Bytes(self._pieces))


async def _secret(reference: str) -> str | None:
    return reference


async def _events(pieces: Sequence[bytes]) -> list[str]:
    bedrock = Bedrock(_secret, cast("Http", _Wire(pieces)))
    aws = AwsSettings(access_key_id="id", secret_access_key="key")
    deployment = Deployment(id="d1", provider="bedrock", model="anthropic.claude-sonnet-4-5", region="eu-west-1", aws=aws)
    body: JsonObject = {"model": "alias", "messages": [{"role": "user", "content": "Hi"}]}
    async with aclosing(bedrock.stream(ProviderRequest("att_1", Api.CHAT, body, deployment))) as batches:
        return [_timeless(data) async for batch in batches for data in batch]


def _timeless(data: str) -> str:
    return data if data == DONE else to_json({**from_json(data), "created": 0}).decode()


def streamed(*pieces: bytes) -> list[str]:
    return asyncio.run(_events(pieces))


WHOLE = streamed(STREAM)


@given(st.lists(st.integers(0, len(STREAM)), max_size=30))
def test_any_cut_gives_the_same_chunks(cuts: list[int]) -> None:
    places = sorted({0, len(STREAM), *cuts})
    assert streamed(*(STREAM[a:b] for a, b in pairwise(places))) == WHOLE


def test_byte_by_byte_gives_the_same_chunks() -> None:
    assert streamed(*(STREAM[at : at + 1] for at in range(len(STREAM)))) == WHOLE
    assert WHOLE[-1] == DONE


@given(st.integers(0, len(STREAM) - 1), st.integers(0, 7))
def test_no_bit_may_be_another(at: int, bit: int) -> None:
    broken = bytearray(STREAM)
    broken[at] ^= 1 << bit
    with pytest.raises(ProviderFailure) as caught:
        streamed(bytes(broken))
    assert (caught.value.kind, caught.value.billable) == ("unavailable", True)


@given(st.integers(0, len(STREAM) - 1))
def test_a_stream_that_is_cut_off_never_ends_well(at: int) -> None:
    stopped = at >= len(STREAM) - len(FRAMES[-1])
    assert (DONE in streamed(STREAM[:at])) == stopped


@given(st.binary(min_size=16, max_size=200))
def test_what_is_no_stream_is_no_answer(data: bytes) -> None:
    with pytest.raises(ProviderFailure):
        streamed(data)


def test_thoughts_come_as_they_are_thought_and_signed_at_their_end() -> None:
    deltas = [from_json(chunk)["choices"][0]["delta"] for chunk in WHOLE[:-2]]
    said = "".join(delta.get("reasoning_content", "") for delta in deltas)
    assert said == "Think of déjà vu."
    blocks = [block for delta in deltas for block in delta.get("thinking_blocks", [])]
    assert blocks == [{"index": 0, "type": "thinking", "thinking": said, "signature": "c2ln"}]


def test_events_that_are_new_to_us_are_passed_over() -> None:
    new = event_frame("somethingNew", {"a": 1})
    image = event_frame("contentBlockDelta", {"contentBlockIndex": 9, "delta": {"image": {}}})
    assert streamed(FRAMES[0], new, image, *FRAMES[1:]) == WHOLE


@pytest.mark.parametrize(
    "frames",
    [
        [exception_frame("throttlingException", "Slow down.")],
        [*FRAMES[:2], exception_frame("throttlingException", "Slow down.")],
        [frame({":message-type": "error", ":error-code": "ThrottlingException", ":error-message": "Slow down."}, b"")],
    ],
)
def test_a_throttle_in_a_stream_is_one(frames: list[bytes]) -> None:
    with pytest.raises(ProviderFailure) as caught:
        streamed(b"".join(frames))
    failure = caught.value
    assert (failure.kind, failure.fault.message, failure.billable) == ("throttled", "Slow down.", True)


def test_an_event_of_another_shape_is_no_answer() -> None:
    with pytest.raises(ProviderFailure) as caught:
        streamed(event_frame("contentBlockDelta", {"delta": "text"}))
    assert caught.value.fault.message == "The provider of deployment d1 sent what is no answer."
