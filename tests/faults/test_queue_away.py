"""The queue doesn't answer while a request is submitted: nobody is told an error and billed all the same (G15)."""

import os
import signal
from collections.abc import Generator
from contextlib import contextmanager

import httpx
import pytest

from tests.system import Provider, System, Team, chat, prompt, until

ASYNC = {"prefer": "respond-async"}


@contextmanager
def stopped(pid: int) -> Generator[None]:
    """The process stands still for as long as the block lasts."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


@pytest.fixture(scope="module")
async def team(processes: System) -> Team:
    return await processes.create_team("away")


async def works_again(client: httpx.AsyncClient) -> None:
    async def answered() -> bool:
        return (await client.post("/v1/chat/completions", json=chat("mock"))).status_code == 200

    assert await until(answered, timeout_s=60)


@pytest.mark.parametrize("headers", [{}, ASYNC], ids=["synchronous", "asynchronous"])
async def test_g15_who_is_told_that_the_queue_is_away_gets_no_bill(
    processes: System, team: Team, provider: Provider, headers: dict[str, str]
) -> None:
    marker = prompt()
    async with team.http() as client:
        with stopped(processes.pids["kafka"]):
            answer = await client.post("/v1/chat/completions", json=chat("mock", user=marker), headers=headers)
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "queue_unavailable")
        assert int(answer.headers["retry-after"]) >= 1
        # What was submitted meanwhile reaches the queue before what comes later does.
        await works_again(client)
    assert await provider.entries(marker=marker) == []


async def test_g15_with_a_key_the_retry_gets_the_answer_of_the_job_that_was_submitted(
    processes: System, team: Team, provider: Provider
) -> None:
    marker, key = prompt(), {"idempotency-key": prompt()}
    body = chat("mock", user=marker)
    async with team.http() as client:
        with stopped(processes.pids["kafka"]):
            assert (await client.post("/v1/chat/completions", json=body, headers=key)).status_code == 503
        await works_again(client)
        answer = await client.post("/v1/chat/completions", json=body, headers=key)
    assert (answer.status_code, answer.headers["idempotent-replayed"]) == (200, "true")
    assert len(await provider.entries(marker=marker)) == 1
