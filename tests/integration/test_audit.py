"""The audit log of a running system: what is kept, that nobody changes it unseen, and that what is erased is nowhere any more."""

import asyncio
import json
import time
import uuid
from collections.abc import AsyncGenerator, Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from redis.asyncio import Redis

from infra.audit import Found
from services.cli.audit_checks import check_file, check_store
from services.cli.sql import ask
from services.portal.erasure_policy import ErasureAsked
from tests.integration.test_batches import jsonl, over
from tests.system import System, Team, chat, until

CARD = "4111 1111 1111 1111"


@dataclass(frozen=True)
class Asker:
    """Somebody whose prompts nobody else has."""

    team: Team
    user: str
    canary: str

    async def rows(self, system: System) -> list[dict[str, Any]]:
        return await system.query(f"SELECT * FROM audit WHERE team = '{self.team.name}' ORDER BY job_id")


async def asker(system: System, policy: dict[str, object]) -> Asker:
    team, user = await system.create_team_under("audit", policy), f"ada-{uuid.uuid4().hex[:8]}"
    async with system.admin() as admin:
        key = (await admin.post("/admin/v1/keys", json={"team": team.name, "user": user})).json()
    return Asker(Team(team.name, key["key"], team.url), user, f"canary-{uuid.uuid4().hex}")


