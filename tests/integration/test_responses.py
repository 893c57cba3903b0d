"""OpenAI's own SDK, unmodified, speaking Responses to providers that know only chats."""

import asyncio
import sys
from collections.abc import AsyncIterator
from typing import Any, cast

import openai
import pytest
from openai.types.responses import Response, ResponseStreamEvent

from benchmarks.mock_answers import answer_text
from tests.fakes.recorder import Recorder
from tests.system import ROOT, Provider, System, Team, environment, prompt, until

SLOW = "mock-words-200-chunkms-50"
WORDS = 12
OVER = ("completed", "failed", "incomplete", "cancelled")


@pytest.fixture(scope="module")
async def team(system: System) -> Team:
    return await system.create_team("responses")


async def ended(client: openai.AsyncOpenAI, response_id: str) -> Response:
    """The response once it is over, by polling as OpenAI's guide does."""

    async def over() -> Response | None:
        response = await client.responses.retrieve(response_id)
        return response if response.status in OVER else None

    return await until(over)


async def create(client: openai.AsyncOpenAI, **members: Any) -> Response:
    return cast("Response", await cast("Any", client.responses.create)(**members))


async def all_of(stream: AsyncIterator[ResponseStreamEvent]) -> list[dict[str, Any]]:
    return [event.model_dump(mode="json") async for event in stream]


def is_one(response: Response) -> None:
    """It has all members that OpenAI's types require, with their types."""
    Response.model_validate(response.model_dump(mode="json", by_alias=True, warnings=False))


async def test_a_response_is_the_providers_answer_and_can_be_asked_for_again(team: Team) -> None:
    asked = prompt("one two three")
    async with team.openai() as client:
        raw = await client.responses.with_raw_response.create(model="mock", input=asked, metadata={"a": "b"})
        response = raw.parse()
        again = await client.responses.retrieve(response.id)
    is_one(response)
    assert (response.status, response.output_text) == ("completed", answer_text(asked))
    assert (response.model, response.metadata, response.background) == ("mock", {"a": "b"}, False)
    assert response.usage is not None
    assert (response.usage.input_tokens, response.usage.output_tokens) == (4, WORDS)
    assert response.id == raw.headers["x-sluice-job"].replace("job_", "resp_")
    assert raw.headers["x-sluice-deployment"] == "mock@mocked"
    assert float(raw.headers["x-sluice-cost-usd"]) > 0
    assert again.output == response.output
    assert again.usage == response.usage


async def test_what_is_not_to_be_stored_is_not(team: Team) -> None:
    async with team.openai() as client:
        response = await client.responses.create(model="mock", input=prompt(), store=False)
        with pytest.raises(openai.NotFoundError) as caught:
            await client.responses.retrieve(response.id)
    assert caught.value.type == "invalid_request_error"


async def test_a_stream_tells_the_same_as_the_object_and_has_no_gap(team: Team) -> None:
    asked = prompt()
    async with team.openai() as client:
        events = await all_of(await client.responses.create(model="mock", input=asked, stream=True))
        response = await client.responses.retrieve(events[0]["response"]["id"])
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    kinds = [event["type"] for event in events]
    assert kinds[:4] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
    ]
    assert kinds[4:-4] == ["response.output_text.delta"] * WORDS
    assert kinds[-4:] == [
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ]
    assert "".join(event["delta"] for event in events[4:-4]) == answer_text(asked) == response.output_text
    last = Response.model_validate(events[-1]["response"])
    assert last.output == response.output
    assert last.usage == response.usage
    assert last.usage is not None
    assert last.usage.output_tokens == WORDS


async def test_the_sdks_stream_helper_understands_it(team: Team) -> None:
    asked = prompt()
    async with team.openai() as client, client.responses.stream(model="mock", input=asked) as stream:
        async for _ in stream:
            continue
        response = await stream.get_final_response()
    assert response.output_text == answer_text(asked)


