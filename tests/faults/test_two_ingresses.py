"""Two ingresses: what one has begun the other goes on with, and what both are asked is one job."""

import asyncio
import os
import signal
from dataclasses import replace

import httpx

from tests.faults.another import another_service
from tests.system import Provider, System, Team, chat, prompt, until

CHAT = "/v1/chat/completions"


async def events(client: httpx.AsyncClient, url: str, after: str = "", most: int = 10**9) -> list[tuple[str, str]]:
    """(id, data) of a job's events, at most so many."""
    found: list[tuple[str, str]] = []
    number = ""
    async with client.stream("GET", url, headers={"last-event-id": after} if after else {}) as stream:
        assert stream.status_code == 200
        async for line in stream.aiter_lines():
            if line.startswith("id: "):
                number = line[4:]
            elif line.startswith("data: "):
                found.append((number, line[6:]))
                number = ""
                if len(found) == most:
                    break
    return found


def at(team: Team, url: str) -> httpx.AsyncClient:
    return replace(team, url=url).http()


async def test_g17_a_stream_that_one_ingress_began_is_read_on_at_another(processes: System) -> None:
    team = await processes.create_team("elsewhere")
    async with another_service(processes, "ingress", "1") as (_, url), team.http() as here, at(team, url) as there:
        body = chat("mock-words-200-chunkms-50", stream=True)
        begun = await here.post(CHAT, json=body, headers={"prefer": "respond-async"})
        place = f"{begun.headers['location']}/events"
        first = await events(here, place, most=20)
        rest = await events(there, place, after=first[-1][0])
        whole = await events(there, place)
    assert first + rest == whole
    assert whole[-1] == ("", "[DONE]")
    assert len(whole) > 200


async def test_g13_one_key_at_two_ingresses_of_which_one_dies_is_one_job(processes: System, provider: Provider) -> None:
    team, marker = await processes.create_team("twice"), prompt()
    body, key = chat("mock-latency-1500", user=marker), {"idempotency-key": prompt()}
    async with another_service(processes, "ingress", "1") as (child, url), team.http() as here, at(team, url) as there:

        async def ask(client: httpx.AsyncClient) -> httpx.Response:
            try:
                return await client.post(CHAT, json=body, headers=key)
            except httpx.TransportError:
                return await here.post(CHAT, json=body, headers=key)

        asked = [asyncio.create_task(ask(there if n % 2 else here)) for n in range(50)]
        await until(lambda: provider.entries(marker=marker))
        os.kill(child.pid, signal.SIGKILL)
        answers = await asyncio.gather(*asked)
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.text for answer in answers}) == 1
    assert len({answer.headers["x-sluice-job"] for answer in answers}) == 1
    assert len(await provider.entries(marker=marker)) == 1