@pytest.fixture(scope="module")
async def ada(system: System) -> Asker:
    """Has asked at each door, and all of it is in the books."""
    ada = await asker(system, {"audit": {"content": "full", "retention_days": 30}})
    async with ada.team.openai() as client, ada.team.http() as http:
        messages: Any = [{"role": "user", "content": ada.canary}]
        for _ in range(2):
            await client.chat.completions.create(model="echo", messages=messages)
        async for _ in await client.chat.completions.create(model="echo", messages=messages, stream=True, max_tokens=7):
            pass
        await client.responses.create(model="echo", input=f"{ada.canary} kept", store=True)
        long = f"{ada.canary} {'and more ' * 2000}"
        accepted = await http.post("/v1/chat/completions", json=chat("echo", long), headers={"prefer": "respond-async"})
        assert accepted.status_code == 202, accepted.text
        line = {"custom_id": "1", "method": "POST", "url": "/v1/chat/completions", "body": chat("echo", f"{ada.canary} batch")}
        file = await client.files.create(file=("in.jsonl", jsonl([line])), purpose="batch")
        await client.files.create(file=("never run.jsonl", jsonl([line])), purpose="batch")
        batch = await client.batches.create(input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h")
        await over(client, batch)
    await system.usage(ada.team.name, 6)
    assert await until(lambda: _has(system, ada, 6))
    return ada


async def _has(system: System, ada: Asker, count: int) -> bool:
    return len(await ada.rows(system)) >= count


def checked(system: System) -> tuple[Found | None, int]:
    report = check_store(lambda query: ask(system.endpoints["clickhouse"], query, "JSONEachRow").text, (), time.time)
    return report.found, report.gone


async def command(system: System, *statements: str) -> None:
    async with httpx.AsyncClient(base_url=system.endpoints["clickhouse"], trust_env=False, timeout=30) as client:
        for statement in statements:
            answer = await client.post("/", content=statement)
            assert answer.status_code == 200, answer.text


async def test_what_is_asked_at_each_door_is_kept_with_who_asked_and_what_was_answered(system: System, ada: Asker) -> None:
    rows = await ada.rows(system)
    assert len(rows) == 6
    for row in rows:
        assert ada.canary in row["prompt"]
        assert row["completion"]
        assert (row["user"], row["status"], row["content"]) == (ada.user, "completed", "full")
    assert [row["cache"] for row in rows].count("hit") == 1
    told = await system.json("audit", "verify")
    assert (told["found"], told["gone"]) == (None, 0)
    assert told["links"] >= 6


async def test_redacted_hashed_and_blocked_are_kept_as_the_policy_says(system: System) -> None:
    flagged, blocked = {"actions": {"card": "flag"}}, {"actions": {"card": "block"}}
    teams = [
        await asker(system, {"audit": {"content": "redacted"}, "guard": flagged}),
        await asker(system, {"audit": {"content": "hashed"}, "guard": flagged}),
        await asker(system, {"audit": {"content": "redacted"}, "guard": blocked}),
        await asker(system, {"guard": flagged}),
    ]
    for one in teams:
        async with one.team.http() as http:
            await http.post("/v1/chat/completions", json=chat("echo", f"{one.canary} {CARD}"))
    for one in teams[:3]:
        assert await until(lambda one=one: _has(system, one, 1))
    redacted, hashed, refused = [(await one.rows(system))[0] for one in teams[:3]]
    assert teams[0].canary in redacted["prompt"]
    assert CARD not in json.dumps([redacted, hashed, refused], default=str)
    assert hashed["prompt"].startswith("sha256:")
    assert (refused["status"], refused["error"], refused["ended_by"]) == ("failed", "content_filter", "guard")
    assert await teams[3].rows(system) == []


async def test_what_is_altered_removed_or_put_in_is_named(system: System, ada: Asker) -> None:
    row = (await ada.rows(system))[0]
    job, place = row["job_id"], f"partition = {row['partition']} AND seq = {row['seq']}"
    sync = "SETTINGS mutations_sync = 2"

    async def found() -> tuple[str, str]:
        flaw = (await asyncio.to_thread(checked, system))[0]
        assert flaw is not None
        return flaw.flaw, flaw.job_id

    flip = "ALTER TABLE sluice.audit_log UPDATE completion = {} WHERE job_id = '{}' " + sync
    await command(system, flip.format("concat(completion, '!')", job))
    assert await found() == ("content altered", job)
    await command(system, flip.format("substring(completion, 1, length(completion) - 1)", job))
    copy = "CREATE TABLE sluice.kept_chain ENGINE = Memory AS SELECT * FROM sluice.audit_chain"
    await command(system, copy, f"ALTER TABLE sluice.audit_chain UPDATE digest = 'forged' WHERE {place} {sync}")
    assert await found() == ("altered", job)
    back = "INSERT INTO sluice.audit_chain SELECT * FROM sluice.kept_chain"
    await command(system, f"TRUNCATE TABLE sluice.audit_chain {sync}", back, "DROP TABLE sluice.kept_chain")
    fake = "SELECT * REPLACE ('job_fake' AS job_id, seq + 1000000 AS seq, toDateTime64(1, 3) AS ended) FROM sluice.audit_log"
    await command(system, f"INSERT INTO sluice.audit_log {fake} WHERE audit_log.job_id = '{job}'")
    assert await found() == ("inserted", "job_fake")
    await command(system, f"ALTER TABLE sluice.audit_log DELETE WHERE job_id = 'job_fake' {sync}")
    assert (await asyncio.to_thread(checked, system))[0] is None


async def test_an_export_is_checked_without_the_system_and_an_altered_line_is_found(system: System, ada: Asker) -> None:
    file = system.data_dir / "export.jsonl"
    exported = await system.run("audit", "export", "--user", ada.user, "--out", file)
    assert exported.status == 0, exported.err
    assert (check_file(file).found, check_file(file).links) == (None, 6)
    file.write_text(file.read_text().replace(ada.canary, "nothing", 1))
    refused = await system.run("audit", "verify", file)
    assert (refused.status, refused.err.split(":")[0]) == (1, "content altered")
    file.unlink()


async def test_after_an_erasure_nothing_that_was_asked_is_found_anywhere_and_the_bills_are_the_same(
    system: System, ada: Asker
) -> None:
    sums = (
        f"SELECT count() AS jobs, sum(cost_usd) AS cost, sum(prompt_tokens) AS tokens FROM usage WHERE team = '{ada.team.name}'"
    )
    before = await system.query(sums)
    places = [place async for place in holding(system, ada.canary)]
    assert {place.split("/")[0] for place in places} == {"clickhouse", "redis", "files", "objects"}
    # Somebody has begun before, and died.
    begun = f"'erasure_begun', '{ErasureAsked(user=ada.user).subject}', 'admin', 'asked for', now64(3)"
    await command(system, f"INSERT INTO sluice.erasures_log (id, subject, actor, reason, asked_at) VALUES ({begun})")
    erased = await system.json("audit", "erase", "--user", ada.user, "--yes")
    assert (erased["id"], erased["reason"], erased["jobs"]) == ("erasure_begun", "asked for", 6)
    assert erased["done_ms"]
    assert [place async for place in holding(system, ada.canary)] == []
    # What it is called stays where budgets are counted, until their periods end.
    named = [place async for place in holding(system, ada.user)]
    assert [place for place in named if not place.startswith("redis/spend")] == []
    assert await system.query(sums) == before
    found, gone = await asyncio.to_thread(checked, system)
    assert found is None
    assert gone >= 6


async def holding(system: System, words: str) -> AsyncGenerator[str]:
    """Each table, key and file in which they stand."""
    columns = await system.query(
        "SELECT c.table AS table, groupArray(c.name) AS names FROM system.columns AS c JOIN system.tables AS t "
        "ON t.name = c.table AND t.database = c.database WHERE c.database = 'sluice' AND t.engine LIKE '%MergeTree' "
        "AND c.table != 'changes_log' GROUP BY table"
    )
    for one in columns:
        said = " OR ".join(f"position(toString({name}), '{words}') > 0" for name in one["names"])
        if (await system.query(f"SELECT count() AS hits FROM `{one['table']}` WHERE {said}"))[0]["hits"]:
            yield f"clickhouse/{one['table']}"
    redis: Any = Redis.from_url(system.endpoints["redis"])  # pyright: ignore[reportUnknownMemberType]
    async for key in redis.scan_iter(count=1000):
        kind = await redis.type(key)
        value = await (redis.get(key) if kind == b"string" else redis.hgetall(key) if kind == b"hash" else redis.exists(key))
        if words in repr((key, value)):
            yield f"redis/{key.decode()}"
    await redis.aclose()
    for place in _files(system, words):
        yield place


def _files(system: System, words: str) -> Iterator[str]:
    for folder in ("files", "objects", "work", "qdrant"):
        for path in (system.data_dir / folder).rglob("*"):
            if path.is_file() and words.encode() in path.read_bytes():
                yield f"{folder}/{path.name}"
