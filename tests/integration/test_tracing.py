"""One request is one trace, whatever way it goes; its names are those that others' tools know. And metrics stay few."""

import asyncio
import json
from collections.abc import AsyncGenerator, Generator, Mapping
from dataclasses import dataclass

import pytest

from tests.integration.test_routing import fault
from tests.kafka_client import bearer, line, publish
from tests.mocks.otlp import OtlpSink, Told
from tests.system import INPUT_USD, OUTPUT_USD, PROVIDER_KEY, Provider, System, Team, chat, prompt, until

KNOWN = frozenset(
    {
        "gen_ai.operation.name",
        "gen_ai.provider.name",
        "gen_ai.request.model",
        "gen_ai.request.max_tokens",
        "gen_ai.request.temperature",
        "gen_ai.request.top_p",
        "gen_ai.request.top_k",
        "gen_ai.request.seed",
        "gen_ai.request.stop_sequences",
        "gen_ai.request.frequency_penalty",
        "gen_ai.request.presence_penalty",
        "gen_ai.request.choice.count",
        "gen_ai.request.stream",
        "gen_ai.request.encoding_formats",
        "gen_ai.response.id",
        "gen_ai.response.model",
        "gen_ai.response.finish_reasons",
        "gen_ai.response.time_to_first_chunk",
        "gen_ai.usage.input_tokens",
        "gen_ai.usage.output_tokens",
        "gen_ai.usage.cache_read.input_tokens",
        "gen_ai.usage.cache_creation.input_tokens",
        "gen_ai.usage.reasoning.output_tokens",
        "gen_ai.conversation.id",
        "gen_ai.output.type",
        "gen_ai.system_instructions",
        "gen_ai.input.messages",
        "gen_ai.output.messages",
        "gen_ai.tool.definitions",
        "error.type",
        "server.address",
        "server.port",
        "messaging.system",
        "messaging.destination.name",
        "messaging.destination.partition.id",
        "messaging.operation.type",
        "messaging.operation.name",
        "messaging.kafka.offset",
        "messaging.consumer.group.name",
        "http.request.method",
        "http.route",
        "http.response.status_code",
    }
)
"""What the conventions v1.41 know, of what concerns us; ours begin with `sluice.`."""

TRACE = "0af7651916cd43dd8448eb211c8031"
CANARY = "CANARYcafe"


def config(provider: Provider) -> str:
    price = {"input_cost_per_token": str(INPUT_USD), "output_cost_per_token": str(OUTPUT_USD)}

    def entry(name: str, mock: str) -> dict[str, object]:
        params = {"model": f"mocked/{mock}", "api_base": provider.base_url, "api_key": PROVIDER_KEY}
        return {"model_name": name, "litellm_params": params, "model_info": {"id": f"{name}@{mock}", **price}}

    models = [
        entry("traced", "mock-traced"),
        entry("falls", "mock-500"),
        entry("raced", "mock-tardy"),
        entry("raced", "mock-prompt"),
        entry("lab", "mock-lab"),
    ]
    more = {
        "falls": {"fallbacks": ["traced"], "num_retries": 0},
        "raced": {"hedge": {"after_s": 0.2, "most_share": 1}},
        "lab": {"shadow": {"model": "traced", "share": 1, "team": "lab"}},
    }
    echo = {"model_name": "echo", "litellm_params": {"model": "echo/echo"}}
    return json.dumps({"model_list": [*models, echo], "models": more, "teams": {"lab": {}}})


@dataclass(frozen=True, slots=True)
class Stand:
    system: System
    sink: OtlpSink
    team: Team

    async def spans(self, number: int, least: int) -> list[Told]:
        """The spans of a trace, once there are so many and the first of them is."""

        async def come() -> list[Told]:
            found = self.sink.trace(f"{TRACE}{number:02d}")
            return found if len(found) >= least else []

        return await until(come)


@pytest.fixture(scope="module")
def sink() -> Generator[OtlpSink]:
    with OtlpSink() as sink:
        yield sink


@pytest.fixture(scope="module")
async def stand(tmp_path_factory: pytest.TempPathFactory, provider: Provider, sink: OtlpSink) -> AsyncGenerator[Stand]:
    variables = {"SLUICE_OTLP_ENDPOINT": sink.url, "SLUICE_OTLP_HEADERS": f"authorization=Basic%20{CANARY}"}
    system = await System.start(tmp_path_factory.mktemp("tracing"), config(provider), **variables)
    yield Stand(system, sink, await system.create_team_under("traced", {"guard": {"actions": {"card": "block"}}}))
    assert await system.stop() == 0, system.log_tail


