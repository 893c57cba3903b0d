"""Accounting between a real Kafka and a real ClickHouse: whatever dies, each completion is billed once."""

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from decimal import Decimal
from itertools import pairwise
from pathlib import Path

import pytest
import pytest_asyncio

from infra.alerts import Alerts
from infra.clickhouse.client import ClickHouse, ClickHouseError, open_clickhouse
from infra.clickhouse.writer import BlockWriter
from infra.clock import new_id, now_ms
from infra.embedded.parts import start_clickhouse
from infra.embedded.ports import choose_ports
from infra.embedded.process import Child, launch
from infra.embedded.stack import Stack
from infra.events import Acts
from infra.kafka.log import Mark, Outgoing, Partition
from infra.platform import Platform, open_platform
from infra.redis import adjustments
from infra.redis.ledger import Spent
from infra.settings import Settings
from schemas.completion import Completion
from schemas.control import Organization, Project
from schemas.event import Author
from schemas.ids import attempt_id
from schemas.job import Labels
from schemas.policy import Policy
from schemas.topics import COMPLETIONS, DEAD
from schemas.usage import Usage
from services.accounting.app import build
from services.accounting.handler import Accounting
from services.accounting.policy import MOST_MS, MOST_USD, flaw
from services.accounting.reconciliation import Reconciliation
from tests.unit.services.accounting.examples import attempt, completion

ROOT = Path(__file__).parents[2]
PATIENCE_S = 60


