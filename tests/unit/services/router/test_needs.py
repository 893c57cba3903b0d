"""What a request needs of a deployment."""

from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import JsonValue

from infra import tokens
from schemas.base import JsonObject
from schemas.control import Capability, Deployment, Model
from schemas.job import Api, Estimate
from schemas.topics import Lane
from services.router.needs import Needs, capabilities, may_exceed
from tests.unit.services.router.doubles import START_MS, deployment, job, model

TODAY, YESTERDAY = date(2027, 1, 15), date(2027, 1, 14)
"""By START_MS."""


def chat(**more: JsonValue) -> JsonObject:
    return {"messages": [{"role": "user", "content": "hello"}], **more}


def saying(*parts: JsonValue, **more: JsonValue) -> JsonObject:
    return chat(messages=[{"role": "system", "content": "be kind"}, {"role": "user", "content": list(parts)}], **more)


IMAGE: JsonObject = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
SOUND: JsonObject = {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}}
TOOLS: list[JsonValue] = [{"type": "function", "function": {"name": "look"}}]

CAPABILITIES: list[tuple[str, JsonObject, set[Capability]]] = [
    ("plain", chat(), set()),
    ("text in parts", saying({"type": "text", "text": "hi"}), set()),
    ("tools", chat(tools=TOOLS), {"tools"}),
    ("tools as they were", chat(functions=[{"name": "look"}]), {"tools"}),
    ("no tools", chat(tools=[]), set()),
    ("an image", saying({"type": "text", "text": "what is it?"}, IMAGE), {"images"}),
    ("sound", saying(SOUND), {"audio"}),
    ("a spoken answer", chat(modalities=["text", "audio"], audio={"voice": "alloy"}), {"audio"}),
    ("a schema", chat(response_format={"type": "json_schema", "json_schema": {"name": "a"}}), {"json_schema"}),
    ("any object", chat(response_format={"type": "json_object"}), set()),
    ("reasoning", chat(reasoning_effort="high"), {"reasoning"}),
    ("no reasoning", chat(reasoning_effort="none"), set()),
    ("thinking", chat(thinking={"type": "enabled", "budget_tokens": 2048}), {"reasoning"}),
    ("no thinking", chat(thinking={"type": "disabled"}), set()),
    ("all of it", saying(IMAGE, SOUND, tools=TOOLS, reasoning_effort="low"), {"tools", "images", "audio", "reasoning"}),
    ("no messages", {"messages": "none"}, set()),
    ("odd messages", {"messages": ["a", {"content": ["b", 3]}]}, set()),
]


@pytest.mark.parametrize(
    ("body", "expected"), [(body, expected) for _, body, expected in CAPABILITIES], ids=[n for n, *_ in CAPABILITIES]
)
def test_what_a_chat_asks_for(body: JsonObject, expected: set[Capability]) -> None:
    assert capabilities(job(body=body)) == expected
    assert capabilities(job(body=body, stream=True)) == expected | {"streaming"}


def test_only_a_chat_asks_for_anything() -> None:
    assert capabilities(job(api=Api.EMBEDDINGS, body={"input": "a", "tools": TOOLS})) == frozenset()


def of(**says: object) -> Deployment:
    return deployment("d1", **says)


MET: list[tuple[dict[str, object], bool]] = [
    ({}, True),
    ({"capabilities": ("tools", "images")}, True),
    ({"capabilities": ("images",)}, False),
    ({"capabilities": ()}, False),
    ({"lanes": (Lane.INTERACTIVE,)}, True),
    ({"lanes": (Lane.BATCH,)}, False),
    ({"lanes": ()}, False),
    ({"max_input_tokens": 100}, True),
    ({"max_input_tokens": 99}, False),
    ({"shutdown_date": TODAY}, True),
    ({"shutdown_date": YESTERDAY}, False),
]


@pytest.mark.parametrize(("says", "met"), MET)
def test_who_can_serve_a_request(says: dict[str, object], met: bool) -> None:
    needs = Needs(job(body=chat(tools=TOOLS)), START_MS, prompt_tokens=100)
    assert needs.met_by(of(**says)) is met


LONG, SHORT = deployment("long"), deployment("short", max_input_tokens=50)