def parent(number: int, flags: str = "01") -> str:
    return f"00-{TRACE}{number:02d}-b7ad6b7169203331-{flags}"


async def ask(stand: Stand, number: int, body: Mapping[str, object], path: str = "chat/completions", **headers: str) -> str:
    given = {"traceparent": parent(number), "tracestate": "vendor=7", **headers}
    async with stand.team.http() as client:
        answer = await client.post(f"/v1/{path}", json=body, headers=given)
    return f"{answer.status_code} {answer.text}"


def calls_of(spans: list[Told]) -> list[Told]:
    return [span for span in spans if span.kind == "client"]


def hold_together(spans: list[Told], root: str) -> None:
    """Each span has its parent in the trace, but the first, whose parent is the caller's."""
    [first] = [span for span in spans if span.parent == "b7ad6b7169203331"]
    assert first.name == root
    known = {span.id for span in spans}
    assert [span.name for span in spans if span is not first and span.parent not in known] == []
    names = {name for span in spans for name in span.attributes if not name.startswith("sluice.")}
    assert names <= KNOWN
    for span in calls_of(spans):
        attributes = span.attributes
        assert span.name == f"{attributes['gen_ai.operation.name']} {attributes['gen_ai.request.model']}"
        assert attributes["gen_ai.provider.name"]


async def test_a_request_is_one_trace_through_all_hops_to_the_provider(stand: Stand, provider: Provider) -> None:
    body = chat("traced", prompt(), temperature=0.5, max_tokens=9, stop=["END"], seed=7)
    assert (await ask(stand, 1, body, **{"x-sluice-metadata": '{"conversation_id": "talk"}'})).startswith("200")
    spans = await stand.spans(1, 5)
    hold_together(spans, "POST /v1/chat/completions")
    by_name = {span.name: span for span in spans}
    stages = ["process sluice.guard.interactive", "process sluice.cache.interactive", "process sluice.router.interactive"]
    assert set(by_name) == {"POST /v1/chat/completions", *stages, "chat mock-traced"}
    assert [by_name[name].kind for name in stages] == ["consumer"] * 3
    assert by_name[stages[1]].attributes["messaging.consumer.group.name"] == "sluice-cache"
    call = by_name["chat mock-traced"]
    assert call.parent == by_name[stages[2]].id
    expected = {
        "gen_ai.request.temperature": 0.5,
        "gen_ai.request.max_tokens": 9,
        "gen_ai.request.stop_sequences": ["END"],
        "gen_ai.request.seed": 7,
        "gen_ai.response.finish_reasons": ["length"],
        "gen_ai.output.type": "text",
        "gen_ai.conversation.id": "talk",
        "server.address": "127.0.0.1",
        "sluice.deployment": "traced@mock-traced",
        "sluice.lane": "interactive",
        "sluice.attempt": 1,
    }
    assert {name: call.attributes.get(name) for name in expected} == expected
    assert {"gen_ai.usage.input_tokens", "gen_ai.usage.output_tokens", "gen_ai.response.model"} <= call.attributes.keys()
    assert not [name for name in call.attributes if "messages" in name], "content is told by policy alone"
    assert by_name[stages[2]].attributes["sluice.cost_usd"] == call.attributes["sluice.cost_usd"]


async def test_a_stream_tells_its_first_chunk_and_ends_with_its_last(stand: Stand) -> None:
    assert "[DONE]" in await ask(stand, 2, chat("traced", prompt(), stream=True))
    spans = await stand.spans(2, 5)
    hold_together(spans, "POST /v1/chat/completions")
    [call] = calls_of(spans)
    assert call.attributes["gen_ai.request.stream"] is True
    assert call.attributes["gen_ai.response.time_to_first_chunk"]
    assert call.attributes["gen_ai.response.finish_reasons"] == ["stop"]


async def test_each_call_of_a_job_is_a_span(stand: Stand, provider: Provider) -> None:
    await fault(provider, "mock-tardy", *["latency-5000"] * 20)
    answers = [ask(stand, 10, chat("falls", prompt())), *(ask(stand, 11 + n, chat("raced", prompt())) for n in range(8))]
    assert {answer[:3] for answer in await asyncio.gather(*answers)} == {"200"}
    fallen = calls_of(await stand.spans(10, 6))
    assert [(span.error, span.attributes["sluice.attempt"]) for span in fallen if span.error] == [("500", 1)]
    raced = [calls_of(await stand.spans(11 + n, 5)) for n in range(8)]
    both = [calls for calls in raced if len(calls) == 2]
    assert both, "the slow one was never asked first"
    assert {span.attributes["sluice.status"] for calls in both for span in calls} == {"completed", "cancelled"}
    assert {span.attributes["sluice.hedge"] for calls in both for span in calls} == {True, False}