@dataclass
class Books:
    """A ClickHouse that can be killed, and what is asked of it."""

    folder: Path
    port: int
    server: Child

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def start(self) -> None:
        self.server = await start_clickhouse(self.folder, self.port)

    async def kill(self) -> None:
        os.kill(self.server.pid, signal.SIGKILL)
        await self.server.exited()

    def freeze(self) -> None:
        """Alive, and silent."""
        os.kill(self.server.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        os.kill(self.server.pid, signal.SIGCONT)

    async def ask(self, clickhouse: ClickHouse, sql: str, team: str) -> Mapping[str, object]:
        (row,) = await clickhouse.query(sql, {"team": team})
        return row


@pytest_asyncio.fixture(scope="module")
async def books(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Books]:
    folder = tmp_path_factory.mktemp("books")
    port = choose_ports(folder, ["clickhouse"])["clickhouse"]
    books = Books(folder, port, await start_clickhouse(folder, port))
    yield books
    await books.server.stop()


@pytest_asyncio.fixture(scope="module")
async def clickhouse(books: Books) -> AsyncGenerator[ClickHouse]:
    clickhouse = await open_clickhouse(books.url)
    yield clickhouse
    await clickhouse.close()


@pytest_asyncio.fixture(scope="module")
async def platform(stack: Stack, books: Books) -> AsyncGenerator[Platform]:
    settings = Settings(kafka=stack.kafka, redis=stack.redis, clickhouse=books.url, data_dir=books.folder, slot="0", drain_s=5)
    platform = await open_platform(settings, "test")
    yield platform
    await platform.close()


async def until(holds: Callable[[], Awaitable[bool]]) -> None:
    ends = time.monotonic() + PATIENCE_S
    while not await holds():
        assert time.monotonic() < ends, "it did not happen"
        await asyncio.sleep(0.02)


def job(team: str, cost: Decimal, calls: int = 1) -> Completion:
    """A job of `team`, each of whose calls cost so much, and 100 tokens in and 50 out."""
    job_id = new_id("job", now_ms())
    usage = Usage(input_tokens=100, output_tokens=50, source="provider")
    attempts = tuple(attempt(n, id=attempt_id(job_id, n), cost_usd=cost, usage=usage) for n in range(1, calls + 1))
    fact = completion(job_id=job_id, accepted_ms=now_ms(), ended_ms=now_ms(), attempts=attempts)
    return fact.model_copy(update={"caller": fact.caller.model_copy(update={"team": team})})


async def publish(platform: Platform, facts: Sequence[Completion]) -> None:
    post = platform.post("router")
    await asyncio.gather(*(post.book(fact, "") for fact in facts))


async def count(clickhouse: ClickHouse, table: str, team: str) -> int:
    try:
        (row,) = await clickhouse.query(f"SELECT count() AS n FROM sluice.{table} WHERE team = {{team:String}}", {"team": team})
    except ClickHouseError:
        return -1
    return int(str(row["n"]))


async def has(clickhouse: ClickHouse, table: str, team: str, rows: int) -> None:
    async def complete() -> bool:
        return await count(clickhouse, table, team) >= rows

    await until(complete)


async def standing(platform: Platform) -> dict[Partition, tuple[Mark, int]]:
    """What is committed of each partition, and where it ends."""
    partitions = [Partition(COMPLETIONS.name, n) for n in range(COMPLETIONS.partitions)]
    marks = await platform.source("accounting", COMPLETIONS.name).committed(partitions)
    reader = await platform.kafka.reader(partitions)
    ends = await reader.ends()
    await reader.stop()
    return {partition: (marks.get(partition, Mark(0)), ends[partition]) for partition in partitions}


async def settled(platform: Platform) -> bool:
    """All that was published is in the books."""
    return all(mark == (end, "") for mark, end in (await standing(platform)).values())


async def planned(platform: Platform) -> bool:
    """Every partition has a block on its way."""
    return all(mark.metadata for mark, _ in (await standing(platform)).values())


@asynccontextmanager
async def accounting(platform: Platform) -> AsyncGenerator[None]:
    """The service in this process."""
    service = build(platform)
    await service.start()

    async def ready() -> bool:
        return service.not_ready() is None

    try:
        await until(ready)
        yield
    finally:
        await service.drain()
        await service.stop()


class Killable:
    """The service in a process of its own, by its own command."""

    def __init__(self, platform: Platform, folder: Path) -> None:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("SLUICE_")}
        settings = platform.settings
        own = {"SLUICE_KAFKA": settings.kafka, "SLUICE_REDIS": settings.redis, "SLUICE_CLICKHOUSE": settings.clickhouse}
        words = [sys.executable, "-m", "services.cli", "serve", "accounting", "--port", "0", "--data-dir", str(folder)]
        self._log = folder / "accounting.log"
        self._child = Child("accounting", words, log=self._log, cwd=ROOT, env=kept | own | {"SLUICE_SLOT": "0"})

    async def start(self) -> None:
        """Returns when it is ready."""
        self._log.unlink(missing_ok=True)
        await launch(self._child, self._is_ready, PATIENCE_S)

    async def _is_ready(self) -> bool:
        return "ready http" in await asyncio.to_thread(self._log.read_text)

    async def kill(self) -> None:
        os.kill(self._child.pid, signal.SIGKILL)
        await self._child.exited()

    async def stop(self) -> int | None:
        await self._child.stop(20)
        return self._child.returncode


async def test_a_completion_is_billed_with_its_calls(platform: Platform, clickhouse: ClickHouse, books: Books) -> None:
    facts = [job("billed", Decimal("0.25"), calls=2), job("billed", Decimal("0.000000001"))]
    async with accounting(platform):
        await publish(platform, facts)
        await has(clickhouse, "usage", "billed", 2)
    sums = "SELECT sum(cost_usd) AS usd, sum(prompt_tokens) AS tokens FROM sluice.{} WHERE team = {{team:String}}"
    expected = {"usd": Decimal("0.500000001"), "tokens": 300}
    assert await books.ask(clickhouse, sums.format("usage"), "billed") == expected
    assert await books.ask(clickhouse, sums.format("attempts"), "billed") == expected
    (row,) = await clickhouse.query("SELECT * FROM sluice.usage WHERE job_id = {id:String}", {"id": facts[0].job_id})
    assert row["metadata"] == {"a": "b"}
    assert row["guard_findings"] == ["email"]
    assert row["deployment"] == "fast-eu"