async def test_in_the_background_it_is_queued_and_polled(team: Team) -> None:
    asked = prompt()
    async with team.openai() as client:
        raw = await client.responses.with_raw_response.create(model="mock-latency-50", input=asked, background=True)
        response = raw.parse()
        is_one(response)
        assert response.status in ("queued", "in_progress")
        assert int(raw.headers["openai-poll-after-ms"]) > 0
        whole = await ended(client, response.id)
    is_one(whole)
    assert (whole.status, whole.output_text, whole.background) == ("completed", answer_text(asked), True)
    assert whole.usage is not None
    assert whole.usage.output_tokens == WORDS


async def test_a_background_response_goes_on_without_its_stream_which_is_read_again_from_any_event(team: Team) -> None:
    asked = prompt()
    async with team.openai() as client:
        seen: list[dict[str, Any]] = []
        stream = await client.responses.create(model=SLOW, input=asked, background=True, stream=True)
        async for event in stream:
            seen.append(event.model_dump(mode="json"))
            if len(seen) == 10:
                break
        await stream.close()
        response_id = seen[0]["response"]["id"]
        assert [event["type"] for event in seen[:3]] == ["response.created", "response.queued", "response.in_progress"]
        rest = await all_of(await client.responses.retrieve(response_id, stream=True, starting_after=9))
        response = await client.responses.retrieve(response_id)
        again = await all_of(await client.responses.retrieve(response_id, stream=True))
    assert [event["sequence_number"] for event in rest] == list(range(10, 10 + len(rest)))
    assert seen + rest == again
    deltas = [event["delta"] for event in seen + rest if event["type"] == "response.output_text.delta"]
    assert "".join(deltas) == answer_text(asked, 200) == response.output_text
    assert rest[-1]["type"] == "response.completed"


async def test_what_was_created_without_a_stream_can_be_streamed_all_the_same(team: Team) -> None:
    asked = prompt()
    async with team.openai() as client:
        response = await client.responses.create(model=SLOW, input=asked, background=True)
        events = await all_of(await client.responses.retrieve(response.id, stream=True))
        plain = await client.responses.create(model="mock", input=asked)
        once = await all_of(await client.responses.retrieve(plain.id, stream=True))
    for told, words in ((events, 200), (once, WORDS)):
        assert "".join(event.get("delta") or "" for event in told) == answer_text(asked, words)
        assert [event["sequence_number"] for event in told] == list(range(len(told)))
        assert told[-1]["type"] == "response.completed"


async def test_cancel_closes_the_providers_call_however_often_it_is_asked(team: Team, provider: Provider) -> None:
    marker = prompt("cancelled")
    async with team.openai() as client:
        response = await client.responses.create(model=SLOW, input=prompt(), background=True, user=marker)
        await until(lambda: provider.entries(marker=marker))
        first = await client.responses.cancel(response.id)
        second = await client.responses.cancel(response.id)
        later = await client.responses.retrieve(response.id)
    is_one(first)
    assert {first.status, second.status, later.status} == {"cancelled"}

    async def gone() -> bool:
        return [entry.outcome for entry in await provider.entries(marker=marker)] == ["client_gone"]

    assert await until(gone)


async def test_only_what_runs_in_the_background_can_be_cancelled(team: Team) -> None:
    async with team.openai() as client:
        response = await client.responses.create(model="mock", input=prompt())
        with pytest.raises(openai.BadRequestError, match="synchronous"):
            await client.responses.cancel(response.id)


