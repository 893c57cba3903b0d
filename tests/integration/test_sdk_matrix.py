"""Every SDK at every front to every provider: what arrives there, what comes back, and what is on the bill.

The cases run side by side; each test tells of its own. `-k openai-chat-bedrock-tools-whole` runs one.
"""

import asyncio
import json
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any, TypeAlias, cast

import anthropic
import openai
import pytest

from tests.integration.matrix import agent, langchain, talks, vendors
from tests.integration.matrix.stand import DATA_URL, EMBEDDERS, PIXEL, PLACES, PUBLIC_URL, Place, Stand, price, standing
from tests.integration.matrix.talks import CITY, CLOCK, SYSTEM, TOWN, WEATHER, City, Clock, Said, Sdk, Talk, Town, Weather, Wish
from tests.integration.matrix.wires import Arrived, leaves
from tests.system import prompt

pytestmark = pytest.mark.filterwarnings("ignore:Pydantic serializer warnings:UserWarning")  # LangChain's own

RESULT = "Sunny, 21 degrees."
AT_ONCE = 64
SDKS: Mapping[str, Sdk] = {
    "openai-chat": vendors.openai_chat,
    "openai-responses": vendors.openai_responses,
    "anthropic-messages": vendors.anthropic_messages,
    "langchain-chat": langchain.openai_chat,
    "langchain-responses": langchain.openai_responses,
    "langchain-messages": langchain.anthropic_messages,
}
Scenario: TypeAlias = Callable[..., Awaitable[None]]
TELL_THOUGHTS = (vendors.openai_chat, vendors.anthropic_messages, langchain.anthropic_messages)
"""Responses have no place for thoughts, and ChatOpenAI reads none that isn't OpenAI's."""


@dataclass(frozen=True, slots=True)
class Asking:
    """A case under way."""

    stand: Stand
    sdk: Sdk
    place: Place
    marker: str

    def talk(self, **wanted: Any) -> Talk:
        """Begins a conversation."""
        return self.sdk(self.stand.clients, Wish(self.place.name, self.marker, **wanted))

    def arrived(self, count: int) -> Sequence[Arrived]:
        """What reached the provider, so many requests, each with the instructions."""
        found = self.stand.arrived(self.place, self.marker)
        assert len(found) == count
        assert all(SYSTEM in one.texts for one in found)
        return found

    async def billed(self, *said: Said) -> None:
        """The rows say what the SDK was told, and cost what the price makes of it."""
        told = [(one.given, one.made) for one in said]
        assert all(given > 0 and made > 0 for given, made in told)
        await billed(self.stand, self.place.name, self.marker, told)


async def billed(stand: Stand, alias: str, marker: str, told: Sequence[tuple[int, int]]) -> None:
    rows = await stand.bills.of(marker, len(told))
    assert [(row["prompt_tokens"], row["completion_tokens"]) for row in rows] == told
    assert {(row["model"], row["deployment"], row["status"], row["usage_source"]) for row in rows} == {
        (alias, alias, "completed", "provider")
    }
    in_usd, out_usd = price(alias)
    assert [row["cost_usd"] for row in rows] == [given * in_usd + made * out_usd for given, made in told]


async def plain(case: Asking, *, stream: bool) -> None:
    talk = case.talk(stream=stream)
    said = await talk.say(case.marker)
    assert (said.text, said.stop, said.calls) == (case.place.says(case.marker), "stop", [])
    (one,) = case.arrived(1)
    assert one.texts == [SYSTEM, case.marker]
    assert (one.tools, one.form, one.images, one.forced) == ({}, None, [], False)
    await case.billed(said)


async def cut(case: Asking, *, stream: bool) -> None:
    talk = case.talk(stream=stream, most_tokens=2)
    said = await talk.say(case.marker)
    assert (said.text, said.stop) == (" ".join(case.place.says(case.marker).split()[:2]), "length")
    assert len(case.arrived(1)) == 1
    await case.billed(said)


async def tools(case: Asking, *, stream: bool, both: bool = False, thinks: bool = False) -> None:
    offered, wanted = ((Weather, Clock), (WEATHER, CLOCK)) if both else ((Weather,), (WEATHER,))
    expected = [(type(one).__name__, one.model_dump()) for one in wanted]
    talk = case.talk(stream=stream, tools=offered, thinks=thinks)
    first = await talk.say(f"{case.marker} both" if both else case.marker)
    assert (first.stop, [(call.name, call.given) for call in first.calls]) == ("tool_calls", expected)
    results = {call: f"{call.name}: {RESULT}" for call in first.calls}
    second = await talk.tell(results)
    assert (second.stop, second.calls) == ("stop", [])
    assert second.text
    asked, told = case.arrived(2)
    for one in (asked, told):
        assert {name: leaves(schema) for name, schema in one.tools.items()} == {
            tool.__name__: leaves(tool.model_json_schema()) for tool in offered
        }
    assert (asked.calls, asked.results) == ([], [])
    assert (told.calls, told.results) == (expected, [*results.values()])
    await case.billed(first, second)