async def test_what_cannot_be_billed_is_put_aside_and_holds_nobody_up(platform: Platform, clickhouse: ClickHouse) -> None:
    reader = await platform.kafka.reader([Partition(DEAD.name, 0)])
    await reader.seek_to_end()
    good = [job("beside", Decimal(1)) for _ in range(8)]
    unbillable = job("beside", Decimal(-1))
    async with accounting(platform):
        for partition in range(COMPLETIONS.partitions):
            await (await platform.kafka.send(Outgoing(COMPLETIONS.name, b"k", b"no JSON", (), partition)))
        await publish(platform, [*good, unbillable])
        await has(clickhouse, "usage", "beside", 8)
        dead = [record for _ in range(COMPLETIONS.partitions + 1) for record in await reader.poll(5, 1)]
    await reader.stop()
    reasons = sorted(dict(record.headers)["sluice_dead_reason"] or b"" for record in dead)
    assert reasons == [b"invalid"] * COMPLETIONS.partitions + [b"unbillable"]
    assert await count(clickhouse, "usage_log", "beside") == 8


async def test_what_differs_is_found_and_healed(platform: Platform, clickhouse: ClickHouse, books: Books) -> None:
    """A completion that comes again after a restart, a counter that was changed by hand, rows that are gone."""
    organization = "reconciled"
    await platform.control.write(Organization(id="org_r", name=organization))
    facts = [job("again", Decimal("0.25"), calls=2), *(job("again", Decimal("0.000000007")) for _ in range(20))]
    facts = [fact.model_copy(update={"caller": fact.caller.model_copy(update={"organization": organization})}) for fact in facts]
    counters = [f"spend:{scope}:total" for scope in (f"organization/{organization}", "team/again")]
    expected = (500_000_140, 22 * 150)
    alerts = Alerts(platform.kafka, platform.clock, "test")
    accounts = Accounting(platform.post("test"), platform.files, BlockWriter(clickhouse))
    reconciliation = Reconciliation(platform, clickhouse, lambda: True, accounts.write_again, alerts)

    async def spent() -> set[tuple[int, int]]:
        return set((await adjustments.standing(platform.redis, range(8), counters)).spent.values())

    async def compared() -> dict[str, tuple[int, int]]:
        """Of the organization, once everything is settled."""
        await until(lambda: settled(platform))
        found = await reconciliation.round()
        return {key: (one.usd_nano, one.tokens) for key, one in found.items() if key in counters}

    async with accounting(platform):
        await publish(platform, facts)
        await until(lambda: counted(spent, expected))
        assert await compared() == {}
    async with accounting(platform):
        await publish(platform, facts[:1])
        await until(lambda: counted(spent, (1_000_000_140, 24 * 150)))
        assert await compared() == dict.fromkeys(counters, (-500_000_000, -300))
        assert await spent() == {expected}
        # Before other tests leave rows in hundreds of months: each part of each would be looked at.
        for table, fact in (("usage_log", facts[3]), ("attempts_log", facts[4])):
            await clickhouse.command(f"DELETE FROM sluice.{table} WHERE job_id = '{fact.job_id}'")
        state = (await adjustments.standing(platform.redis, [0])).state
        assert await adjustments.adjust(platform.redis, state, dict.fromkeys(counters, Spent(0, 5, -7)))
        assert not await adjustments.adjust(platform.redis, state, dict.fromkeys(counters, Spent(0, 5, -7))), "not twice"
        reconciliation = Reconciliation(platform, clickhouse, lambda: True, accounts.write_again, alerts)
        assert await compared() == dict.fromkeys(counters, (-5, 7))
        assert await spent() == {expected}
        assert await compared() == {}
    assert await count(clickhouse, "usage", "again") == 21
    assert await count(clickhouse, "attempts", "again") == 22
    noted = await clickhouse.query(
        "SELECT usd, tokens, made FROM sluice.adjustments WHERE counter = {counter:String} ORDER BY ts", {"counter": counters[0]}
    )
    assert noted == [
        {"usd": Decimal("-0.5"), "tokens": -300, "made": True},
        {"usd": Decimal("-0.000000005"), "tokens": 7, "made": True},
    ]