TOO_LONG: list[tuple[tuple[Deployment, ...], bool]] = [
    ((SHORT,), True),
    ((LONG, SHORT), True),
    ((LONG,), False),
    ((SHORT.model_copy(update={"capabilities": ()}),), False),
    ((SHORT.model_copy(update={"lanes": (Lane.BATCH,)}),), False),
    ((SHORT.model_copy(update={"shutdown_date": YESTERDAY}),), False),
]


@pytest.mark.parametrize(("deployments", "expected"), TOO_LONG)
def test_it_is_the_length_only_where_nothing_else_is_in_the_way(deployments: tuple[Deployment, ...], expected: bool) -> None:
    assert Needs(job(body=chat(tools=TOOLS)), START_MS, prompt_tokens=100).too_long(deployments) is expected


UNMET: list[tuple[tuple[Deployment, ...], tuple[int, str, str, tuple[str, ...]]]] = [
    ((of(max_input_tokens=60), SHORT), (400, "context_length_exceeded", "messages", ("60", "100"))),
    ((of(capabilities=()),), (400, "unsupported_capability", "messages", ("images, tools",))),
    ((of(capabilities=()), of(capabilities=("images",))), (400, "unsupported_capability", "tools", (" tools.",))),
    ((of(capabilities=()), SHORT), (400, "context_length_exceeded", "messages", ("50",))),
    ((of(lanes=(Lane.BATCH,)),), (400, "lane_not_served", "model", ("interactive",))),
    ((of(lanes=(Lane.BATCH,)), of(capabilities=("tools",))), (400, "unsupported_capability", "messages", (" images.",))),
    ((of(shutdown_date=YESTERDAY),), (404, "model_not_found", "model", ("shut down",))),
    ((of(shutdown_date=YESTERDAY), SHORT), (400, "context_length_exceeded", "messages", ("50",))),
]


@pytest.mark.parametrize(("deployments", "expected"), UNMET)
def test_who_asks_in_vain_is_told_what_lacks(
    deployments: tuple[Deployment, ...], expected: tuple[int, str, str, tuple[str, ...]]
) -> None:
    needs = Needs(job(body=saying(IMAGE, tools=TOOLS)), START_MS, prompt_tokens=100)
    assert not any(map(needs.met_by, deployments))
    fault = needs.unmet("alias", deployments).fault()
    status, code, param, words = expected
    assert (fault.status, fault.code, fault.param, fault.owner) == (status, code, param, "caller")
    assert all(word in fault.message for word in ("`alias`", *words))


# Whether the prompt has to be counted


def limited(tokens: int | None) -> Model:
    return model(deployment(), deployment("d2", max_input_tokens=tokens))


def test_a_prompt_is_counted_only_where_a_limit_is_near() -> None:
    words = job(body=chat(messages=[{"role": "user", "content": "x" * 1000}]))
    assert not may_exceed(words, [limited(None)])
    assert not may_exceed(words, [limited(10_000)])
    assert may_exceed(words, [limited(10_000), limited(1_000)])
    assert not may_exceed(words.model_copy(update={"estimate": Estimate(input_tokens=200, output_tokens=9)}), [limited(200)])
    assert may_exceed(words.model_copy(update={"estimate": Estimate(input_tokens=201, output_tokens=9)}), [limited(200)])


def test_texts_to_embed_are_no_prompt() -> None:
    assert not may_exceed(job(api=Api.EMBEDDINGS, body={"input": ["x" * 100] * 100}), [limited(5)])


TEXTS = st.lists(st.text(), max_size=3)


def messages_of(texts: list[str], parts: list[str], arguments: list[str]) -> list[JsonValue]:
    """A message of each text, one of parts, and one that calls tools."""
    calls: list[JsonValue] = [{"id": text, "function": {"name": "f", "arguments": text}} for text in arguments]
    of_parts: list[JsonValue] = [{"type": "text", "text": text} for text in parts]
    plain: list[JsonValue] = [{"role": "user", "name": text, "content": text} for text in texts]
    return [*plain, {"role": "user", "content": of_parts}, {"role": "assistant", "tool_calls": calls}]


@given(st.just([]) | st.builds(messages_of, TEXTS, TEXTS, TEXTS), TEXTS)
def test_what_is_not_counted_would_have_fitted(messages: list[JsonValue], names: list[str]) -> None:
    body: JsonObject = {"messages": messages, "tools": [{"function": {"name": name}} for name in names]}
    counted = tokens.prompt_tokens(Api.CHAT, body)
    assert may_exceed(job(body=body), [limited(max(1, counted - 1))])
