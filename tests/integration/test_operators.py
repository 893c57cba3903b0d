"""What operators do: trace a job, look at jobs and cancel them, look at dead letters and replay them."""

import asyncio
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from tests.kafka_client import Record, bearer, line, publish, tail_of
from tests.system import System, Team, chat, prompt, until

BATCH, DEAD = "sluice.jobs.batch", "sluice.dead"
CHAT = "/v1/chat/completions"
ASYNCHRONOUS = {"prefer": "respond-async"}


@pytest.fixture(scope="module")
async def team(system: System) -> Team:
    return await system.create_team("operated")


async def ask(team: Team, body: object, **headers: str) -> httpx.Response:
    async with team.http() as client:
        return await client.post(CHAT, json=body, headers={name.replace("_", "-"): value for name, value in headers.items()})


async def letter_of(system: System, origin: str) -> dict[str, Any]:
    """The dead letter of a record, once it is there."""

    async def found() -> dict[str, Any] | None:
        async with system.admin() as admin:
            answer = await admin.get(f"/admin/v1/dead/{origin}")
        return answer.json() if answer.status_code == 200 else None

    return await until(found)


async def results(system: System, team: Team, custom_id: str, at_least: int) -> list[dict[str, Any]]:
    async with tail_of(system.kafka, f"sluice.results.{team.name}") as tail:

        def own() -> list[dict[str, Any]]:
            return [record.json() for record in tail.records if record.json()["custom_id"] == custom_id]

        await tail.read_until(lambda: len(own()) >= at_least)
        await tail.read_to_end()
        return own()


# The way of a job


async def test_a_trace_has_every_stage_and_call_in_order(system: System, team: Team) -> None:
    answer = await ask(team, chat("mock"))
    job_id = answer.headers["x-sluice-job"]
    traced = await system.json("trace", job_id)
    assert (traced["job_id"], traced["source"], traced["status"], traced["team"]) == (job_id, "books", "completed", team.name)
    events = traced["events"]
    assert [event["name"] for event in events] == ["accepted", "guard", "cache", "router", "attempt 1", "by router"]
    offsets = [event["offset_ms"] for event in events]
    assert offsets[0] == 0
    assert offsets == sorted(offsets)
    assert offsets[-1] == traced["ended_ms"] - traced["accepted_ms"]
    call = events[4]["call"]
    (attempt,) = await system.attempts(job_id)
    assert (call["id"], call["deployment"], call["http_status"]) == (attempt["attempt_id"], "mock@mocked", 200)
    assert (call["prompt_tokens"], call["completion_tokens"]) == (attempt["prompt_tokens"], attempt["completion_tokens"])


async def test_a_trace_is_found_by_any_id_of_the_job(system: System, team: Team) -> None:
    job_id = (await ask(team, chat("mock"))).headers["x-sluice-job"]
    digits = job_id.removeprefix("job_")
    for name in (f"resp_{digits}", f"batch_req_{digits}", f"att_{digits}_1"):
        assert (await system.json("trace", name))["job_id"] == job_id
    shown = await system.run("trace", job_id)
    assert shown.status == 0
    assert "attempt 1" in shown.out
    assert "━" in shown.out


async def test_a_job_that_nobody_made_is_said_to_be_unknown(system: System) -> None:
    unknown = await system.run("trace", f"job_{0x019B76DAA8007000800000000000002A:032x}")
    assert (unknown.status, unknown.out) == (1, "")
    assert "No job" in unknown.err
    nonsense = await system.run("trace", "chatcmpl-1")
    assert nonsense.status == 1
    assert "not the id of a job" in nonsense.err


# Jobs


async def jobs_by_http(system: System, **asked: str) -> list[dict[str, Any]]:
    async with system.admin() as admin:
        return (await admin.get("/admin/v1/jobs", params=asked)).json()["data"]