async def counted(spent: Callable[[], Awaitable[set[tuple[int, int]]]], expected: tuple[int, int]) -> bool:
    return await spent() == {expected}


async def test_whatever_passes_for_billable_is_taken_by_clickhouse(platform: Platform, clickhouse: ClickHouse) -> None:
    """One row that it refused would hold up its partition for ever."""
    base = job("extreme", MOST_USD - Decimal("1e-9"))
    call = base.attempts[0]
    odd_text = "\0 \n \t \\ ' \U0001f600 \u202e"
    calls = (
        call.model_copy(update={"usage": Usage(input_tokens=2**64 - 1)}),
        call.model_copy(update={"n": 2**32 - 1, "http_status": 2**16 - 1, "error": odd_text, "raw_usage": odd_text * 1000}),
        call.model_copy(update={"started_ms": 0, "latency_ms": 1e308, "ttft_ms": -1.0}),
    )
    told: list[dict[str, object]] = [
        *({"attempts": (one.model_copy(update={"id": f"{call.id}-{n}"}),)} for n, one in enumerate(calls)),
        {"model": odd_text, "labels": Labels(feature=odd_text, metadata={odd_text: odd_text, "": ""})},
        {"accepted_ms": 0, "ended_ms": 0},
        {"accepted_ms": MOST_MS - 1, "ended_ms": MOST_MS - 1},
        {"queue_ms": -1e308, "saved_usd": MOST_USD - Decimal("1e-9"), "attempts": ()},
    ]
    # Each in a month of its own: a partition has more of them than ClickHouse takes in a block unless it is told to.
    months: list[dict[str, object]] = [{"accepted_ms": n * 31 * 86_400_000, "attempts": ()} for n in range(600)]
    facts = [base.model_copy(update={"job_id": f"odd {n}"} | changes) for n, changes in enumerate(told + months)]
    assert not any(map(flaw, facts))
    async with accounting(platform):
        await publish(platform, facts)
        await has(clickhouse, "usage", "extreme", len(facts))
    (row,) = await clickhouse.query("SELECT model, cost_usd FROM sluice.usage WHERE job_id = 'odd 3'")
    assert row == {"model": odd_text, "cost_usd": MOST_USD - Decimal("1e-9")}


async def test_the_first_completion_of_a_job_counts_and_every_call_is_kept(
    platform: Platform, clickhouse: ClickHouse, books: Books
) -> None:
    first = job("twice", Decimal("0.5"))
    late = first.model_copy(
        update={"attempts": (*first.attempts, attempt(2, id=f"{first.attempts[0].id}x", cost_usd=Decimal(7)))}
    )
    async with accounting(platform):
        for fact in (first, late, first):
            await publish(platform, [fact])
        await has(clickhouse, "attempts", "twice", 2)
        await has(clickhouse, "usage", "twice", 1)
    sums = "SELECT count() AS n, sum(cost_usd) AS usd FROM sluice.{} WHERE team = {{team:String}}"
    assert await books.ask(clickhouse, sums.format("usage"), "twice") == {"n": 1, "usd": Decimal("0.5")}
    assert await books.ask(clickhouse, sums.format("attempts"), "twice") == {"n": 2, "usd": Decimal("7.5")}


