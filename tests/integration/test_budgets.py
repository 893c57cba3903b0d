"""Budgets at every level, seen from outside: what doesn't fit is refused and never tried, what is spent is what was billed."""

import asyncio
import json
import re
import time
from collections.abc import AsyncGenerator
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import httpx
import openai
import pytest

from tests.integration.levels import BOUND, BOUNDED, CHAT, LEVELS, LONG, UNPRICED, Place, refused, started
from tests.kafka_client import bearer, line, publish, tail_of
from tests.system import OUTPUT_USD, Provider, System, chat, cost_usd, prompt, until

ANSWER_USD = cost_usd(1, 12)
"""What one answer of `mock` costs."""
WORDS = "mock-words-200-chunkms-50"
SLOW = "mock-latency-1500"
BIG = 1000
"""Tokens of an answer for which no budget here has enough."""


@pytest.fixture(scope="module")
async def own(tmp_path_factory: pytest.TempPathFactory, provider: Provider) -> AsyncGenerator[System]:
    system = await started(tmp_path_factory.mktemp("budgets"), provider)
    yield system
    assert await system.stop() == 0, system.log_tail


async def ask(place: Place, model: str = "mock", headers: dict[str, str] | None = None, **more: Any) -> httpx.Response:
    async with place.team.http() as client:
        return await client.post(CHAT, json=chat(model, **more), headers=headers)


async def spend(place: Place, answers: int = 1) -> None:
    for _ in range(answers):
        answer = await ask(place, max_tokens=12)
        assert answer.status_code == 200, answer.text


async def alerts(place: Place, at_least: int) -> list[dict[str, Any]]:
    """What `sluice alerts` shows of the team, the youngest first, once there are so many; forecasts depend on today's date."""

    async def found() -> list[dict[str, Any]]:
        told: list[dict[str, Any]] = await place.system.json("alerts", "--team", place.team.name)
        told = [alert for alert in told if alert["what"] != "budget_forecast"]
        return told if len(told) >= at_least else []

    return await until(found)


@pytest.mark.parametrize("level", LEVELS)
async def test_a_budget_in_usd_at_any_level_knows_what_was_spent_before(own: System, provider: Provider, level: str) -> None:
    place, marker = await Place.create(own), prompt()
    await spend(place)
    await place.budget(level, usd="1000", hard=False)

    async def counted() -> Decimal | None:
        spent = Decimal((await place.settled(level))["spent_usd"])
        return spent if spent >= ANSWER_USD else None

    spent = await until(counted)
    if level != "organization":
        assert spent == ANSWER_USD
    limit = spent + Decimal("0.001")
    await place.budget(level, usd=str(limit))
    try:
        answer = await ask(place, user=marker, max_tokens=BIG)
        message = refused(answer, 429, "budget_exceeded")
        assert re.fullmatch(
            rf"Budget exceeded for {re.escape(place.name(level))}: {spent.normalize():f}0? of {limit.normalize():f}0? USD spent "
            r"this month, and this request may need 0\.0020\d+ USD; resets \d{4}-\d\d-01",
            message,
        ), message
        assert answer.json()["error"]["type"] == "insufficient_quota"
        assert answer.headers["x-should-retry"] == "false"
        await spend(place, 3)
        told = await place.settled(level)
        assert Decimal(told["spent_usd"]) == spent + 3 * ANSWER_USD
        assert Decimal(told["left_usd"]) == limit - spent - 3 * ANSWER_USD
        await place.budget(level, usd=str(spent + 2 * ANSWER_USD))
        answer = await ask(place, user=marker, max_tokens=1)
        assert " USD spent this month; resets " in refused(answer, 429, "budget_exceeded")
        assert answer.headers["x-should-retry"] == "false"
        assert int(answer.headers["retry-after"]) == pytest.approx(until_next_month_s(), abs=10)
    finally:
        await place.drop_budget(level)
    await spend(place)
    assert await provider.entries(marker=marker) == []


