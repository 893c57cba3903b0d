"""A provider that is away for some seconds, and one with a small quota, seen from outside."""

from collections import Counter

import httpx

from tests.integration.served import AWAY, NARROW
from tests.kafka_client import bearer, line, publish, tail_of
from tests.system import Provider, System, chat, prompt, until

LINES, FAILING = 30, 90
ENOUGH = 5
"""Failures in a row, after which a deployment is left alone."""


async def test_a_provider_that_is_away_for_some_seconds_fails_no_batch_job(system: System, provider: Provider) -> None:
    team, hasty = await system.create_team("patient"), await system.create_team("hasty")
    lines = [line(f"line-{n}", chat(AWAY, prompt())) for n in range(LINES)]
    async with httpx.AsyncClient(trust_env=False) as http:
        # Each of them fails, after a second, and so does whatever is tried again meanwhile: nothing goes well in between.
        faults = {AWAY: ["500-latency-1000"] * FAILING}
        assert (await http.post(f"{provider.base_url.removesuffix('/v1')}/faults", json=faults)).status_code == 200
    await publish(system.kafka, "sluice.jobs.batch", lines, bearer(await system.job_token(team)))

    async def is_down() -> bool:
        entries = await provider.entries(model=AWAY)
        return sum(entry.status == 500 and entry.outcome == "finished" for entry in entries) >= ENOUGH

    # An answer in between would say that all is well.
    assert await until(is_down)
    async with hasty.http() as client:

        async def refused() -> httpx.Response | None:
            answer = await client.post("/v1/chat/completions", json=chat(AWAY))
            return answer if answer.status_code == 503 else None

        told = await until(refused, 4)
    async with httpx.AsyncClient(trust_env=False) as http:
        # It is well again before it is asked again.
        assert (await http.delete(f"{provider.base_url.removesuffix('/v1')}/faults")).status_code == 200
    assert told.json()["error"]["code"] == "provider_unavailable"
    assert 1 <= int(told.headers["retry-after"]) <= 60
    assert told.headers["x-should-retry"] == "true"

    async with tail_of(system.kafka, f"sluice.results.{team.name}") as tail:
        await tail.read_until(lambda: len(tail.records) >= LINES)
        rows = await system.usage(team.name, LINES)
        await tail.read_to_end()
    found = [record.json() for record in tail.records]
    assert Counter(result["custom_id"] for result in found) == Counter(f"line-{n}" for n in range(LINES))
    assert {result["response"]["status_code"] for result in found} == {200}
    assert len(rows) == LINES
    assert {row["lane"] for row in rows} == {"batch"}
    assert {row["status"] for row in rows} == {"completed"}
    attempts = [attempt for row in rows for attempt in await system.attempts(row["job_id"])]
    called = {entry.marker for entry in await provider.entries(model=AWAY)}
    assert {attempt["attempt_id"] for attempt in attempts} <= called
    assert Counter(attempt["status"] for attempt in attempts)["completed"] == LINES
    assert Counter(attempt["status"] for attempt in attempts)["failed"] >= ENOUGH
    assert "unknown" not in {attempt["status"] for attempt in attempts}


async def test_interactive_is_told_when_the_providers_quota_is_in_use(system: System, provider: Provider) -> None:
    team = await system.create_team("hasty")
    async with team.http() as client:
        answers = [await client.post("/v1/chat/completions", json=chat(NARROW, prompt())) for _ in range(6)]
    # Six a minute, of which one is batch's.
    assert [answer.status_code for answer in answers] == [200] * 5 + [429]
    assert answers[-1].json()["error"]["code"] == "rate_limit_exceeded"
    assert 5 <= int(answers[-1].headers["retry-after"]) <= 13
    assert answers[-1].headers["x-should-retry"] == "true"
    assert len(await provider.entries(model=NARROW)) == 5