async def test_a_service_that_dies_with_a_block_on_its_way_bills_each_job_once(
    platform: Platform, clickhouse: ClickHouse, books: Books, tmp_path: Path
) -> None:
    """It dies when the plan is written down and ClickHouse has the rows, or will have them, without having said so."""
    facts = [job("killed", Decimal("0.000000123"), calls=1 + n % 2) for n in range(1000)]
    for part in range(4):
        life = Killable(platform, tmp_path)
        await life.start()
        await until(lambda: settled(platform))
        books.freeze()
        await publish(platform, facts[part * 250 : (part + 1) * 250])
        await until(lambda: planned(platform))
        await life.kill()
        books.thaw()
    life = Killable(platform, tmp_path)
    await life.start()
    await until(lambda: settled(platform))
    assert await life.stop() == 0
    sums = "SELECT count() AS n, sum(cost_usd) AS usd FROM sluice.{} WHERE team = {{team:String}}"
    for table, rows in (("usage", 1000), ("attempts", 1500)):
        assert await books.ask(clickhouse, sums.format(table), "killed") == {"n": rows, "usd": 1500 * Decimal("0.000000123")}


async def test_the_books_survive_an_absence_of_clickhouse(platform: Platform, clickhouse: ClickHouse, books: Books) -> None:
    facts = [job("away", Decimal(1)) for _ in range(400)]
    async with accounting(platform):
        await publish(platform, facts[:100])
        await has(clickhouse, "usage", "away", 100)
        await books.kill()
        await publish(platform, facts[100:])
        await books.start()
        await has(clickhouse, "usage", "away", 400)
    assert await count(clickhouse, "usage", "away") == 400


async def test_every_version_is_kept_also_of_what_changed_while_nobody_looked(
    platform: Platform, clickhouse: ClickHouse, books: Books
) -> None:
    """And of what was deleted and made anew, which begins at version 1 again. However often the service starts."""
    control, acts = platform.control, Acts(platform.kafka, platform.clock)

    def version(number: int) -> Project:
        return Project(id="p", team="kept", name="p", version=number, policy=Policy(timeout_s=number))

    for number in (1, 2):
        await control.write(version(number), author=Author(actor="user/ada", reason="a test"))
    async with accounting(platform):
        await has(clickhouse, "events", "kept", 2)
    await control.write(version(3))
    await control.delete("project/kept/p", author=Author(actor="user/bob", action="project.deleted"))
    await control.write(version(1))
    await acts.tell("admin", "looked", "job/1", after={"team": "kept"})
    for _ in range(2):
        async with accounting(platform):
            await has(clickhouse, "events", "kept", 6)
    found = await clickhouse.query(
        "SELECT actor, action, resource, version, before, after FROM sluice.events WHERE team = 'kept' ORDER BY ts, event_id"
    )
    assert [(row["actor"], row["action"], row["version"]) for row in found] == [
        ("user/ada", "written", 1),
        ("user/ada", "written", 2),
        ("sluice", "written", 3),
        ("user/bob", "project.deleted", 3),
        ("sluice", "written", 1),
        ("admin", "looked", 0),
    ]
    documents = [(row["before"], row["after"]) for row in found if row["resource"] == "project/kept/p"]
    for (_, after), (before, _) in pairwise(documents):
        assert before == after
    assert documents[3][1] == ""
    assert await count(clickhouse, "changes_log", "kept") == 6


async def test_it_begins_when_clickhouse_comes(platform: Platform, clickhouse: ClickHouse, books: Books) -> None:
    await books.kill()
    service = build(platform)
    await service.start()
    await publish(platform, [job("later", Decimal(1))])

    async def refused() -> bool:
        return "refused" in str(service.not_ready())

    await until(refused)
    await books.start()
    await has(clickhouse, "usage", "later", 1)
    assert service.not_ready() is None
    await service.drain()
    await service.stop()


async def test_it_can_be_drained_and_stopped_without_having_been_started(platform: Platform) -> None:
    service = build(platform)
    assert service.not_ready()
    await service.drain()
    await service.stop()
