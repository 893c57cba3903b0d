"""The ingress dies by kill -9 while a background response streams: its reader goes on where it was, and nothing comes twice."""

import os
import signal
from typing import Any

import openai
from openai.types.responses import Response

from benchmarks.mock_answers import answer_text
from tests.system import Provider, System, prompt, until

SLOW = "mock-words-200-chunkms-50"
SEEN = 15


async def test_a_stream_is_gone_on_with_though_its_ingress_died(processes: System, provider: Provider) -> None:
    team = await processes.create_team("resumed")
    marker, asked = prompt("resumed"), prompt()
    victim = processes.pids["ingress"]
    seen: list[dict[str, Any]] = []
    async with team.openai() as client:
        stream = await client.responses.create(model=SLOW, input=asked, background=True, stream=True, user=marker)
        async for event in stream:
            seen.append(event.model_dump(mode="json"))
            if len(seen) == SEEN:
                break
        os.kill(victim, signal.SIGKILL)
        await stream.close()
        response_id = seen[0]["response"]["id"]

    async with team.openai() as client:

        async def back() -> Response | None:
            try:
                return await client.responses.retrieve(response_id)
            except (openai.APIConnectionError, openai.InternalServerError):
                return None

        assert (await until(back)).status in ("in_progress", "completed")
        rest = [
            event.model_dump(mode="json")
            async for event in await client.responses.retrieve(response_id, stream=True, starting_after=SEEN - 1)
        ]
        whole = await client.responses.retrieve(response_id)
    assert processes.pids["ingress"] != victim
    assert [event["sequence_number"] for event in seen + rest] == list(range(len(seen) + len(rest)))
    deltas = [event["delta"] for event in seen + rest if event["type"] == "response.output_text.delta"]
    assert "".join(deltas) == answer_text(asked, 200) == whole.output_text
    assert [entry.outcome for entry in await provider.entries(marker=marker)] == ["finished"]