async def test_a_shadow_stands_in_the_trace_of_its_job(stand: Stand) -> None:
    await ask(stand, 20, chat("lab", prompt()))
    spans = await stand.spans(20, 7)
    hold_together(spans, "POST /v1/chat/completions")
    assert sum("sluice.shadow_of" in span.attributes for span in calls_of(spans)) == 1


async def test_what_never_reaches_a_provider_says_why(stand: Stand) -> None:
    same = chat("traced", prompt("again"))
    await ask(stand, 30, same)
    assert (await ask(stand, 31, same)).startswith("200")
    assert (await ask(stand, 32, chat("traced", "my card is 4111 1111 1111 1111"))).startswith("400")
    assert (await ask(stand, 33, chat("nobody-knows"))).startswith("404")
    hit = await stand.spans(31, 3)
    assert calls_of(hit) == []
    assert "hit" in [span.attributes.get("sluice.cache.status") for span in hit]
    blocked = {span.name: span for span in await stand.spans(32, 2)}
    assert blocked["process sluice.guard.interactive"].error == "content_filter"
    assert blocked["process sluice.guard.interactive"].attributes["sluice.verdict"] == "block"
    [refused] = await stand.spans(33, 1)
    assert (refused.error, refused.attributes["http.response.status_code"]) == ("model_not_found", 404)


async def test_other_doors_and_apis_are_traced_alike(stand: Stand) -> None:
    token = await stand.system.job_token(stand.team)
    headers = [*bearer(token), ("traceparent", parent(40).encode())]
    await publish(stand.system.kafka, "sluice.jobs.batch", [line("a", chat("traced", prompt()))], headers)
    by_events = [*bearer(token), ("ce_traceparent", parent(41).encode())]
    await publish(stand.system.kafka, "sluice.jobs.batch", [line("b", chat("traced", prompt()))], by_events)
    await ask(stand, 42, chat("traced", prompt()), prefer="respond-async")
    await ask(stand, 43, {"model": "echo", "input": prompt()}, "embeddings")
    for number in (40, 41):
        spans = await stand.spans(number, 5)
        hold_together(spans, "receive sluice.jobs.batch")
        assert len(calls_of(spans)) == 1
    hold_together(await stand.spans(42, 5), "POST /v1/chat/completions")
    [call] = calls_of(await stand.spans(43, 4))
    assert call.attributes["gen_ai.operation.name"] == "embeddings"


async def test_content_is_told_where_policy_says_so_and_no_secret_ever(stand: Stand) -> None:
    policy = {"tracing": {"content": True, "to_providers": False}}
    told = await stand.system.create_team_under("open", policy)
    kept = await stand.system.create_team_under("closed", {**policy, "data": {"log": False}})
    tool = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}
    messages = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "a tale of foxes"}]
    for number, team in ((50, told), (51, kept)):
        body = {"model": "traced", "messages": messages, "tools": [tool]}
        await ask(Stand(stand.system, stand.sink, team), number, body)
    [call] = calls_of(await stand.spans(50, 5))
    told_by = {name: json.loads(str(call.attributes[name])) for name in call.attributes if name in _CONTENT}
    assert told_by["gen_ai.system_instructions"] == [{"type": "text", "content": "be brief"}]
    assert told_by["gen_ai.input.messages"] == [{"role": "user", "parts": [{"type": "text", "content": "a tale of foxes"}]}]
    assert told_by["gen_ai.output.messages"][0]["role"] == "assistant"
    assert told_by["gen_ai.tool.definitions"] == [tool]
    assert "foxes" not in repr(await stand.spans(51, 5))
    secrets = (CANARY, PROVIDER_KEY, stand.team.key, told.key, kept.key, stand.system.admin_key)
    assert [secret for secret in secrets if secret in repr(stand.sink.spans)] == []
    assert CANARY not in stand.system.log_tail


_CONTENT = frozenset(name for name in KNOWN if "messages" in name or "instructions" in name or "definitions" in name)


async def test_policy_and_the_caller_decide_what_is_recorded(stand: Stand) -> None:
    unwatched = await stand.system.create_team_under("unwatched", {"tracing": {"sample": 0}})
    await ask(Stand(stand.system, stand.sink, unwatched), 60, chat("traced", prompt()))
    await ask(stand, 61, chat("traced", prompt()), traceparent=parent(61, "00"))
    await ask(stand, 62, chat("traced", prompt()))
    await stand.spans(62, 5)
    assert (stand.sink.trace(f"{TRACE}60"), stand.sink.trace(f"{TRACE}61")) == ([], [])