def until_next_month_s() -> float:
    now = datetime.now(UTC)
    following = now.replace(year=now.year + now.month // 12, month=now.month % 12 + 1, day=1, hour=0, minute=0, second=0)
    return following.timestamp() - time.time()


@pytest.mark.parametrize("level", LEVELS[1:])
async def test_a_budget_in_tokens_at_any_level(own: System, level: str) -> None:
    place = await Place.create(own)
    await place.budget(level, tokens=300, period="total")
    assert (await ask(place, WORDS, max_tokens=200)).status_code == 200
    assert (await place.settled(level))["spent_tokens"] == 201
    answer = await ask(place, WORDS, max_tokens=200)
    message = refused(answer, 429, "budget_exceeded")
    told = (
        rf"Budget exceeded for {re.escape(place.name(level))}: 201 of 300 tokens spent in all, and this request may need 2\d\d "
    )
    assert re.fullmatch(f"{told}tokens; this budget does not reset", message), message
    assert answer.headers["x-should-retry"] == "false"
    assert "retry-after" not in answer.headers
    await spend(place)
    assert (await place.settled(level))["left_tokens"] == 300 - 201 - 13


async def test_what_runs_is_held_and_who_comes_meanwhile_is_told_so(own: System, provider: Provider) -> None:
    place, marker = await Place.create(own, budgets=[{"tokens": 300}]), prompt()
    running = asyncio.create_task(ask(place, SLOW, user=marker, max_tokens=200))
    assert await until(lambda: provider.entries(marker=marker))
    answer = await ask(place, max_tokens=200)
    message = refused(answer, 429, "budget_exceeded")
    assert re.search(r": 0 of 300 tokens spent this month, 2\d\d tokens held for requests that are running, and this ", message)
    assert (answer.headers["retry-after"], answer.headers["x-should-retry"]) == ("5", "false")
    told = await place.explained()
    (held,) = told["reservations"]
    assert held["at"] == [f"team/{place.team.name}"]
    assert held["tokens"] == told["held_tokens"] > 200
    ended = await running
    assert ended.status_code == 200
    assert held["job"] == ended.headers["x-sluice-job"]
    assert (await place.settled())["reservations"] == []
    assert (await ask(place, max_tokens=200)).status_code == 200
    shown = await own.run("budgets", "explain", "--team", place.team.name)
    assert shown.status == 0, shown.err
    assert "300 tokens" in shown.out


async def test_the_sdk_sends_once_what_no_budget_fits(own: System, provider: Provider) -> None:
    place, marker, sent = await Place.create(own, budgets=[{"usd": "0.001"}]), prompt(), list[httpx.Request]()

    async def note(request: httpx.Request) -> None:
        sent.append(request)

    http = httpx.AsyncClient(event_hooks={"request": [note]}, trust_env=False)
    async with place.team.openai(max_retries=2, http_client=http) as sdk:
        messages: Any = [{"role": "user", "content": prompt()}]
        with pytest.raises(openai.RateLimitError) as told:
            await sdk.chat.completions.create(model="mock", messages=messages, max_tokens=BIG, user=marker)
    assert (told.value.code, told.value.type) == ("budget_exceeded", "insufficient_quota")
    assert len(sent) == 1
    assert await provider.entries(marker=marker) == []


async def test_a_failed_call_costs_nothing_and_nothing_stays_held(own: System) -> None:
    place = await Place.create(own, budgets=[{"usd": "1"}])
    assert (await ask(place, "mock-400", max_tokens=12)).status_code == 400
    assert (await ask(place, "mock-401", max_tokens=12)).status_code >= 400
    told = await place.settled()
    assert (Decimal(told["spent_usd"]), told["reservations"]) == (0, [])


async def test_a_soft_budget_only_tells(own: System) -> None:
    place = await Place.create(own, budgets=[{"usd": "0.00003", "hard": False}])
    await spend(place)
    (share,) = await alerts(place, 1)
    assert (share["what"], share["scope"], share["severity"]) == ("budget_share", f"team/{place.team.name}", "warning")
    assert share["facts"]["share"] == round(ANSWER_USD / Decimal("0.00003"), 4)
    assert share["facts"]["hard"] is False
    assert share["link"] == f"{place.system.url}/admin/v1/alerts/{share['id']}"
    await spend(place, 2)
    exhausted, _ = await alerts(place, 2)
    assert (exhausted["what"], exhausted["severity"]) == ("budget_exhausted", "warning")
    await spend(place)
    assert len(await alerts(place, 2)) == 2


async def test_an_alert_comes_at_each_share_once(own: System) -> None:
    place = await Place.create(own, budgets=[{"usd": "1", "alerts": [0.00002, 0.00009]}])
    await spend(place, 5)

    async def spent() -> bool:
        return Decimal((await place.settled())["spent_usd"]) == 5 * ANSWER_USD

    assert await until(spent)
    found = await alerts(place, 2)
    assert [alert["what"] for alert in found] == ["budget_share"] * 2
    assert len({alert["id"] for alert in found}) == 2


# The batch lane.


@pytest.mark.parametrize("door", ["kafka", "http", "batches"])
async def test_a_batch_job_that_cannot_be_paid_before_its_deadline_fails(own: System, provider: Provider, door: str) -> None:
    place, marker = await Place.create(own, budgets=[{"usd": "0.001", "period": "total"}]), prompt()
    bodies = [("big", chat("mock", user=marker, max_tokens=BIG)), ("small", chat("mock", max_tokens=12))]
    told = await {"kafka": by_kafka, "http": by_http, "batches": by_batches}[door](own, place, bodies)
    assert told["small"][0] == 200, told["small"]
    status, body = told["big"]
    assert (status, body["error"]["code"], body["error"]["type"]) == (429, "budget_exceeded", "insufficient_quota")
    assert f"Budget exceeded for team {place.team.name}" in body["error"]["message"]
    assert await provider.entries(marker=marker) == []
    spent = await place.settled()
    assert (Decimal(spent["spent_usd"]), spent["reservations"]) == (ANSWER_USD, [])


Told = dict[str, tuple[int, dict[str, Any]]]
"""Status and body of each line."""


async def by_kafka(system: System, place: Place, bodies: list[tuple[str, dict[str, object]]]) -> Told:
    lines = [line(custom_id, body) for custom_id, body in bodies]
    await publish(system.kafka, "sluice.jobs.batch", lines, bearer(await system.job_token(place.team)))
    async with tail_of(system.kafka, f"sluice.results.{place.team.name}") as tail:
        await tail.read_until(lambda: len(tail.records) >= len(lines))
    found = [record.json() for record in tail.records]
    return {one["custom_id"]: (one["response"]["status_code"], one["response"]["body"]) for one in found}


async def by_http(system: System, place: Place, bodies: list[tuple[str, dict[str, object]]]) -> Told:
    async with place.team.http() as client:
        asked = (client.post(CHAT, json=body, headers={"x-sluice-lane": "batch"}) for _, body in bodies)
        answers = await asyncio.gather(*asked)
    return {name: (answer.status_code, answer.json()) for (name, _), answer in zip(bodies, answers, strict=True)}


async def by_batches(system: System, place: Place, bodies: list[tuple[str, dict[str, object]]]) -> Told:
    lines = b"".join(line(custom_id, body) + b"\n" for custom_id, body in bodies)
    async with place.team.openai() as client:
        file = await client.files.create(file=("in.jsonl", lines), purpose="batch")
        made = await client.batches.create(input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h")

        async def over() -> Any:
            batch = await client.batches.retrieve(made.id)
            return batch if batch.status == "completed" else None

        batch = await until(over, 60)
        texts = [(await client.files.content(name)).text for name in (batch.output_file_id, batch.error_file_id) if name]
    found = [json.loads(written) for text in texts for written in text.splitlines()]
    return {one["custom_id"]: (one["response"]["status_code"], one["response"]["body"]) for one in found}


async def test_a_batch_job_waits_while_what_it_needs_is_held_for_another(own: System, provider: Provider) -> None:
    place, marker = await Place.create(own, budgets=[{"tokens": 300}]), prompt()
    running = asyncio.create_task(ask(place, SLOW, user=marker, max_tokens=200))
    assert await until(lambda: provider.entries(marker=marker))
    waits = await ask(place, headers={"x-sluice-lane": "batch"}, max_tokens=200)
    assert waits.status_code == 200, waits.text
    assert (await running).status_code == 200
    (first,) = await provider.entries(marker=marker)
    (attempt,) = await own.attempts((await own.job(waits.headers["x-sluice-job"]))["job_id"])
    assert first.outcome == "finished"
    assert attempt["status"] == "completed"
    assert (await place.settled())["spent_tokens"] == 2 * 13


# Streams.


@pytest.mark.parametrize(("model", "budget", "held"), [(BOUNDED, "0.0004", BOUND), (LONG, "0.0025", 1024)])
async def test_a_stream_that_nothing_bounds_is_cut_when_the_budget_has_no_more(
    own: System, model: str, budget: str, held: int
) -> None:
    place = await Place.create(own, budgets=[{"usd": budget}])
    events: list[str] = []
    async with place.team.http() as client, client.stream("POST", CHAT, json=chat(model, stream=True)) as stream:
        assert stream.status_code == 200, await stream.aread()
        job_id = stream.headers["x-sluice-job"]
        async for text in stream.aiter_lines():
            if text.startswith("data: "):
                events.append(text.removeprefix("data: "))
    assert events[-1] != "[DONE]"
    assert json.loads(events[-1])["error"]["code"] == "budget_exceeded"
    flowed = "".join(json.loads(event)["choices"][0]["delta"].get("content") or "" for event in events[:-1])
    assert len(flowed.split()) < 1200
    row = await own.job(job_id)
    attempts = await own.attempts(job_id)
    print(f"{model}: {row['completion_tokens']} tokens, {row['cost_usd']} of {budget} USD, {row['status']}")
    assert (row["error_type"], [attempt["status"] for attempt in attempts]) == ("budget_exceeded", ["cancelled"])
    # What flowed is billed: what was held, and the piece of the stream in which it ran out.
    assert held <= row["completion_tokens"] < 1.5 * held
    assert held * OUTPUT_USD < row["cost_usd"] <= Decimal(budget)
    told = await place.settled()
    assert Decimal(told["spent_usd"]) == row["cost_usd"]


async def test_a_stream_that_needs_more_than_was_thought_gets_it_while_there_is_some(own: System) -> None:
    place = await Place.create(own, budgets=[{"usd": "1"}])
    async with place.team.http() as client, client.stream("POST", CHAT, json=chat(LONG, stream=True)) as stream:
        texts = [text async for text in stream.aiter_lines()]
    assert "data: [DONE]" in texts
    told = await place.settled()
    assert Decimal(told["spent_usd"]) == cost_usd(1, 3000)


# Models without a price.


async def test_a_model_without_a_price_is_refused_under_a_budget_or_charged_a_ceiling(own: System, provider: Provider) -> None:
    place, marker = await Place.create(own), prompt()
    assert (await ask(place, UNPRICED)).status_code == 200
    await place.budget(usd="1")
    answer = await ask(place, UNPRICED, user=marker)
    assert "no known price" in refused(answer, 403, "model_not_priced")
    assert await provider.entries(marker=marker) == []
    (line_told,) = [told async for told in _by_kafka(own, place)]
    assert line_told == (403, "model_not_priced")
    await place.change(unpriced={"input_usd": "0.00001", "output_usd": "0.00002"})
    answer = await ask(place, UNPRICED, max_tokens=12)
    assert answer.status_code == 200, answer.text
    row = await own.job(answer.headers["x-sluice-job"])
    assert row["cost_usd"] == 1 * Decimal("0.00001") + 12 * Decimal("0.00002")
    assert row["price_version"] == "policy:ceiling"
    assert Decimal((await place.settled())["spent_usd"]) == row["cost_usd"]
    refused(await ask(place, UNPRICED, max_tokens=50_000), 429, "budget_exceeded")


async def _by_kafka(system: System, place: Place) -> AsyncGenerator[tuple[int, str]]:
    told = await by_kafka(system, place, [("unpriced", chat(UNPRICED))])
    for status, body in told.values():
        yield status, body["error"]["code"]
