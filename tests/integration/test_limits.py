"""Limits at every level, seen from outside: who is refused is told by which, how much of it is used, and when to come again."""

import asyncio
import os
import re
import signal
import statistics
import time
from decimal import Decimal
from typing import Any

import httpx
import pytest

from benchmarks.mock_ledger import Entry
from tests.fakes.recorder import Recorder
from tests.integration.levels import CHAT, LEVELS, Place, refused, seconds
from tests.kafka_client import bearer, line, publish, tail_of
from tests.system import Provider, System, Team, chat, prompt, until

WORDS = "mock-words-200-chunkms-50"
SLOW = "mock-latency-1500"
SDK_RETRIES = 2
"""What OpenAI's SDK does unless told otherwise."""


async def until_refused(client: httpx.AsyncClient, most: int, model: str = "mock", **more: Any) -> httpx.Response:
    """Asks again and again, each time something new; the first answer that is no answer."""
    for _ in range(most):
        answer = await client.post(CHAT, json=chat(model, **more))
        if answer.status_code != 200:
            return answer
    raise AssertionError(f"{most} requests were served")


# Rates.


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize(
    ("limit", "unit", "period_s"), [("requests_per_minute", "minute", 60), ("requests_per_day", "day", 86_400)]
)
async def test_a_limit_of_requests_at_any_level(system: System, level: str, limit: str, unit: str, period_s: int) -> None:
    place = await Place.create(system)
    async with place.limited(level, **{limit: 3}), place.team.http() as client:
        served = [await client.post(CHAT, json=chat("mock")) for _ in range(3)]
        answer = await client.post(CHAT, json=chat("mock"))
    assert [one.status_code for one in served] == [200] * 3
    assert [one.headers["x-ratelimit-limit-requests"] for one in served] == ["3"] * 3
    assert [one.headers["x-ratelimit-remaining-requests"] for one in served] == ["2", "1", "0"]
    resets_s = [seconds(one.headers["x-ratelimit-reset-requests"]) for one in served]
    assert resets_s == sorted(resets_s)
    message = refused(answer, 429, "rate_limit_exceeded")
    retry_s = int(answer.headers["retry-after"])
    assert message == f"Rate limit reached for {place.name(level)}: 3 of 3 requests per {unit} used. Try again in {retry_s} s."
    assert answer.json()["error"]["type"] == "requests"
    assert answer.headers["x-should-retry"] == "true"
    assert answer.headers["x-ratelimit-limit-requests"] == "3"
    assert answer.headers["x-ratelimit-remaining-requests"] == "0"
    # One comes back in each third of the period; all three are there when nothing is in use any more.
    reset_s = seconds(answer.headers["x-ratelimit-reset-requests"])
    assert 2 * period_s / 3 < reset_s <= period_s
    assert retry_s == pytest.approx(reset_s - 2 * period_s / 3, abs=2)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize(("limit", "unit", "period_s"), [("tokens_per_minute", "minute", 60), ("tokens_per_day", "day", 86_400)])
async def test_a_limit_of_tokens_at_any_level(system: System, level: str, limit: str, unit: str, period_s: int) -> None:
    place = await Place.create(system)
    async with place.limited(level, **{limit: 300}), place.team.http() as client:
        served = await client.post(CHAT, json=chat(WORDS, max_tokens=200))
        answer = await client.post(CHAT, json=chat(WORDS, max_tokens=200))
        huge = await client.post(CHAT, json=chat(WORDS, max_tokens=300))
    assert served.status_code == 200, served.text
    assert served.headers["x-ratelimit-limit-tokens"] == "300"
    assert 0 < int(served.headers["x-ratelimit-remaining-tokens"]) < 100
    message = refused(answer, 429, "rate_limit_exceeded")
    told = re.fullmatch(
        rf"Rate limit reached for {re.escape(place.name(level))}: (\d+) of 300 tokens per {unit} used\. "
        r"Try again in (\d+) s\.",
        message,
    )
    assert told, message
    used, retry_s = map(int, told.groups())
    # What was reserved, or what was used if that is known already, less what has come back since.
    assert 150 < used < 260
    assert answer.json()["error"]["type"] == "tokens"
    assert answer.headers["x-should-retry"] == "true"
    assert answer.headers["retry-after"] == str(retry_s)
    assert int(answer.headers["x-ratelimit-remaining-tokens"]) == 300 - used
    assert seconds(answer.headers["x-ratelimit-reset-tokens"]) == pytest.approx(used * period_s / 300, abs=period_s / 300 + 2)
    # It may need 208 and what its prompt has: so much has to come back.
    assert (used + 208 - 300) * period_s / 300 < retry_s < (used + 250 - 300) * period_s / 300
    assert "Request too large" in refused(huge, 429, "rate_limit_exceeded")
    assert huge.headers["x-should-retry"] == "false"


