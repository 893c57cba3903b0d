"""Text completions and moderations with the SDKs that ask for them, and what a model that will be shut down is told with."""

from datetime import UTC, datetime, timedelta
from typing import Any, cast

import openai
import pytest
from langchain_openai import OpenAI
from openai.types import Completion

from benchmarks.mock_answers import answer_text
from tests.system import ENDS, System, Team, cost_usd, prompt, until

WORDS = 12


@pytest.fixture(scope="module")
async def team(system: System) -> Team:
    return await system.create_team("fronts")


# Text completions


async def test_a_text_is_what_the_provider_says_and_is_billed_as_a_chat(team: Team, system: System) -> None:
    asked = prompt("one two three")
    async with team.openai() as client:
        raw = await client.completions.with_raw_response.create(model="mock", prompt=asked)
    text = raw.parse()
    assert (text.choices[0].text, text.choices[0].finish_reason, text.object) == (answer_text(asked), "stop", "text_completion")
    assert text.usage is not None
    assert (text.usage.prompt_tokens, text.usage.completion_tokens) == (4, WORDS)
    job_id = raw.headers["x-sluice-job"]
    assert (text.id, raw.headers["x-request-id"]) == (job_id.replace("job_", "cmpl-"), job_id)
    row = await system.job(job_id)
    assert (row["team"], row["api"], row["cost_usd"]) == (team.name, "chat.completions", cost_usd(4, WORDS))


async def test_a_stream_of_text_tells_the_same_and_its_usage_if_asked(team: Team) -> None:
    asked = prompt("one two three")
    async with team.openai() as client:
        stream = await client.completions.create(
            model="mock", prompt=[asked], max_tokens=5, stream=True, stream_options={"include_usage": True}
        )
        parts = [part async for part in stream]
    *others, last = parts
    assert "".join(choice.text for part in others for choice in part.choices) == answer_text(asked, 5)
    assert others[-1].choices[0].finish_reason == "length"
    assert {part.object for part in parts} == {"text_completion"}
    assert len({part.id for part in parts}) == 1
    assert last.usage is not None
    assert (last.choices, last.usage.completion_tokens) == ([], 5)


async def test_without_a_word_about_it_a_text_has_sixteen_tokens(team: Team) -> None:
    async with team.openai() as client:
        text = await client.completions.create(model="mock-words-200-chunkms-50", prompt=prompt())
    assert text.usage is not None
    assert (text.usage.completion_tokens, text.choices[0].finish_reason) == (16, "length")


async def test_a_stream_that_breaks_ends_with_an_error(team: Team) -> None:
    async with team.openai() as client:
        stream = await client.completions.create(model="mock-cut", prompt=prompt(), stream=True)
        with pytest.raises(openai.APIError):
            _ = [part async for part in stream]


@pytest.mark.parametrize(
    ("members", "param"), [({"prompt": ["one", "two"]}, "prompt"), ({"prompt": [1, 2]}, "prompt"), ({"echo": True}, "echo")]
)
async def test_what_no_chat_can_do_is_a_bad_request(team: Team, members: dict[str, Any], param: str) -> None:
    async with team.openai() as client:
        with pytest.raises(openai.BadRequestError) as refused:
            await cast("Any", client.completions).create(**({"model": "mock", "prompt": "x"} | members))
    assert refused.value.param == param


async def test_the_same_key_is_the_same_text_and_what_is_asked_for_later_is_one_too(team: Team) -> None:
    key, asked = {"idempotency-key": prompt(), "cache-control": "no-store"}, prompt()
    async with team.openai() as client:
        first, again = [await client.completions.create(model="mock", prompt=asked, extra_headers=key) for _ in range(2)]
    assert first == again
    async with team.http() as http:
        job_id = first.id.replace("cmpl-", "job_")
        kept = (await http.get(f"/v1/jobs/{job_id}")).json()
        later = await http.post("/v1/completions", json={"model": "mock", "prompt": asked}, headers={"prefer": "respond-async"})
        assert later.status_code == 202

        async def ended() -> Any:
            job = (await http.get(later.headers["location"])).json()
            return job if job["status"] == "completed" else None

        job = await until(ended)
    assert kept["endpoint"] == job["endpoint"] == "/v1/completions"
    assert Completion.model_validate(kept["result"]) == first
    assert Completion.model_validate(job["result"]).choices == first.choices


