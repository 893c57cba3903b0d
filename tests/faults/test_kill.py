"""A service dies by kill -9 in the middle of a batch: nothing is lost, nothing comes twice, and the bill adds up."""

import os
import signal
import time
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pytest

from tests.kafka_client import Tail, bearer, is_all_done, line, publish, tail_of
from tests.system import Provider, System, Team, chat, prompt, until

JOBS = 500
BEFORE = 25
"""So many results have come when the service dies."""
MODEL = "mock-latency-50"


@dataclass(frozen=True, slots=True)
class Batch:
    """A team's jobs, the results that came back, and what the provider and the books say of each; jobs go by their custom_id."""

    jobs: frozenset[str]
    answered_before: frozenset[str]
    results: Mapping[str, list[dict[str, Any]]]
    usage: list[dict[str, Any]]
    calls: Mapping[str, int]
    called_before: frozenset[str]
    attempts: Mapping[str, int]

    @property
    def called_again(self) -> set[str]:
        return {job for job, calls in self.calls.items() if calls > 1}

    @property
    def told_again(self) -> set[str]:
        return {job for job, results in self.results.items() if len(results) > 1}


def custom_ids(tail: Tail) -> frozenset[str]:
    return frozenset(record.json()["custom_id"] for record in tail.records)


async def killed_under_way(system: System, provider: Provider, victim: str) -> Batch:
    """Runs a batch, kills the service when some results have come, and gives what there is when nothing is left to do."""
    team = await system.create_team(f"kill-{victim}")
    jobs = frozenset(prompt() for _ in range(JOBS))
    token, first, pid = await system.job_token(team), await provider.last(), system.pids[victim]

    async def is_back() -> bool:
        return system.pids[victim] != pid

    async with tail_of(system.kafka, f"sluice.results.{team.name}") as tail:
        await publish(system.kafka, "sluice.jobs.batch", [line(job, chat(MODEL, user=job)) for job in jobs], bearer(token))
        await tail.read_until(lambda: len(tail.records) >= BEFORE)
        os.kill(pid, signal.SIGKILL)
        killed_at, answered_before = time.time(), custom_ids(tail)
        await until(is_back)
        await tail.read_until(lambda: custom_ids(tail) >= jobs)
        await system.usage(team.name, JOBS)
        await until(lambda: is_all_done(system.kafka))
        await tail.read_to_end()
    results: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
    for found in (record.json() for record in tail.records):
        results[found["custom_id"]].append(found)
    calls = await provider.entries(after=first)
    called_before = frozenset(call.marker or "" for call in calls if call.at <= killed_at)
    usage, attempts = await booked(system, team)
    called = Counter(call.marker or "" for call in calls)
    batch = Batch(jobs, answered_before, results, usage, called, called_before, attempts)
    print(
        f"{victim} killed with {len(called_before)} called and {len(answered_before)} answered: "
        f"{len(batch.called_again)} called again, {len(batch.told_again)} told again"
    )
    return batch


async def booked(system: System, team: Team) -> tuple[list[dict[str, Any]], Mapping[str, int]]:
    """The usage rows of a team, and how many attempts of each job are on the books."""
    usage = await system.query(f"SELECT job_id, custom_id, status FROM usage WHERE team = '{team.name}'")
    attempts = await system.query(f"SELECT job_id, count() AS n FROM attempts WHERE team = '{team.name}' GROUP BY job_id")
    named = {row["job_id"]: row["custom_id"] for row in usage}
    return usage, {named[row["job_id"]]: row["n"] for row in attempts}


@pytest.mark.parametrize("victim", ["guard", "cache", "router", "accounting"])
async def test_a_killed_service_loses_and_doubles_nothing(processes: System, provider: Provider, victim: str) -> None:
    batch = await killed_under_way(processes, provider, victim)
    assert len(batch.answered_before) < JOBS, "killed too late to tell anything"
    assert batch.results.keys() == batch.jobs
    assert {found["response"]["status_code"] for results in batch.results.values() for found in results} == {200}
    assert Counter(row["custom_id"] for row in batch.usage) == Counter(batch.jobs)
    assert len({row["job_id"] for row in batch.usage}) == JOBS
    assert {row["status"] for row in batch.usage} == {"completed"}
    assert batch.calls.keys() == batch.jobs
    assert batch.told_again == set()
    if victim == "router":
        # Only what was called and not answered when it died may be called again: once, and on the books.
        assert batch.called_again <= batch.called_before - batch.answered_before
        assert max(batch.calls.values()) <= 2
        assert all(calls <= batch.attempts[job] for job, calls in batch.calls.items())
    else:
        assert set(batch.calls.values()) == {1}
        assert batch.attempts == batch.calls
