"""A service dies by kill -9 in the middle of a batch: nothing is lost, nothing comes twice, and the bill adds up."""

import os
import signal
import time
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.faults.ledger import Plan, Run
from tests.kafka_client import Tail, bearer, is_all_done, line, publish, tail_of
from tests.system import Provider, System, Team, chat, config, prompt, until

JOBS = 500
BEFORE = 25
"""So many results have come when the service dies."""
MODEL = "mock-latency-50"
LEDGER_JOBS = 600
"""`python -m tests.faults.ledger` takes 20,000."""


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


async def service_killed(system: System, provider: Provider, victim: str) -> Batch:
    """A batch during which one service is killed; `up` starts it again."""
    pid = system.pids[victim]

    async def is_back() -> bool:
        return system.pids[victim] != pid

    async def back() -> System:
        await until(is_back)
        return system

    return await killed_under_way(system, provider, f"kill-{victim}", pid, back)


async def killed_under_way(
    system: System, provider: Provider, name: str, pid: int, back: Callable[[], Awaitable[System]]
) -> Batch:
    """Runs a batch, kills when some results have come, and gives what there is when nothing is left to do."""
    team = await system.create_team(name)
    jobs, topic = frozenset(prompt() for _ in range(JOBS)), f"sluice.results.{team.name}"
    token, first = await system.job_token(team), await provider.last()
    async with tail_of(system.kafka, topic) as tail:
        await publish(system.kafka, "sluice.jobs.batch", [line(job, chat(MODEL, user=job)) for job in jobs], bearer(token))
        await tail.read_until(lambda: len(tail.records) >= BEFORE)
        os.kill(pid, signal.SIGKILL)
        killed_at, answered_before = time.time(), custom_ids(tail)
    system = await back()
    async with tail_of(system.kafka, topic) as tail:
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
        f"{name} with {len(called_before)} called and {len(answered_before)} answered: "
        f"{len(batch.called_again)} called again, {len(batch.told_again)} told again"
    )
    return batch


async def booked(system: System, team: Team) -> tuple[list[dict[str, Any]], Mapping[str, int]]:
    """The usage rows of a team, and how many attempts of each job are on the books."""
    usage = await system.query(f"SELECT job_id, custom_id, status FROM usage WHERE team = '{team.name}'")
    attempts = await system.query(f"SELECT job_id, count() AS n FROM attempts WHERE team = '{team.name}' GROUP BY job_id")
    named = {row["job_id"]: row["custom_id"] for row in usage}
    return usage, {named[row["job_id"]]: row["n"] for row in attempts}


def assert_nothing_lost_or_doubled(batch: Batch) -> None:
    assert len(batch.answered_before) < JOBS, "killed too late to tell anything"
    assert batch.results.keys() == batch.jobs
    assert batch.told_again == set()
    assert {found["response"]["status_code"] for results in batch.results.values() for found in results} == {200}
    assert Counter(row["custom_id"] for row in batch.usage) == Counter(batch.jobs)
    assert len({row["job_id"] for row in batch.usage}) == JOBS
    assert {row["status"] for row in batch.usage} == {"completed"}
    assert batch.calls.keys() == batch.jobs


def assert_only_lost_calls_were_made_again(batch: Batch) -> None:
    """Only what was called and not answered at the kill may be called again: once, and on the books."""
    assert batch.called_again <= batch.called_before - batch.answered_before
    assert max(batch.calls.values()) <= 2
    assert all(calls <= batch.attempts[job] for job, calls in batch.calls.items())


@pytest.mark.parametrize("victim", ["guard", "cache"])
async def test_a_killed_service_loses_and_doubles_nothing(processes: System, provider: Provider, victim: str) -> None:
    batch = await service_killed(processes, provider, victim)
    assert_nothing_lost_or_doubled(batch)
    assert set(batch.calls.values()) == {1}
    assert batch.attempts == batch.calls


async def test_the_books_equal_the_providers_ledger_while_accounting_and_clickhouse_are_killed(
    processes: System, provider: Provider
) -> None:
    verdict, _ = await Run(processes, provider, Plan(LEDGER_JOBS, seed=1)).go()
    print(verdict)
    assert verdict.killed.keys() == {"accounting", "clickhouse"}
    assert verdict.wrong == []


async def test_a_killed_router_loses_and_doubles_nothing_but_the_calls_that_died_with_it(
    processes: System, provider: Provider
) -> None:
    batch = await service_killed(processes, provider, "router")
    assert_nothing_lost_or_doubled(batch)
    assert_only_lost_calls_were_made_again(batch)


async def test_everything_killed_at_once_in_one_process_loses_and_doubles_nothing(tmp_path: Path, provider: Provider) -> None:
    started = [await System.start(tmp_path, config(provider))]
    child = started[0].child

    async def back() -> System:
        await child.exited()
        started.append(await System.start(tmp_path, config(provider)))
        return started[-1]

    try:
        batch = await killed_under_way(started[0], provider, "kill-all", child.pid, back)
    finally:
        for system in started:
            await system.stop()
    assert_nothing_lost_or_doubled(batch)
    assert_only_lost_calls_were_made_again(batch)