async def test_jobs_are_listed_and_found_by_what_they_are(system: System) -> None:
    team, other = await system.create_team("listed"), await system.create_team("listed")
    made = [await ask(t, chat("mock"), **ASYNCHRONOUS) for t in (team, team, other)]
    assert [answer.status_code for answer in made] == [202, 202, 202]
    first, second, third = (answer.headers["location"].rpartition("/")[2] for answer in made)

    async def listed(**asked: str) -> list[str]:
        return [job["id"] for job in await jobs_by_http(system, **asked)]

    async def all_ended() -> bool:
        return {first, second, third} <= set(await listed(status="completed", limit="100"))

    assert await until(all_ended)
    assert await listed(team=team.name) == [second, first], "the youngest first, and nobody else's"
    assert await listed(team=team.name, after=second) == [first]
    assert await listed(after=third, limit="2") == [second, first], "another team's job is as good a place to go on from"
    for narrow in ({"status": "failed"}, {"model": "echo"}, {"lane": "batch"}):
        assert await listed(team=team.name, **narrow) == []
    shown = await system.json("jobs", "show", first)
    assert (shown["status"], shown["caller"]["team"], shown["attempts"]) == ("completed", team.name, 1)
    assert shown["usage"]["output_tokens"] > 0
    assert first in (await system.run("jobs", "list", "--team", team.name)).out


async def test_what_was_said_is_no_administrators_business(system: System, team: Team) -> None:
    secret = prompt("between us")
    answer = await ask(team, chat("mock", secret), **ASYNCHRONOUS)
    job_id = answer.headers["location"].rpartition("/")[2]

    async def shown() -> str | None:
        async with system.admin() as admin:
            found = await admin.get(f"/admin/v1/jobs/{job_id}")
        return found.text if found.json()["status"] == "completed" else None

    text = await until(shown)
    assert secret not in text
    assert "choices" not in text


async def test_a_cancelled_job_ends_so_and_its_provider_call_is_closed(system: System, team: Team) -> None:
    answer = await ask(team, chat("mock-latency-5000"), **ASYNCHRONOUS)
    job_id = answer.headers["location"].rpartition("/")[2]
    async with system.admin() as admin:

        async def at_work() -> bool:
            job = (await admin.get(f"/admin/v1/jobs/{job_id}")).json()
            return (job["status"], job["attempts"]) == ("in_progress", 1)

        assert await until(at_work)
        cancelled = await admin.delete(f"/admin/v1/jobs/{job_id}")
    assert (cancelled.status_code, cancelled.json()["status"]) == (200, "cancelled")
    assert (await system.job(job_id))["status"] == "cancelled"
    (attempt,) = await system.attempts(job_id)
    assert attempt["status"] == "cancelled"


async def test_a_job_that_waits_is_traced_and_cancelled(system: System, team: Team) -> None:
    tomorrow = (datetime.now(UTC) + timedelta(hours=20)).isoformat()
    answer = await ask(team, chat("mock"), **ASYNCHRONOUS, x_sluice_not_before=tomorrow)
    job_id = answer.headers["location"].rpartition("/")[2]
    waiting = await system.json("trace", job_id)
    assert (waiting["source"], waiting["status"], waiting["attempts"]) == ("store", "queued", 0)
    assert [event["name"] for event in waiting["events"]] == ["accepted"]
    assert (await system.json("jobs", "cancel", job_id))["status"] == "cancelled"
    assert (await system.json("trace", job_id))["status"] == "cancelled"


async def test_what_has_ended_can_no_longer_be_cancelled(system: System, team: Team) -> None:
    job_id = (await ask(team, chat("mock"), **ASYNCHRONOUS)).headers["location"].rpartition("/")[2]
    await system.job(job_id)
    late = await system.run("jobs", "cancel", job_id)
    assert late.status == 1
    assert "too late" in late.err
    assert (await system.json("jobs", "show", job_id))["status"] == "completed"


