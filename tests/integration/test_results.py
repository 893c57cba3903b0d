"""Which results stand in a team's topic already, asked of a real Kafka."""

import asyncio
import secrets

import pytest

from infra.clock import now_ms
from infra.kafka.broker import Kafka
from infra.kafka.log import Outgoing
from infra.kafka.results import Results
from schemas.topics import RESULTS, results_topic


@pytest.fixture
async def team(kafka: Kafka) -> str:
    team = f"team-{secrets.token_hex(4)}"
    await kafka.create_for_team(RESULTS, team, 1)
    for n in range(100):
        ack = await kafka.send(Outgoing(results_topic(team), b"c", b"{}", (("ce_id", b"result-%d" % n),)))
        await ack
    return team


async def test_what_stands_in_the_topic_is_told_and_nothing_else(kafka: Kafka, team: str) -> None:
    results, now = Results(kafka), now_ms()
    asked = [f"result-{n}" for n in (0, 57, 99, 100)]
    assert await asyncio.gather(*(results.told(team, result_id, now) for result_id in asked)) == [True, True, True, False]
    assert not await results.told(team, "result-1", now + 3_600_000), "before the time that was named"
    await (await kafka.send(Outgoing(results_topic(team), b"c", b"{}", (("ce_id", b"result-100"),))))
    assert await results.told(team, "result-100", now)