async def test_the_events_of_a_kept_stream_are_texts_too(team: Team) -> None:
    asked, key = prompt(), {"idempotency-key": prompt()}
    async with team.http() as http:
        body = {"model": "mock", "prompt": asked, "stream": True}
        streamed = await http.post("/v1/completions", json=body, headers=key)
        told = await http.get(f"/v1/jobs/{streamed.headers['x-sluice-job']}/events", headers={"last-event-id": ""})
    events = [[line for line in text.splitlines() if line.startswith(("id:", "data:"))] for text in (streamed.text, told.text)]
    assert events[0] == events[1]
    assert events[0][-1] == "data: [DONE]"


async def test_langchains_text_model_asks_and_streams(team: Team) -> None:
    model = OpenAI(model="mock", base_url=f"{team.url}/v1", api_key=team.key, max_retries=0)  # pyright: ignore[reportArgumentType]
    asked = prompt()
    assert await model.ainvoke(asked) == answer_text(asked)
    assert "".join([part async for part in model.astream(asked)]) == answer_text(asked)


# Moderations


async def test_a_moderation_says_what_the_provider_says(team: Team, system: System) -> None:
    async with team.openai() as client:
        raw = await client.moderations.with_raw_response.create(model="mock", input=[prompt("be kind"), prompt("kill them")])
    found = raw.parse()
    assert [(result.flagged, result.categories.violence) for result in found.results] == [(False, False), (True, True)]
    row = await system.job(raw.headers["x-sluice-job"])
    assert (row["api"], row["deployment"], row["status"]) == ("moderations", "mock@mocked", "completed")
    assert (row["prompt_tokens"], row["usage_source"], row["cost_usd"]) == (6, "provider", cost_usd(6, 0))


async def test_where_no_model_is_named_it_is_openais_and_costs_nothing(team: Team, system: System) -> None:
    parts: Any = [{"type": "text", "text": prompt()}, {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}]
    async with team.openai() as client:
        raw = await client.moderations.with_raw_response.create(input=parts)
    assert [result.flagged for result in raw.parse().results] == [False]
    assert raw.headers["x-sluice-model"] == "omni-moderation-latest"
    row = await system.job(raw.headers["x-sluice-job"])
    assert (row["model"], row["usage_source"], row["prompt_tokens"], row["cost_usd"]) == ("omni-moderation-latest", "none", 0, 0)


async def test_who_does_not_moderate_says_so(team: Team) -> None:
    async with team.openai() as client:
        with pytest.raises(openai.BadRequestError, match="only makes embeddings"):
            await client.moderations.create(model="minilm", input="x")


# Models that are shut down


async def test_a_model_that_ends_soon_says_so_wherever_it_is_asked(team: Team) -> None:
    async with team.openai() as client:
        assert (await client.models.retrieve("ending")).model_dump()["shutdown_date"] == ENDS.isoformat()
    asked = [
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "hi"}]}),
        ("/v1/completions", {"prompt": "hi", "stream": True}),
        ("/v1/responses", {"input": "hi"}),
        ("/v1/messages", {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 9}),
        ("/v1/moderations", {"input": "hi"}),
    ]
    sunset = datetime(ENDS.year, ENDS.month, ENDS.day, tzinfo=UTC)
    async with team.http() as http:
        for path, body in asked:
            told = (await http.post(path, json={"model": "ending", **body})).headers
            assert (path, told["sunset"]) == (path, sunset.strftime("%a, %d %b %Y %H:%M:%S GMT"))
            assert told["deprecation"] == f"@{int((sunset - timedelta(days=90)).timestamp())}"
        assert "sunset" not in (await http.post("/v1/completions", json={"model": "echo", "prompt": "hi"})).headers


async def test_who_uses_it_is_warned_once(system: System) -> None:
    teams = [await system.create_team("ending") for _ in range(2)]
    for team in (*teams, *teams):
        async with team.openai() as client:
            await client.completions.create(model="ending", prompt=prompt())

    async def warned() -> list[Any]:
        async with system.admin() as admin:
            alerts = (await admin.get("/admin/v1/alerts")).json()["data"]
        found = [alert for alert in alerts if alert["what"] == "shutdown_near" and alert["team"] in {one.name for one in teams}]
        return found if len(found) >= 2 else []

    alerts = await until(warned)
    assert sorted(alert["team"] for alert in alerts) == sorted(team.name for team in teams)
    assert {(alert["scope"], alert["facts"]["shutdown_date"]) for alert in alerts} == {
        ("deployment/ending@echo", ENDS.isoformat())
    }