async def test_a_conversation_goes_on_from_what_is_kept(team: Team, recorder: Recorder) -> None:
    marker = prompt("turns")
    async with team.openai() as client:
        first = await client.responses.create(model="recorded", input="Who is it?", instructions="Be brief.", user=marker)
        second = await client.responses.create(
            model="recorded", input="And where?", previous_response_id=first.id, user=marker, max_output_tokens=64
        )
        third = await client.responses.create(model="recorded", input="Why?", previous_response_id=second.id, user=marker)
        items = [item async for item in await client.responses.input_items.list(third.id)]
    bodies = [seen.body for seen in recorder.with_user(marker)]
    user, noted = {"role": "user", "content": "Who is it?"}, {"role": "assistant", "content": "noted"}
    assert bodies[0]["messages"] == [{"role": "system", "content": "Be brief."}, user]
    # Instructions are not carried over.
    assert bodies[1]["messages"] == [user, noted, {"role": "user", "content": "And where?"}]
    assert bodies[1]["max_tokens"] == 64, "the older name: nobody knows this provider"
    assert bodies[2]["messages"] == [*bodies[1]["messages"], noted, {"role": "user", "content": "Why?"}]
    assert "previous_response_id" not in bodies[2]
    assert third.previous_response_id == second.id
    assert [item.model_dump()["content"][0]["text"] for item in items] == ["Why?"]


async def test_items_are_listed_in_pages_and_named_in_later_requests(team: Team, recorder: Recorder) -> None:
    marker = prompt("named")
    said: Any = [{"role": "user", "content": f"part {n}"} for n in range(5)]
    async with team.openai() as client:
        first = await client.responses.create(model="recorded", input=said, user=marker)
        page = await client.responses.input_items.list(first.id, limit=2, order="asc")
        items = [item async for item in page]
        reference: Any = [{"type": "item_reference", "id": first.output[0].id}, {"role": "user", "content": "so?"}]
        await client.responses.create(model="recorded", input=reference, user=marker)
    assert page.has_more
    assert [item.model_dump()["content"][0]["text"] for item in items] == [f"part {n}" for n in range(5)]
    assert recorder.with_user(marker)[-1].body["messages"] == [
        {"role": "assistant", "content": "noted"},
        {"role": "user", "content": "so?"},
    ]


async def test_a_deleted_response_is_gone(team: Team) -> None:
    async with team.openai() as client:
        response = await client.responses.create(model="mock", input=prompt())
        raw = await client.responses.with_raw_response.delete(response.id)
        assert raw.http_response.json() == {"id": response.id, "object": "response", "deleted": True}
        with pytest.raises(openai.NotFoundError):
            await client.responses.retrieve(response.id)
        with pytest.raises(openai.NotFoundError):
            await client.responses.delete(response.id)
        with pytest.raises(openai.NotFoundError) as caught:
            await client.responses.create(model="mock", input="on", previous_response_id=response.id)
    assert caught.value.code == "previous_response_not_found"
    assert caught.value.param == "previous_response_id"


async def test_nobody_sees_another_teams_responses(team: Team, system: System) -> None:
    other = await system.create_team("others")
    async with team.openai() as client, other.openai() as stranger:
        response = await client.responses.create(model="mock", input=prompt(), background=True)
        for ask in (
            stranger.responses.retrieve(response.id),
            stranger.responses.cancel(response.id),
            stranger.responses.delete(response.id),
            stranger.responses.input_items.list(response.id),
            stranger.responses.create(model="mock", input="on", previous_response_id=response.id),
            client.responses.retrieve("resp_" + "0" * 32),
            client.responses.retrieve("nothing like an id"),
        ):
            with pytest.raises(openai.NotFoundError):
                await ask
        assert (await ended(client, response.id)).status == "completed"


async def test_a_provider_that_fails_is_an_error_now_and_a_failed_response_in_the_background(team: Team) -> None:
    async with team.openai() as client:
        with pytest.raises(openai.InternalServerError) as caught:
            await client.responses.create(model="mock-500", input=prompt())
        with pytest.raises(openai.InternalServerError):
            await client.responses.create(model="mock-500", input=prompt(), stream=True)
        later = await client.responses.create(model="mock-500", input=prompt(), background=True)
        failed = await ended(client, later.id)
    assert caught.value.status_code == 502
    is_one(failed)
    assert failed.status == "failed"
    assert failed.error is not None
    assert failed.error.code == "server_error"


