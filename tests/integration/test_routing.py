"""Rules, splits, the classifier, hedges, shadows and broken streams, on real parts and seen from outside."""

from collections import Counter

import httpx
import pytest
from openai import APIError

from tests.system import Provider, System, chat, prompt, until

CODE = "Fix this function:\n```python\ndef add(a, b):\n    return a - b\n```\n"


async def fault(provider: Provider, model: str, *faults: str) -> None:
    """The next calls of a model of the mock fare so."""
    async with httpx.AsyncClient(trust_env=False) as http:
        answer = await http.post(f"{provider.base_url.removesuffix('/v1')}/faults", json={model: faults})
    assert answer.status_code == 200


async def deployment_of(client: httpx.AsyncClient, body: dict[str, object], **headers: str) -> str:
    answer = await client.post("/v1/chat/completions", json=body, headers=headers)
    assert answer.status_code == 200, answer.text
    return answer.headers["x-sluice-deployment"]


async def test_rules_lead_and_the_trace_says_why(system: System) -> None:
    team = await system.create_team("ruled")
    async with team.http() as client:
        assert await deployment_of(client, chat("by-rule", prompt())) == "small@mock-small"
        assert await deployment_of(client, chat("by-rule", CODE + prompt())) == "large@mock-large"
        assert await deployment_of(client, chat("by-rule", "word " * 600 + prompt())) == "large@mock-large"
    rows = await system.usage(team.name, 3)
    assert {row["model"] for row in rows} == {"by-rule"}
    assert sorted(row["route"][0].split(":")[0] for row in rows) == ["rule `code`", "rule `long`", "rule `rest`"]
    traced = await system.json("trace", rows[0]["job_id"])
    assert traced["route"] == rows[0]["route"]


async def test_a_canary_is_sticky(system: System) -> None:
    ways: dict[str, set[str]] = {}
    team = await system.create_team("canaries")
    keys = [(await system.json("keys", "create", "--team", team.name))["key"] for _ in range(12)]
    for key in keys:
        headers = {"authorization": f"Bearer {key}"}
        async with httpx.AsyncClient(base_url=system.url, headers=headers, trust_env=False, timeout=30) as client:
            ways[key] = {await deployment_of(client, chat("canary", prompt())) for _ in range(4)}
    assert all(len(way) == 1 for way in ways.values())
    assert set().union(*ways.values()) <= {"small@mock-small", "large@mock-large"}


async def test_the_classifier_chooses_and_says_why(system: System) -> None:
    team = await system.create_team("auto")
    async with team.http() as client:
        await deployment_of(client, chat("automatic", f"Say hello. {prompt()}"))
        hard = "Prove that there are infinitely many primes of the form 4k+3, then generalise it to arithmetic progressions. "
        await deployment_of(client, chat("automatic", hard + prompt()))
    rows = await system.usage(team.name, 2)
    assert all(row["route"][0].startswith("auto: ") for row in rows)
    assert {row["deployment"] for row in rows} <= {"small@mock-small", "large@mock-large"}


async def test_a_slow_call_is_hedged_and_both_are_in_the_books(system: System, provider: Provider) -> None:
    team = await system.create_team("hasty")
    await fault(provider, "mock-slow", *["latency-5000"] * 20)
    async with team.http() as client:
        found = Counter([await deployment_of(client, chat("slow-or-not", prompt())) for _ in range(6)])
    assert set(found) == {"slow-or-not@mock-quick"}
    rows = await system.usage(team.name, 6)
    attempts = [await system.attempts(row["job_id"]) for row in rows]
    hedged = [calls for calls in attempts if len(calls) == 2]
    assert hedged, "the slow one was never asked first"
    for loser, winner in hedged:
        assert (loser["status"], loser["error_type"], loser["hedge"]) == ("cancelled", "hedged", False)
        assert (winner["status"], winner["hedge"]) == ("completed", True)
    assert all(row["deployment"] == "slow-or-not@mock-quick" for row in rows)


async def test_a_shadow_is_compared_on_the_bill_of_who_wants_it(system: System) -> None:
    team = await system.create_team("watched")
    async with team.http() as client:
        for _ in range(3):
            assert await deployment_of(client, chat("watched", prompt())) == "watched@mock-watched"
    mine = {row["job_id"] for row in await system.usage(team.name, 3)}
    shadows = await system.usage("lab", 3)
    assert {row["shadow_of"] for row in shadows} >= mine
    assert {(row["model"], row["lane"], row["status"]) for row in shadows} == {("candidate", "batch", "completed")}
    [line] = await system.sql("SELECT * FROM shadow_comparison WHERE model = 'watched'")
    assert (line["shadow_model"], line["jobs"], line["completed"], line["shadow_completed"]) == ("candidate", 3, 3, 3)


async def test_a_broken_stream_goes_on_elsewhere_where_the_policy_wants_it(system: System, provider: Provider) -> None:
    team = await system.create_team_under("unbroken", {"route": {"on_broken_stream": "continue"}})
    await fault(provider, "mock-breaks", *["cut"] * 20)
    asked = 0
    async with team.openai() as client:
        for _ in range(6):
            asked += 1
            stream = await client.chat.completions.create(
                model="breaks", messages=[{"role": "user", "content": prompt()}], stream=True
            )
            chunks = [chunk async for chunk in stream]
            marked = [chunk for chunk in chunks if "sluice" in (chunk.model_extra or {})]
            assert chunks[-1].choices[0].finish_reason == "stop"
            if marked:
                break
        else:
            pytest.fail("no stream ever broke")
    rows = await system.usage(team.name, asked)
    broken = [row for row in rows if len(await system.attempts(row["job_id"])) == 2]
    assert broken
    assert broken[0]["status"] == "completed"


async def test_else_a_broken_stream_ends_with_an_error(system: System, provider: Provider) -> None:
    team = await system.create_team("broken")
    await fault(provider, "mock-breaks", *["cut"] * 20)
    async with team.openai() as client:

        async def breaks() -> bool:
            stream = await client.chat.completions.create(
                model="breaks", messages=[{"role": "user", "content": prompt()}], stream=True
            )
            try:
                return not [chunk async for chunk in stream]
            except APIError:
                return True

        assert await until(breaks)


async def test_a_long_prompt_goes_to_the_larger_model_before_anybody_is_asked(system: System, provider: Provider) -> None:
    team, before = await system.create_team("wordy"), await provider.last()
    async with team.http() as client:
        assert await deployment_of(client, chat("short", prompt())) == "short@mock-short"
        assert await deployment_of(client, chat("short", "word " * 100 + prompt())) == "large@mock-large"
    assert Counter(entry.model for entry in await provider.entries(after=before)) == {"mock-short": 1, "mock-large": 1}


async def test_what_nobody_can_do_is_said(system: System) -> None:
    team = await system.create_team("seeing")
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}
    body = {"model": "blind", "messages": [{"role": "user", "content": [{"type": "text", "text": "what is it?"}, picture]}]}
    async with team.http() as client:
        answer = await client.post("/v1/chat/completions", json=body)
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "unsupported_capability"
    assert "images" in answer.json()["error"]["message"]