async def test_who_comes_again_when_told_to_is_served(system: System) -> None:
    place = await Place.create(system, limits={"requests_per_minute": 60})
    async with place.team.http() as client:
        answer = await until_refused(client, 90)
        retry_s = int(answer.headers["retry-after"])
        assert retry_s == 1
        await asyncio.sleep(retry_s)
        assert (await client.post(CHAT, json=chat("mock"))).status_code == 200


async def test_tokens_that_were_reserved_and_not_used_come_back(system: System) -> None:
    place = await Place.create(system, limits={"tokens_per_minute": 6000})
    async with place.team.http() as client:
        # 5,000 are reserved each time, and 13 used.
        for _ in range(4):

            async def served() -> bool:
                return (await client.post(CHAT, json=chat("mock", max_tokens=5000))).status_code == 200

            assert await until(served, 5)
        answer = await until_refused(client, 60, WORDS, max_tokens=200)
        await asyncio.sleep(int(answer.headers["retry-after"]))
        assert (await client.post(CHAT, json=chat(WORDS, max_tokens=200))).status_code == 200


async def test_the_sdk_waits_as_it_is_told(system: System) -> None:
    # A place comes free every third second: none does between the refusal and the SDK's first try.
    place = await Place.create(system, limits={"requests_per_minute": 20})
    sent: list[httpx.Request] = []

    async with place.team.http() as client:

        async def note(request: httpx.Request) -> None:
            if not sent:
                await until_refused(client, 90)
            sent.append(request)

        http = httpx.AsyncClient(event_hooks={"request": [note]}, trust_env=False)
        async with place.team.openai(max_retries=SDK_RETRIES, http_client=http) as sdk:
            answer = await sdk.chat.completions.create(model="mock", messages=[{"role": "user", "content": prompt()}])
    assert answer.choices[0].message.content
    assert 1 < len(sent) <= 1 + SDK_RETRIES


async def test_who_is_refused_at_one_level_uses_nothing_up_at_another(system: System) -> None:
    place = await Place.create(system, limits={"requests_per_minute": 2})
    async with place.limited("key", requests_per_minute=1), place.team.http() as client:
        answers = [await client.post(CHAT, json=chat("mock")) for _ in range(5)]
        assert [answer.status_code for answer in answers] == [200] + [429] * 4
        assert {answer.headers["x-ratelimit-limit-requests"] for answer in answers[1:]} == {"1"}
        async with (await place.other_key()).http() as other:
            assert (await other.post(CHAT, json=chat("mock"))).status_code == 200
            assert place.name("team") in refused(await other.post(CHAT, json=chat("mock")), 429, "rate_limit_exceeded")


# Places.


def most_at_once(entries: list[Entry]) -> int:
    """How many calls ran at the same time, at most."""
    ends = [(entry.at + entry.duration_ms / 1000, -1) for entry in entries]
    now = most = 0
    for _, step in sorted([(entry.at, 1) for entry in entries] + ends):
        now += step
        most = max(most, now)
    return most