async def form(case: Asking, *, stream: bool, by_tool: bool = False) -> None:
    # ChatOpenAI sends a default as it is, which OpenAI refuses where it shall be strict.
    wanted = City if case.sdk is langchain.openai_responses else Town
    talk = case.talk(stream=stream, form=wanted, by_tool=by_tool)
    said = await talk.say(case.marker)
    assert said.parsed == (CITY if wanted is City else TOWN)
    (one,) = case.arrived(1)
    if by_tool:
        assert ([*one.tools], one.form, one.forced) == ([wanted.__name__], None, True)
    else:
        assert (said.stop, one.tools) == ("stop", {})
    assert leaves(one.tools[wanted.__name__] if by_tool else one.form) == leaves(wanted.model_json_schema())
    await case.billed(said)


async def image(case: Asking, *, stream: bool) -> None:
    talk = case.talk(stream=stream)
    said = await talk.say(case.marker, DATA_URL)
    assert (said.text, said.stop) == (case.place.sees, "stop")
    (one,) = case.arrived(1)
    assert one.images == [PIXEL]
    await case.billed(said)


async def image_elsewhere(case: Asking, *, stream: bool) -> None:
    """Who fetches images is told where it lies; who doesn't isn't asked: the gateway fetches none itself."""
    talk = case.talk(stream=stream)
    if case.place.fetches:
        said = await talk.say(case.marker, PUBLIC_URL)
        (one,) = case.arrived(1)
        assert one.images == [PUBLIC_URL]
        await case.billed(said)
        return
    with pytest.raises((openai.BadRequestError, anthropic.BadRequestError), match="data URL"):
        await talk.say(case.marker, PUBLIC_URL)
    assert case.arrived(0) == []
    (row,) = await case.stand.bills.of(case.marker, 1)
    assert (row["status"], row["cost_usd"]) == ("failed", 0)


async def thinking(case: Asking, *, stream: bool) -> None:
    talk = case.talk(stream=stream, thinks=True)
    said = await talk.say(case.marker)
    again = await talk.say("Are you sure?")
    first, second = case.arrived(2)
    assert bool(first.thinking) == bool(second.thinking) == case.place.thinks
    tells = case.sdk in TELL_THOUGHTS
    assert (said.thoughts, again.thoughts) == ((case.place.thought,) * 2 if tells else ("", ""))
    # Who takes a stream of chunks apart by hand has lost the signature.
    kept = case.place.signs and tells and not (stream and case.sdk is vendors.openai_chat)
    assert second.signed == ([case.place.thought] if kept else [])
    await case.billed(said, again)


async def agents(stand: Stand, place: Place, marker: str, *, stream: bool, responses: bool) -> None:
    wish = Wish(place.name, marker, stream=stream)
    ran = await agent.run(stand.clients, wish, marker, RESULT, responses=responses)
    assert (ran.answer, ran.called, ran.requests) == (CITY, [WEATHER], 2)
    asked, told = stand.arrived(place, marker)
    assert ([*asked.tools], asked.results, told.results) == (["Weather"], [], [RESULT])
    assert leaves(asked.form) == leaves(told.form) == leaves(City.model_json_schema())
    rows = await stand.bills.of(marker, 2)
    assert (ran.given, ran.made) == (sum(r["prompt_tokens"] for r in rows), sum(r["completion_tokens"] for r in rows))


async def marked(stand: Stand, place: Place, marker: str) -> None:
    """All that only Anthropic's API knows: it goes to whom it means something, and nobody stumbles over it."""
    client = stand.clients.anthropic.with_options(default_headers=Wish(place.name, marker).headers)
    mark: Any = {"type": "ephemeral"}
    text: Any = {"type": "text", "text": marker, "cache_control": {**mark, "ttl": "1h"}}
    message = await client.messages.create(
        model=place.name,
        max_tokens=talks.MOST_TOKENS,
        system=[{"type": "text", "text": SYSTEM, "cache_control": mark}],
        messages=[{"role": "user", "content": [text]}],
        tools=[{"name": "Clock", "input_schema": Clock.model_json_schema(), "cache_control": mark}],
        tool_choice={"type": "none"},
        thinking={"type": "enabled", "budget_tokens": talks.BUDGET},
        stop_sequences=["THE END"],
        metadata={"user_id": f"{marker}@acme.example"},
        # Somebody's server that speaks as OpenAI may know it, and is asked for it; OpenAI itself isn't.
        extra_body=None if place.name == "openai" else {"top_k": 5},
    )
    assert message.stop_reason == "end_turn"
    (body,) = [body for body in stand.mocks.bodies(place.name) if marker in json.dumps(body)]
    marks = {"anthropic": "cache_control", "bedrock": "cachePoint", "nova": "cachePoint"}
    assert {name for name in set(marks.values()) if name in json.dumps(body)} == {*filter(None, [marks.get(place.name)])}
    usage = message.usage
    read, written = usage.cache_read_input_tokens or 0, usage.cache_creation_input_tokens or 0
    assert (read, written > 0) == (0, place.name == "anthropic")
    await billed(stand, place.name, marker, [(usage.input_tokens + written, usage.output_tokens)])
    (row,) = await stand.bills.of(marker, 1)
    assert row["cache_write_tokens"] == written