@pytest.mark.parametrize(
    ("path", "status", "param"),
    [
        ("/jobs?team=nobody", 404, "team"),
        ("/jobs?limit=0", 400, "limit"),
        ("/jobs?status=done", 400, "status"),
        ("/jobs?after=x", 400, "after"),
        ("/jobs/job_x", 404, None),
        ("/dead?limit=1000", 400, "limit"),
        ("/dead?after=x", 400, "after"),
        ("/dead/0@999999999", 404, None),
        ("/dead/sluice.jobs.batch/0@999999999", 404, None),
    ],
)
async def test_what_cannot_be_asked_is_named(system: System, path: str, status: int, param: str | None) -> None:
    async with system.admin() as admin:
        answer = await admin.get(f"/admin/v1{path}")
    assert answer.status_code == status
    assert answer.json()["error"]["param"] == param


@pytest.mark.parametrize("path", ["/jobs", "/jobs/job_x", "/dead", "/dead/0@0"])
async def test_nobody_looks_without_the_admin_key(system: System, team: Team, path: str) -> None:
    async with team.http() as client:
        assert (await client.get(f"/admin/v1{path}")).status_code == 403


# Dead letters


async def test_a_dead_record_of_the_door_is_shown_and_replayed_for_a_team(system: System, team: Team) -> None:
    name = prompt("dead")
    (origin,) = await publish(system.kafka, BATCH, [line(name, chat("mock"))], bearer("not.a.token"))
    letter = (await letter_of(system, origin))["letter"]
    assert (letter["reason"], letter["stage"], letter["origin"], letter["became"]) == ("invalid_token", "ingress", origin, "")
    listed = await system.json("dead", "list", "--reason", "invalid_token", "--stage", "ingress")
    assert listed[0]["id"] == letter["id"], "the youngest first"
    assert all(found["reason"] == "invalid_token" for found in listed)
    shown = await system.run("dead", "show", origin, "--json")
    assert name in shown.out
    assert "not.a.token" not in shown.out

    alone = await system.run("dead", "replay", "--id", letter["id"])
    assert alone.status == 1
    assert "--team" in alone.out
    (tried,) = await system.json("dead", "replay", "--id", letter["id"], "--team", team.name, "--dry-run")
    assert (tried["result"], tried["became"]) == ("would be replayed", BATCH)
    (done,) = await system.json("dead", "replay", "--id", origin, "--team", team.name)
    assert (done["result"], done["became"]) == ("replayed", BATCH)
    (result,) = await results(system, team, name, 1)
    assert result["response"]["status_code"] == 200
    assert (await letter_of(system, origin))["letter"]["became"] == BATCH

    twice = await system.run("dead", "replay", "--id", letter["id"], "--team", team.name)
    assert twice.status == 1
    assert "--force" in twice.out
    await system.json("dead", "replay", "--id", letter["id"], "--team", team.name, "--force")
    assert len(await results(system, team, name, 2)) == 2


async def test_a_dead_job_becomes_a_new_one_whose_answer_can_be_asked_for(system: System, team: Team) -> None:
    """The old one's record, signed as it is, on a topic where it doesn't belong: it is put aside, and still good."""
    answer = await ask(team, chat("mock"), x_sluice_metadata=json.dumps({"ticket": "4711"}), cache_control="no-store")
    old = answer.headers["x-sluice-job"]
    record = await job_record(system, old)
    (origin,) = await publish(system.kafka, "sluice.router.interactive", [record.value], [*record.headers.items()])
    assert (await letter_of(system, origin))["letter"]["reason"] == "slip"
    (done,) = await system.json("dead", "replay", "--id", origin)
    new = done["became"]
    assert new.startswith("job_")
    assert new != old
    row = await system.job(new)
    assert (row["status"], row["team"]) == ("completed", team.name)
    assert row["metadata"] == {"ticket": "4711", "replay_of": old}
    assert (await system.json("trace", new))["replay_of"] == old
    assert (await system.json("jobs", "show", new))["status"] == "completed"
    async with team.http() as client:
        kept = await client.get(f"/v1/jobs/{new}")
    assert kept.status_code == 200
    assert answer.json()["choices"][0]["message"]["content"] in kept.text