@pytest.mark.parametrize("level", LEVELS)
async def test_a_third_request_waits_for_one_of_two_places(system: System, provider: Provider, level: str) -> None:
    place, marker = await Place.create(system), prompt()
    async with place.limited(level, concurrency=2), place.team.http() as client:
        answers = await asyncio.gather(*(client.post(CHAT, json=chat(SLOW, user=marker)) for _ in range(3)))
    assert [answer.status_code for answer in answers] == [200] * 3
    entries = await provider.entries(marker=marker)
    assert len(entries) == 3
    assert most_at_once(entries) == 2


@pytest.mark.parametrize("level", LEVELS)
async def test_who_has_waited_long_enough_for_a_place_is_refused(system: System, provider: Provider, level: str) -> None:
    place, marker = await Place.create(system, concurrency_wait_s=0.2), prompt()
    async with place.limited(level, concurrency=2), place.team.http() as client:
        running = [asyncio.create_task(client.post(CHAT, json=chat(SLOW, user=marker))) for _ in range(2)]

        async def both() -> bool:
            return len(await provider.entries(marker=marker)) == 2

        assert await until(both)
        answer = await client.post(CHAT, json=chat("mock"))
        message = refused(answer, 429, "rate_limit_exceeded")
        assert message.startswith(f"Concurrency limit reached for {place.name(level)}: 2 of 2 requests are running.")
        assert (answer.headers["x-should-retry"], answer.headers["retry-after"]) == ("true", "1")
        assert [(await task).status_code for task in running] == [200, 200]
        # With the default patience, for the place is given back when the end of the job is known.
        await place.change(concurrency_wait_s=5)
        assert (await client.post(CHAT, json=chat("mock"))).status_code == 200


async def test_who_leaves_gives_his_place_back(system: System) -> None:
    place = await Place.create(system, limits={"concurrency": 1}, concurrency_wait_s=5)
    async with place.team.http() as client:
        for _ in range(3):
            async with client.stream("POST", CHAT, json=chat(WORDS, stream=True)) as stream:
                assert stream.status_code == 200
                await anext(stream.aiter_lines())
        assert (await client.post(CHAT, json=chat("mock"))).status_code == 200


async def test_the_batch_lane_waits_for_a_place(system: System, provider: Provider) -> None:
    place, marker = await Place.create(system, limits={"concurrency": 1}, concurrency_wait_s=0), prompt()
    lines = [line(str(n), chat(SLOW, user=marker)) for n in range(2)]
    async with place.team.http() as client:
        await publish(system.kafka, "sluice.jobs.batch", lines, bearer(await system.job_token(place.team)))
        answer = await client.post(CHAT, json=chat(SLOW, user=marker), headers={"x-sluice-lane": "batch"})
    assert answer.status_code == 200, answer.text
    async with tail_of(system.kafka, f"sluice.results.{place.team.name}") as tail:
        await tail.read_until(lambda: len(tail.records) == 2)
    assert {record.json()["response"]["status_code"] for record in tail.records} == {200}
    entries = await provider.entries(marker=marker)
    assert len(entries) == 3
    assert most_at_once(entries) == 1


# Rights.


async def test_models_and_lanes_that_are_not_ones_own_are_refused(system: System) -> None:
    place = await Place.create(system, models=["mock"], lanes=["interactive"])
    async with place.team.http() as client:
        assert (await client.post(CHAT, json=chat("mock"))).status_code == 200
        model = await client.post(CHAT, json=chat("echo"))
        assert refused(model, 403, "model_not_allowed") == "This key may not use the model `echo`. It may use: mock"
        lane = await client.post(CHAT, json=chat("mock"), headers={"x-sluice-lane": "batch"})
        assert refused(lane, 403, "lane_not_allowed") == "This key may not use the lane `batch`. It may use: interactive"
        assert [model["id"] for model in (await client.get("/v1/models")).json()["data"]] == ["mock"]
        await publish(system.kafka, "sluice.jobs.batch", [line("lane", chat("mock"))], bearer(await system.job_token(place.team)))
    async with tail_of(system.kafka, f"sluice.results.{place.team.name}") as tail:
        await tail.read_until(lambda: len(tail.records) == 1)
    assert tail.records[0].json()["response"]["body"]["error"]["code"] == "lane_not_allowed"