async def test_a_stream_that_breaks_off_tells_so_and_is_never_a_whole_response(team: Team) -> None:
    async with team.openai() as client:
        events = await all_of(await client.responses.create(model="mock-cut", input=prompt(), stream=True))
        response = await client.responses.retrieve(events[0]["response"]["id"])
        again = await all_of(await client.responses.retrieve(response.id, stream=True))
        rest = await all_of(await client.responses.retrieve(response.id, stream=True, starting_after=5))
    assert [event["type"] for event in events[-2:]] == ["error", "response.failed"]
    assert events[-2]["code"] == "provider_error"
    assert response.status == "failed"
    assert again == events
    assert rest == events[6:]


async def test_an_answer_cut_by_its_limit_is_incomplete(team: Team) -> None:
    async with team.openai() as client:
        response = await client.responses.create(model="mock", input=prompt(), max_output_tokens=3)
    assert response.status == "incomplete"
    assert response.incomplete_details is not None
    assert response.incomplete_details.reason == "max_output_tokens"
    assert len(response.output_text.split()) == 3


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"tools": [{"type": "web_search"}]}, "tools[0].type"),
        ({"conversation": "conv_1"}, "conversation"),
        ({"prompt": {"id": "pmpt_1"}}, "prompt"),
        ({"background": True, "store": False}, "store"),
        ({"include": ["message.output_text.logprobs"]}, "include[0]"),
        ({"temperature": 3}, "temperature"),
        ({"input": [{"type": "computer_call"}]}, "input[0].type"),
    ],
)
async def test_what_no_chat_can_do_is_refused_and_named(team: Team, more: dict[str, Any], param: str) -> None:
    async with team.openai() as client:
        with pytest.raises(openai.BadRequestError) as caught:
            await create(client, **({"model": "mock", "input": "hello"} | more))
    assert caught.value.param == param


async def test_the_same_key_gives_the_same_response(team: Team, provider: Provider) -> None:
    marker = prompt("once")
    ask: dict[str, Any] = {"model": "mock", "input": marker, "user": marker}
    async with team.openai(default_headers={"Idempotency-Key": marker}) as client:
        first, second = await asyncio.gather(create(client, **ask), create(client, **ask))
    async with team.openai(default_headers={"Idempotency-Key": f"{marker} again"}) as client:
        told = await all_of(await client.responses.create(model="mock", input=marker, user=marker, stream=True))
        retold = await all_of(await client.responses.create(model="mock", input=marker, user=marker, stream=True))
    assert first.id == second.id
    assert first.output == second.output
    assert told == retold
    assert len(await provider.entries(marker=marker)) == 2


async def test_respond_async_is_a_response_in_the_background(team: Team) -> None:
    async with team.http() as http:
        body = {"model": "mock-latency-50", "input": prompt()}
        later = await http.post("/v1/responses", json=body, headers={"prefer": "respond-async"})
        soon = await http.post("/v1/responses", json=body, headers={"prefer": "respond-async, wait=20"})
        job = await http.get(later.headers["location"])
    assert later.status_code == 202
    assert later.json()["status"] in ("queued", "in_progress")
    assert later.json()["background"] is True
    assert job.json()["id"] == later.headers["x-sluice-job"]
    assert (soon.status_code, soon.json()["status"]) == (200, "completed")
    assert soon.headers["preference-applied"] == "respond-async"


async def test_a_number_that_is_none_is_refused(team: Team) -> None:
    async with team.openai() as client, team.http() as http:
        response = await client.responses.create(model="mock", input=prompt())
        answer = await http.get(f"/v1/responses/{response.id}", params={"stream": "true", "starting_after": "-1"})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "starting_after")


async def test_the_example_in_the_docs_runs(team: Team) -> None:
    text = await asyncio.to_thread((ROOT / "docs" / "responses.md").read_text)
    example = text.split("```python\n")[1].split("```")[0]
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        example,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=environment(OPENAI_BASE_URL=f"{team.url}/v1", OPENAI_API_KEY=team.key),
    )
    out, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    assert "What is my name?" in out.decode()
    assert "response.completed" in out.decode()