async def stranger(stand: Stand, place: Place, marker: str) -> None:
    """With a wrong credential, nothing of all this would have been answered; and it isn't the caller's fault."""
    wish = Wish(f"{place.name}-stranger", marker)
    with pytest.raises(openai.InternalServerError) as caught:
        await vendors.openai_chat(stand.clients, wish).say(marker)
    assert caught.value.status_code == 502
    assert stand.arrived(place, marker) == []


async def embeddings(stand: Stand, place: str, marker: str) -> None:
    alias = f"{place}-embeddings"
    client = stand.clients.openai.with_options(default_headers=Wish(alias, marker).headers)
    packed = await client.embeddings.create(model=alias, input=[marker, "two words"])
    plain = await client.embeddings.create(model=alias, input=[marker, "two words"], encoding_format="float")
    assert [entry.index for entry in packed.data] == [entry.index for entry in plain.data] == [0, 1]
    for one, other in zip(packed.data, plain.data, strict=True):
        assert one.embedding == pytest.approx(other.embedding)
    rows = await stand.bills.of(marker, 2)
    if place == "gemini":
        # Google counts none here.
        assert {(row["usage_source"], row["prompt_tokens"] > 0) for row in rows} == {("estimated", True)}
    else:
        assert [row["prompt_tokens"] for row in rows] == [packed.usage.prompt_tokens, plain.usage.prompt_tokens]
        assert {row["usage_source"] for row in rows} == {"provider"}
    assert [row["cost_usd"] for row in rows] == [row["prompt_tokens"] * price(alias)[0] for row in rows]


async def conversation(stand: Stand, place: Place, marker: str, *, sdk: Sdk, what: Scenario) -> None:
    await what(Asking(stand, sdk, place, marker))


BY_ALL: dict[str, Scenario] = {
    "plain": plain,
    "tools": tools,
    "two-tools": partial(tools, both=True),
    "form": form,
    "image": image,
    "thinking": thinking,
}
BY_VENDORS: dict[str, Scenario] = {
    "cut": cut,
    "thinking-tools": partial(tools, thinks=True),
    "image-elsewhere": image_elsewhere,
}
BY_LANGCHAIN: dict[str, Scenario] = {"form-by-tool": partial(form, by_tool=True)}
HOW = {"whole": False, "streamed": True}
CASES: Mapping[str, Scenario] = {
    **{
        f"{sdk}-{place}-{name}-{how}": partial(
            conversation, place=PLACES[place], sdk=SDKS[sdk], what=partial(what, stream=HOW[how])
        )
        for sdk, place, how in product(SDKS, PLACES, HOW)
        for name, what in (BY_ALL | (BY_LANGCHAIN if sdk.startswith("langchain") else BY_VENDORS)).items()
    },
    **{
        f"agents-{front}-{place}-{how}": partial(agents, place=PLACES[place], stream=HOW[how], responses=front == "responses")
        for front, place, how in product(("chat", "responses"), PLACES, HOW)
    },
    **{f"anthropic-messages-{place}-marked": partial(marked, place=PLACES[place]) for place in PLACES},
    **{f"openai-chat-{place}-stranger": partial(stranger, place=PLACES[place]) for place in PLACES},
    **{f"openai-embeddings-{place}": partial(embeddings, place=place) for place in EMBEDDERS},
}


@pytest.fixture(scope="module")
async def stand(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Stand]:
    async with standing(Path(tmp_path_factory.mktemp("matrix"))) as stand:
        yield stand


@pytest.fixture(scope="module")
async def runs(stand: Stand, request: pytest.FixtureRequest) -> AsyncGenerator[Mapping[str, asyncio.Task[None]]]:
    """The cases that were asked for, side by side."""
    turns = asyncio.Semaphore(AT_ONCE)

    async def run(case: str) -> None:
        async with turns:
            await CASES[case](stand, marker=prompt())

    items = cast("Sequence[Any]", request.session.items)
    asked = [str(item.callspec.params["case"]) for item in items if item.path == request.path]
    tasks = {case: asyncio.create_task(run(case)) for case in asked}
    yield tasks
    for task in tasks.values():
        task.cancel()
    await asyncio.gather(*tasks.values(), return_exceptions=True)


@pytest.mark.parametrize("case", CASES)
async def test_what_is_asked_arrives_and_what_is_answered_comes_back(case: str, runs: Mapping[str, asyncio.Task[None]]) -> None:
    await runs[case]
