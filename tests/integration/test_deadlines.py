"""Nobody works for a caller who is gone: a closed connection and a passed deadline both end the provider's call."""

import asyncio
import time

import httpx
import openai
import pytest

from benchmarks.mock_ledger import Entry, Outcome
from tests.system import Provider, System, Team, chat, prompt, until

CHAT = "/v1/chat/completions"
SLOW, STREAMING = "mock-latency-5000", "mock-words-200-chunkms-50"


@pytest.fixture(scope="module")
async def team(system: System) -> Team:
    return await system.create_team("deadlines")


async def with_outcome(provider: Provider, marker: str, outcome: Outcome) -> Entry:
    """The one call of a test, once it has come to this."""

    async def there() -> Entry | None:
        entries = await provider.entries(marker=marker)
        assert len(entries) <= 1
        return next((entry for entry in entries if entry.outcome == outcome), None)

    return await until(there)


async def test_a_client_that_leaves_takes_the_providers_call_with_it(team: Team, provider: Provider, system: System) -> None:
    marker = prompt("leaves")
    async with team.http() as client:
        asking = asyncio.create_task(client.post(CHAT, json=chat(SLOW, user=marker)))
        started = await with_outcome(provider, marker, "running")
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
    left = time.time()
    cancelled = await with_outcome(provider, marker, "client_gone")
    print(f"cancelled {cancelled.at + cancelled.duration_ms / 1000 - left:.2f} s after the client left")
    assert cancelled.seq == started.seq
    assert cancelled.duration_ms < 5000
    (row,) = await until(lambda: system.query(f"SELECT * FROM usage WHERE team = '{team.name}' AND model = '{SLOW}'"))
    assert row["status"] == "cancelled"


async def test_a_client_that_leaves_in_the_middle_of_a_stream(team: Team, provider: Provider, system: System) -> None:
    marker = prompt("stops reading")
    async with team.openai() as client:
        stream = await client.chat.completions.create(
            model=STREAMING, messages=[{"role": "user", "content": prompt()}], user=marker, stream=True
        )
        job_id = stream.response.headers["x-sluice-job"]
        async for chunk in stream:
            if chunk.choices[0].delta.content:
                break
        await stream.close()
    cancelled = await with_outcome(provider, marker, "client_gone")
    assert 0 < cancelled.completion_tokens < 200
    row = await system.job(job_id)
    assert row["status"] == "cancelled"
    assert row["completion_tokens"] > 0
    assert row["cost_usd"] > 0


@pytest.mark.parametrize("lane", ["interactive", "batch"])
async def test_a_deadline_ends_the_call_and_is_told(team: Team, provider: Provider, system: System, lane: str) -> None:
    marker = prompt("deadline")
    async with team.http() as client:
        headers = {"x-sluice-timeout": "1", "x-sluice-lane": lane}
        answer = await client.post(CHAT, json=chat(SLOW, user=marker), headers=headers)
    assert answer.status_code == 504
    assert answer.json()["error"]["code"] == "deadline_exceeded"
    cancelled = await with_outcome(provider, marker, "client_gone")
    assert cancelled.duration_ms < 5000
    row = await system.job(answer.headers["x-sluice-job"])
    assert (row["status"], row["error_type"], row["lane"]) == ("expired", "deadline_exceeded", lane)


async def test_a_deadline_in_the_middle_of_a_stream_is_an_error_event(team: Team, provider: Provider) -> None:
    marker = prompt("deadline")
    async with team.openai(default_headers={"x-sluice-timeout": "2"}) as client:
        stream = await client.chat.completions.create(
            model=STREAMING, messages=[{"role": "user", "content": prompt()}], user=marker, stream=True
        )
        with pytest.raises(openai.APIError) as caught:
            _ = [chunk async for chunk in stream]
    assert caught.value.code == "deadline_exceeded"
    await with_outcome(provider, marker, "client_gone")


async def test_a_deadline_of_the_teams_policy(system: System, provider: Provider) -> None:
    team, marker = await system.create_team_under("hasty", {"timeout_s": 1}), prompt("hasty")
    async with team.http() as client:
        answer = await client.post(CHAT, json=chat(SLOW, user=marker))
    assert answer.status_code == 504
    await with_outcome(provider, marker, "client_gone")


async def test_an_open_connection_waits_in_vain_for_nobody_else(team: Team) -> None:
    """While calls wait for a slow provider, others are served."""
    async with team.http() as client:
        waiting = [asyncio.create_task(client.post(CHAT, json=chat(SLOW))) for _ in range(20)]
        quick = await client.post(CHAT, json=chat("mock"))
        assert quick.status_code == 200
        assert not any(task.done() for task in waiting)
        answers: list[httpx.Response] = await asyncio.gather(*waiting)
    assert [answer.status_code for answer in answers] == [200] * 20
