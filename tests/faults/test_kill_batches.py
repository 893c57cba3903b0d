"""A process dies, or is drained, in the middle of a batch of /v1/batches: each line is told once, in files that are whole."""

import json
import os
import signal
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from openai import AsyncOpenAI
from openai.types import Batch

from tests.system import Provider, System, Team, chat, config, prompt, until

LINES = 400
BEFORE = 25
"""So many lines have been answered when the process goes."""
MODEL = "mock-latency-50"


def jsonl(markers: list[str]) -> bytes:
    lines = [
        {"custom_id": marker, "method": "POST", "url": "/v1/chat/completions", "body": chat(MODEL, user=marker)}
        for marker in markers
    ]
    return b"\n".join(json.dumps(line).encode() for line in lines)


async def ordered(client: AsyncOpenAI, markers: list[str]) -> Batch:
    """A batch some of whose lines have been answered."""
    file = await client.files.create(file=("in.jsonl", jsonl(markers)), purpose="batch")
    batch = await client.batches.create(input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h")

    async def some_are_answered() -> bool:
        found = await client.batches.retrieve(batch.id)
        return found.request_counts is not None and found.request_counts.completed >= BEFORE

    await until(some_are_answered)
    return batch


async def broken_off(
    folder: Path, provider: Provider, leave: Callable[[System], Awaitable[None]]
) -> tuple[Batch, list[str], list[dict[str, Any]], Counter[str]]:
    """A batch during which the whole system goes, and comes back. Gives how it ended, its lines, results, and calls a line."""
    markers, first = [prompt() for _ in range(LINES)], await provider.last()
    started = [await System.start(folder, config(provider))]
    try:
        team = await started[0].create_team("kill-batch")
        async with team.openai() as client:
            batch = await ordered(client, markers)
        await leave(started[0])
        started.append(await System.start(folder, config(provider)))
        again = Team(team.name, team.key, started[1].url)
        async with again.openai() as client:

            async def over() -> Batch | None:
                found = await client.batches.retrieve(batch.id)
                return found if found.status in ("completed", "failed", "expired", "cancelled") else None

            ended = await until(over, 90)
            assert ended.output_file_id, ended
            text = (await client.files.content(ended.output_file_id)).text
    finally:
        for system in started:
            await system.stop()
    calls = Counter(entry.marker or "" for entry in await provider.entries(after=first))
    return ended, markers, [json.loads(line) for line in text.splitlines()], calls


def assert_each_line_was_told_once(ended: Batch, markers: list[str], results: list[dict[str, Any]]) -> None:
    assert (ended.status, ended.error_file_id) == ("completed", None)
    assert ended.request_counts is not None
    assert ended.request_counts.completed == LINES
    assert Counter(result["custom_id"] for result in results) == Counter(markers)
    assert {result["response"]["status_code"] for result in results} == {200}


async def test_a_killed_system_tells_each_line_of_a_batch_once(tmp_path: Path, provider: Provider) -> None:
    async def kill(system: System) -> None:
        os.kill(system.child.pid, signal.SIGKILL)
        await system.child.exited()

    ended, markers, results, calls = await broken_off(tmp_path, provider, kill)
    assert_each_line_was_told_once(ended, markers, results)
    print(f"killed: {sum(n > 1 for n in calls.values())} lines were called for again")
    assert calls.keys() == set(markers)
    assert max(calls.values()) <= 2


async def test_a_drained_system_goes_on_where_it_was_and_calls_for_no_line_twice(tmp_path: Path, provider: Provider) -> None:
    async def drain(system: System) -> None:
        assert await system.stop() == 0, system.log_tail

    ended, markers, results, calls = await broken_off(tmp_path, provider, drain)
    assert_each_line_was_told_once(ended, markers, results)
    assert calls == Counter(markers)
    assert list((tmp_path / "work").iterdir()) == []
