"""Four histories of the same jobs, compared: clients, the provider's ledger, completions in Kafka, rows in ClickHouse."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.mock_ledger import Entry
from tests.faults.doors import Clients, Told
from tests.kafka_client import is_all_done, tail_of
from tests.system import Provider, until

_SHOWN = 5


@dataclass(frozen=True, slots=True)
class Books:
    """What Kafka and ClickHouse say of a team's jobs. `completions`: statuses by job, the first in the log first."""

    completions: Mapping[str, Sequence[str]]
    usage: Sequence[Mapping[str, Any]]
    attempts: frozenset[str]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a storm left behind. `wrong`: what may not be; `called_again`: calls beyond the first of a job."""

    jobs: int
    doors: Mapping[str, int]
    calls: int
    called_again: int
    ended_again: int
    told_again: int
    failed: Mapping[str, int]
    unended_s: float
    wrong: tuple[str, ...]

    def __str__(self) -> str:
        share = 100 * self.called_again / max(1, self.jobs)
        return "\n".join(
            (
                f"{self.jobs} jobs {dict(self.doors)}, {sum(self.failed.values())} of them failed: {dict(self.failed)}.",
                f"All had ended {self.unended_s:.1f} s after the last fault.",
                f"{self.calls} provider calls, {self.called_again} of them made again ({share:.2f} % of jobs);",
                f"{self.ended_again} jobs with more than one completion, {self.told_again} told more than once.",
                *(self.wrong or ("Nothing lost, nothing doubled.",)),
            )
        )


async def compare(clients: Clients, provider: Provider, first: int, unended_s: float) -> Verdict:
    """Waits until the books are written, and compares them with what clients and the provider know. `first`: of its entries."""
    await until(lambda: is_all_done(clients.system.kafka), 60)
    told, books = list(clients.told.values()), await _books(clients)
    calls = await provider.entries(after=first)
    mine = [call for call in calls if call.marker in clients.told]
    by_job = Counter(_job_of(call) for call in mine)
    return Verdict(
        jobs=len(told),
        doors=Counter(one.door for one in told),
        calls=len(mine),
        called_again=sum(n - 1 for n in by_job.values()),
        ended_again=sum(len(statuses) > 1 for statuses in books.completions.values()),
        told_again=sum(one.told > 1 for one in told),
        failed=Counter(f"{one.door} {one.status}" for one in told if one.status >= 400),
        unended_s=unended_s,
        wrong=tuple([*_of_clients(told, mine), *_of_rows(books), *_of_calls(books, mine), *_of_ends(told, books)]),
    )


async def _books(clients: Clients) -> Books:
    system, team = clients.system, clients.team.name
    async with tail_of(system.kafka, "sluice.completions") as tail:
        await tail.read_to_end()
    completions: defaultdict[str, list[str]] = defaultdict(list)
    for found in (record.json() for record in tail.records):
        if found["caller"]["team"] == team:
            completions[found["job_id"]].append(found["status"])
    usage = await system.query(f"SELECT job_id, status FROM usage WHERE team = '{team}'")
    attempts = await system.query(f"SELECT attempt_id FROM attempts WHERE team = '{team}'")
    return Books(completions, usage, frozenset(row["attempt_id"] for row in attempts))


def _of_clients(told: Sequence[Told], calls: Sequence[Entry]) -> list[str]:
    """What was accepted is answered; nobody is told otherwise the second time."""
    called = {call.marker for call in calls}
    lost = [f"{one.door} {one.marker} {one.job_id}" for one in told if one.accepted and not one.status]
    never = [f"{one.door} {one.marker}" for one in told if not one.accepted]
    cancelled = [f"{one.door} {one.marker} {one.job_id}" for one in told if one.status == 499]
    unearned = [f"{one.door} {one.marker}" for one in told if one.status == 200 and one.marker not in called]
    return [
        *_few("accepted and never answered", lost),
        *_few("never accepted", never),
        *_few("answered by nobody", unearned),
        *_few("cancelled by nobody", cancelled),
    ]


def _of_rows(books: Books) -> list[str]:
    """One usage row for each job that has a completion."""
    rows = Counter(str(row["job_id"]) for row in books.usage)
    return [
        *_few("completions without a usage row", [job for job in books.completions if not rows[job]]),
        *_few("usage rows without a completion", [job for job in rows if job not in books.completions]),
        *_few("jobs with more than one usage row", [job for job, n in rows.items() if n > 1]),
    ]


def _of_calls(books: Books, calls: Sequence[Entry]) -> list[str]:
    """Every call is an attempt on the books, and no attempt was called twice."""
    times = Counter(call.request_id or "" for call in calls)
    return [
        *_few("calls that are no attempt", [attempt for attempt in times if attempt not in books.attempts]),
        *_few("attempts that were called twice", [attempt for attempt, n in times.items() if n > 1]),
    ]


def _of_ends(told: Sequence[Told], books: Books) -> list[str]:
    """A job's usage row says what its first completion said, and that is what its client was told."""
    status = {str(row["job_id"]): str(row["status"]) for row in books.usage}
    changed = [
        f"{job}: {ends}, {status.get(job)}" for job, ends in books.completions.items() if status.get(job, ends[0]) != ends[0]
    ]
    other = [
        f"{one.door} {one.job_id}: told {one.status}, {status[one.job_id]}"
        for one in told
        if one.job_id in status and (one.status == 200) != (status[one.job_id] == "completed")
    ]
    return [*_few("jobs whose status changed", changed), *_few("jobs whose client was told otherwise", other)]


def _job_of(call: Entry) -> str:
    return (call.request_id or "").rpartition("_")[0]


def _few(what: str, found: Sequence[str]) -> list[str]:
    return [f"{len(found)} {what}: {', '.join(sorted(found)[:_SHOWN])}"] if found else []