async def job_record(system: System, job_id: str) -> Record:
    """The record in which admission sent a job to the guard."""
    async with tail_of(system.kafka, "sluice.guard.interactive") as tail:

        def own() -> list[Record]:
            return [record for record in tail.records if record.headers.get("ce_id") == job_id.encode()]

        await tail.read_until(lambda: bool(own()))
        return own()[0]


async def test_a_completion_goes_back_to_the_books_and_nothing_unreadable_does(system: System, team: Team) -> None:
    job_id = (await ask(team, chat("mock"))).headers["x-sluice-job"]
    await system.job(job_id)
    async with tail_of(system.kafka, "sluice.completions") as tail:
        await tail.read_until(lambda: any(record.key == job_id.encode() for record in tail.records))
        record = next(record for record in tail.records if record.key == job_id.encode())
    unbillable = record.json() | {"saved_usd": "-1"}
    headers = [*record.headers.items()]
    origins = await publish(system.kafka, "sluice.completions", [json.dumps(unbillable).encode(), b"junk"], headers)
    good, junk = [(await letter_of(system, origin))["letter"] for origin in origins]
    assert (good["reason"], junk["reason"]) == ("unbillable", "invalid")
    answered = await system.run("dead", "replay", "--id", good["id"], "--id", junk["id"], "--json")
    first, second = json.loads(answered.out)
    assert answered.status == 1
    assert (first["result"], first["became"]) == ("replayed", "sluice.completions")
    assert (second["result"], second["became"]) == ("left", "")
    assert "put aside again" in second["why"]


async def test_replaying_by_reason_passes_over_what_was_replayed(system: System, team: Team) -> None:
    names = [prompt("many") for _ in range(3)]
    origins = await publish(system.kafka, BATCH, [line(name, chat("mock")) for name in names], [])
    await asyncio.gather(*(letter_of(system, origin) for origin in origins))
    done = await system.json("dead", "replay", "--reason", "no_token", "--team", team.name)
    assert set(origins) <= {result["origin"] for result in done if result["result"] == "replayed"}
    for name in names:
        (result,) = await results(system, team, name, 1)
        assert result["response"]["status_code"] == 200
    again = await system.json("dead", "replay", "--reason", "no_token", "--team", team.name)
    assert not set(origins) & {result["origin"] for result in again}


async def test_pages_of_dead_letters_meet_without_a_gap(system: System) -> None:
    origins = await publish(system.kafka, BATCH, [b"junk"] * 7, [])
    await asyncio.gather(*(letter_of(system, origin) for origin in origins))
    seen: list[str] = []
    async with system.admin() as admin:
        after: dict[str, str] = {}
        while not set(origins) <= set(seen):
            page = (await admin.get("/admin/v1/dead", params={"limit": "3", **after})).json()
            assert len(page["data"]) == 3
            seen += [letter["origin"] for letter in page["data"]]
            after = {"after": page["last_id"]}
    assert len(set(seen)) == len(seen)


async def test_replaying_nothing_or_everything_by_mistake_is_refused(system: System) -> None:
    assert (await system.run("dead", "replay")).status == 2
    assert (await system.run("dead", "replay", "--all", "--reason", "slip")).status == 2
    unknown = await system.run("dead", "replay", "--id", "0@999999999")
    assert unknown.status == 1
    assert "sluice dead list" in unknown.err
    async with system.admin() as admin:
        assert (await admin.post("/admin/v1/dead/replay", json={})).status_code == 400
        nobody = await admin.post("/admin/v1/dead/replay", json={"all": True, "team": "nobody", "dry_run": True})
    assert nobody.status_code == 404