async def test_metadata_that_a_policy_asks_for(system: System) -> None:
    place = await Place.create(system, metadata_required=["case", "feature"])
    async with place.team.http() as client:
        without = await client.post(CHAT, json=chat("mock"), headers={"x-sluice-metadata": '{"case": "7"}'})
        assert "feature" in refused(without, 400, "metadata_required")
        given = await client.post(CHAT, json=chat("mock"), headers={"x-sluice-metadata": '{"case": "7", "feature": "f"}'})
        assert given.status_code == 200, given.text


async def test_a_cap_of_the_answer_is_given_to_requests_without_one(system: System, recorder: Recorder) -> None:
    place = await Place.create(system, max_output_tokens=7)
    without, with_one = prompt(), prompt()
    async with place.team.http() as client:
        assert (await client.post(CHAT, json=chat("recorded", user=without))).status_code == 200
        assert (await client.post(CHAT, json=chat("recorded", user=with_one, max_tokens=3))).status_code == 200
        cut = (await client.post(CHAT, json=chat("mock"))).json()
    assert recorder.with_user(without)[0].body["max_tokens"] == 7
    assert recorder.with_user(with_one)[0].body["max_tokens"] == 3
    assert (cut["choices"][0]["finish_reason"], cut["usage"]["completion_tokens"]) == ("length", 7)


# While Redis is away.


async def test_while_redis_is_away_a_policy_decides(system: System) -> None:
    closed = await Place.create(system, budgets=[{"usd": "5"}])
    limited = await Place.create(system, limits={"requests_per_minute": 600})
    open_ = await Place.create(system, budgets=[{"usd": "5"}], limits={"requests_per_minute": 60}, when_redis_is_away="open")
    teams = [place.team for place in (closed, limited, open_)]
    for team in teams:
        async with team.http() as client:
            assert (await client.post(CHAT, json=chat("mock"))).status_code == 200
    pid = system.pids["redis"]
    os.kill(pid, signal.SIGSTOP)
    try:
        took_ms = [await refused_in_ms(team) for _ in range(20) for team in teams[:2]]
        async with open_.team.http() as client:
            for stream in (False, True):
                began = time.perf_counter()
                answer = await client.post(CHAT, json=chat("mock", stream=stream, max_tokens=12))
                print(f"fail-open: {(time.perf_counter() - began) * 1000:.0f} ms, stream {stream}")
                assert answer.status_code == 200, answer.text
                assert "[DONE]" in answer.text or not stream
            # Each process lets through a twentieth of a budget by itself.
            much = await client.post(CHAT, json=chat("mock", max_tokens=200_000))
            refused(much, 429, "budget_exceeded")
    finally:
        os.kill(pid, signal.SIGCONT)
    quantiles = statistics.quantiles(took_ms, n=100)
    print(f"fail-closed: p50 {quantiles[49]:.0f} ms, p99 {quantiles[98]:.0f} ms, at most {max(took_ms):.0f} ms")
    for team in teams:
        async with team.http() as client:

            async def is_back(client: httpx.AsyncClient = client) -> bool:
                return (await client.post(CHAT, json=chat("mock"))).status_code == 200

            assert await until(is_back)
    # What was let through meanwhile is on the books, and counts.
    cost = sum(row["cost_usd"] for row in await system.usage(open_.team.name, 4))

    async def counted() -> bool:
        told = await open_.explained()
        return Decimal(told["spent_usd"]) >= cost and not told["reservations"]

    assert await until(counted)


async def refused_in_ms(team: Team) -> float:
    async with team.http() as client:
        began = time.perf_counter()
        answer = await client.post(CHAT, json=chat("mock"))
        took_ms = (time.perf_counter() - began) * 1000
    refused(answer, 503, "budget_unavailable")
    assert answer.headers["x-should-retry"] == "true"
    assert int(answer.headers["retry-after"]) >= 1
    return took_ms
