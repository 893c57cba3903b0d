"""The provider's ledger against the books, to the token and nano-dollar, while accounting and ClickHouse are killed by a seed.

    python -m tests.faults.ledger --jobs 20000 --seed 7 [--away 60] [--save ledger.jsonl]

Jobs of several teams come by HTTP, whole and streamed, and through Kafka. `--away`: instead of all that killing, ClickHouse is
frozen for so long, and accounting's memory is watched.
"""

import argparse
import asyncio
import json
import os
import signal
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from decimal import Decimal
from itertools import cycle
from pathlib import Path
from random import Random
from typing import Any

import httpx
from aiokafka import AIOKafkaProducer

from benchmarks.mock_ledger import Entry
from tests.kafka_client import bearer, is_all_done, line
from tests.system import PROVIDER_KEY, Provider, System, Team, chat, prompt, running_provider, until

NANO = 1_000_000_000
TEAMS = ("red", "green", "blue")
WORDS = "one two three four five six seven eight nine ten eleven twelve"
"""Before each prompt, so that there is something to be cached."""

_AT_ONCE = 32
_FIRST_S, _EVERY_S = 1.5, (1.5, 4.0)
_VICTIMS = ("accounting", "clickhouse")
_PATIENCE_S = 300.0


@dataclass(frozen=True, slots=True)
class Priced:
    """A model: what the provider calls it, and nano-dollars a token that is new, cached, or given."""

    provider_model: str
    fresh: int
    cached: int
    output: int

    def nano(self, line: "Line") -> int:
        return (line.prompt - line.cached) * self.fresh + line.cached * self.cached + line.completion * self.output


MODELS: Mapping[str, Priced] = {
    "small": Priced("mock-words-7", 150, 150, 600),
    "cached": Priced("mock-cached-5", 2_500, 1_250, 10_000),
    "large": Priced("mock-words-40-cached-9", 3_000, 300, 15_000),
    "slow": Priced("mock-latency-50-words-3", 1, 1, 7),
}


@dataclass(slots=True)
class Line:
    """Sums: calls, tokens, nano-dollars."""

    calls: int = 0
    prompt: int = 0
    cached: int = 0
    completion: int = 0
    nano: int = 0

    def add(self, other: "Line") -> None:
        self.calls += other.calls
        self.prompt += other.prompt
        self.cached += other.cached
        self.completion += other.completion
        self.nano += other.nano


Lines = Mapping[tuple[str, str], Line]
"""By team and model."""


@dataclass(frozen=True, slots=True)
class Plan:
    """A run. `away_s`: how long ClickHouse is frozen in its middle."""

    jobs: int
    seed: int
    away_s: float = 0.0
    kills: bool = True


@dataclass(slots=True)
class Verdict:
    """What a run found. `wrong`: what may not be."""

    jobs: int = 0
    seconds: float = 0.0
    caught_up_s: float = 0.0
    killed: Counter[str] = field(default_factory=Counter[str])
    ledger: dict[tuple[str, str], Line] = field(default_factory=dict[tuple[str, str], Line])
    memory_mb: list[float] = field(default_factory=list[float])
    adjusted: int = 0
    completed: int = 0
    wrong: list[str] = field(default_factory=list[str])

    def __str__(self) -> str:
        total = Line()
        for one in self.ledger.values():
            total.add(one)
        memory = f"; accounting took {min(self.memory_mb):.0f} to {max(self.memory_mb):.0f} MB" if self.memory_mb else ""
        return "\n".join(
            (
                f"{self.jobs} jobs in {self.seconds:.0f} s, {dict(self.killed)} killed{memory}.",
                f"Nothing was left to do after another {self.caught_up_s:.1f} s.",
                f"The provider: {total}",
                *(f"  {team:8} {model:8} {one}" for (team, model), one in sorted(self.ledger.items())),
                f"{self.adjusted} counters in Redis were corrected.",
                *(self.wrong or ("ClickHouse and Redis say the same, by team and by model.",)),
            )
        )


def models(provider: Provider) -> list[dict[str, object]]:
    """These models and their prices, as they stand in a sluice.yaml."""

    def usd(nanos: int) -> str:
        return f"{Decimal(nanos).scaleb(-9):f}"

    return [
        {
            "model_name": name,
            "litellm_params": {
                "model": f"mocked/{one.provider_model}",
                "api_base": provider.base_url,
                "api_key": PROVIDER_KEY,
            },
            "model_info": {
                "input_cost_per_token": usd(one.fresh),
                "output_cost_per_token": usd(one.output),
                "cache_read_input_token_cost": usd(one.cached),
            },
        }
        for name, one in MODELS.items()
    ]


class Run:
    """Jobs, kills, and the comparison."""

    def __init__(self, system: System, provider: Provider, plan: Plan) -> None:
        self._system, self._provider, self._plan = system, provider, plan
        self._chance = Random(plan.seed)
        self._teams: dict[str, Team] = {}
        self._verdict = Verdict(plan.jobs)

    async def go(self) -> tuple[Verdict, Sequence[Entry]]:
        """The verdict, and the provider's entries."""
        budget = {"budgets": [{"usd": "1000000", "period": "total"}], "cache": {"enabled": False}}
        for name in TEAMS:
            team = await self._system.create_team_under(name, budget)
            self._teams[team.name] = team
        first, began = await self._provider.last(), time.monotonic()
        striking = [asyncio.create_task(task) for task in self._strikes()]
        try:
            await self._send_all()
        finally:
            for task in striking:
                task.cancel()
            await asyncio.gather(*striking, return_exceptions=True)
        self._verdict.seconds = time.monotonic() - began
        caught_up = time.monotonic()
        await until(lambda: is_all_done(self._system.kafka), _PATIENCE_S)
        self._verdict.caught_up_s = time.monotonic() - caught_up
        entries = [entry for entry in await self._provider.entries(after=first) if entry.marker in self._teams]
        await self._compare(entries)
        return self._verdict, entries

    def _strikes(self) -> list[Any]:
        found: list[Any] = [self._kill()] if self._plan.kills else []
        return [*found, self._freeze(), self._watch()] if self._plan.away_s else found

    async def _kill(self) -> None:
        chance = Random(self._plan.seed + 1)
        await asyncio.sleep(_FIRST_S)
        for name in cycle(chance.sample(_VICTIMS, len(_VICTIMS))):
            with suppress(ProcessLookupError, KeyError):
                os.kill(self._system.pids[name], signal.SIGKILL)
                self._verdict.killed[name] += 1
            await asyncio.sleep(chance.uniform(*_EVERY_S))

    async def _freeze(self) -> None:
        await asyncio.sleep(5)
        pid = self._system.pids["clickhouse"]
        os.kill(pid, signal.SIGSTOP)
        try:
            await asyncio.sleep(self._plan.away_s)
        finally:
            os.kill(pid, signal.SIGCONT)

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(2)
            with suppress(OSError, ValueError):
                self._verdict.memory_mb.append(_resident_mb(self._system.pids["accounting"]))

    async def _send_all(self) -> None:
        producer: Any = AIOKafkaProducer(bootstrap_servers=self._system.kafka, acks="all", enable_idempotence=True)
        await producer.start()
        tokens = {name: await self._system.job_token(team) for name, team in self._teams.items()}
        left = iter(range(self._plan.jobs))
        clients = {name: team.http() for name, team in self._teams.items()}
        for client in clients.values():
            # On a slow machine nobody gives up: a job that is cut has no exact bill.
            client.timeout, client.headers["x-sluice-timeout"] = httpx.Timeout(_PATIENCE_S), f"{_PATIENCE_S:.0f}"

        async def send() -> None:
            for _ in left:
                name, model = self._chance.choice(sorted(self._teams)), self._chance.choice(sorted(MODELS))
                body = chat(model, f"{WORDS} {prompt()}", user=name)
                match self._chance.choice(("whole", "stream", "kafka")):
                    case "kafka":
                        value = line(prompt(), body)
                        await producer.send_and_wait("sluice.jobs.batch", value, headers=list(bearer(tokens[name])))
                    case "stream":
                        await _answered(clients[name], body | {"stream": True})
                    case _:
                        await _answered(clients[name], body)

        try:
            await asyncio.gather(*(send() for _ in range(_AT_ONCE)))
        finally:
            await producer.stop()
            await asyncio.gather(*(client.aclose() for client in clients.values()))

    async def _compare(self, entries: Sequence[Entry]) -> None:
        verdict = self._verdict
        verdict.ledger = summed(entries)
        names = ", ".join(f"'{name}'" for name in self._teams)
        for table, once, counts in (("usage", "job_id", "status = 'completed'"), ("attempts", "attempt_id", "1")):
            rows = await self._system.query(
                f"SELECT team, model, countIf({counts}) AS calls, count() AS rows, uniqExact({once}) AS ids, "
                f"sum(t.prompt_tokens) AS prompt, "
                f"sum(t.cached_tokens) AS cached, sum(t.completion_tokens) AS completion, toString(sum(t.cost_usd)) AS usd "
                f"FROM {table} AS t WHERE team IN ({names}) GROUP BY team, model"
            )
            booked = {
                (str(row["team"]), str(row["model"])): Line(
                    row["calls"], row["prompt"], row["cached"], row["completion"], int(Decimal(row["usd"]) * NANO)
                )
                for row in rows
            }
            verdict.wrong += [f"{table}: {row['rows']} rows of {row['ids']}" for row in rows if row["rows"] != row["ids"]]
            if table == "usage":
                # A job that had to be called twice, on a machine where nothing moves for seconds, is one job.
                verdict.completed = sum(one.calls for one in booked.values())
                booked = {key: replace(one, calls=verdict.ledger[key].calls) for key, one in booked.items()}
            verdict.wrong += differing(table, verdict.ledger, booked)
        if verdict.completed != self._plan.jobs:
            verdict.wrong.append(f"{verdict.completed} of {self._plan.jobs} jobs have been completed")
        verdict.wrong += await self._of_redis(verdict.ledger)
        (adjusted,) = await self._system.query("SELECT count() AS n FROM sluice.adjustments")
        verdict.adjusted = adjusted["n"]

    async def _of_redis(self, ledger: Lines) -> list[str]:
        """What the budgets say was spent; once the reconciliation has had its turn, if one of them was counted twice."""
        seen: dict[str, int] = {}
        expected = defaultdict[str, int](int)
        for (team, _), one in ledger.items():
            expected[team] += one.nano

        async def same() -> bool:
            async with self._system.admin() as admin:
                for name in self._teams:
                    told = (await admin.get("/admin/v1/budgets/explain", params={"team": name})).json()
                    spent, held = (Decimal(str(told["budgets"][0][key])) for key in ("spent_usd", "held_usd"))
                    seen[name] = int(spent * NANO) + int(held * NANO)
            return seen == expected

        try:
            await until(same, 30)
        except AssertionError:
            return [f"Redis: {seen} instead of {dict(expected)} (nano-dollars, with what is held)"]
        return []


def _resident_mb(pid: int) -> float:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE") / 2**20


async def _answered(client: httpx.AsyncClient, body: Mapping[str, object]) -> None:
    """As a client that comes again when it is told to; what was refused was never called, and costs nothing."""
    while (answer := await client.post("/v1/chat/completions", json=body)).status_code != 200:
        if answer.headers.get("x-should-retry") != "true":
            raise AssertionError(f"{answer.status_code}: {answer.text[:300]}")
        await asyncio.sleep(float(answer.headers.get("retry-after", "1")))


def summed(entries: Sequence[Entry]) -> dict[tuple[str, str], Line]:
    """The ledger by team and model."""
    found = defaultdict[tuple[str, str], Line](Line)
    for entry in entries:
        found[entry.marker or "", alias_of(entry)].add(line_of(entry))
    return dict(found)


def line_of(entry: Entry) -> Line:
    """One call, with its price."""
    one = Line(1, entry.prompt_tokens, entry.cached_tokens, entry.completion_tokens)
    one.nano = MODELS[alias_of(entry)].nano(one)
    return one


def alias_of(entry: Entry) -> str:
    return next(name for name, one in MODELS.items() if one.provider_model == entry.model)


def differing(what: str, expected: Lines, found: Lines) -> list[str]:
    """A line for each team and model where the two differ."""
    return [
        f"{what} of {team}, {model}: {found.get((team, model))} instead of {expected.get((team, model))}"
        for team, model in sorted(expected.keys() | found.keys())
        if expected.get((team, model)) != found.get((team, model))
    ]


def save(entries: Sequence[Entry], file: Path) -> None:
    """The ledger as `sluice reconcile` takes it."""
    with file.open("w") as out:
        for entry in entries:
            one = line_of(entry)
            told = {
                "id": entry.id,
                "request_id": entry.request_id,
                "model": entry.model,
                "input_tokens": one.prompt,
                "cached_tokens": one.cached,
                "output_tokens": one.completion,
                "cost_usd": f"{Decimal(one.nano).scaleb(-9):f}",
                "at": entry.at,
                "team": entry.marker,
            }
            out.write(json.dumps(told) + "\n")


async def books(folder: Path, plan: Plan, file: Path | None = None) -> Verdict:
    """Starts a system of its own, runs, and compares; the ledger goes to `file` too, and through `sluice reconcile`."""
    async with running_provider(folder) as provider:
        system = await System.start(folder, json.dumps({"model_list": models(provider)}), "--processes", SLUICE_RECONCILE_S="3")
        try:
            verdict, entries = await Run(system, provider, plan).go()
            doctor = await system.run("doctor", "--books")
            print(doctor.out, flush=True)
            if doctor.status:
                verdict.wrong.append("sluice doctor --books finds something wrong")
            if file:
                await asyncio.to_thread(save, entries, file)
                result = await system.run("reconcile", file)
                print(f"sluice reconcile ended with {result.status}:\n{result.out}{result.err}", flush=True)
            return verdict
        finally:
            await system.stop()


def main() -> None:
    """Prints the verdict; ends with 1 if the books differ."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.ledger", description=__doc__)
    parser.add_argument("--jobs", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=int(time.time()) % 100_000)
    parser.add_argument("--away", type=float, default=0.0, help="seconds for which ClickHouse is frozen")
    parser.add_argument("--save", type=Path, default=None, help="where the provider's ledger goes (JSON lines)")
    parser.add_argument("--folder", type=Path, default=None, help="where everything is kept, logs too")
    asked = parser.parse_args()
    plan = Plan(asked.jobs, asked.seed, asked.away, not asked.away)
    print(plan, flush=True)
    with tempfile.TemporaryDirectory(prefix="sluice-ledger-", ignore_cleanup_errors=True) as folder:
        verdict = asyncio.run(books(asked.folder or Path(folder), plan, asked.save))
    print(verdict)
    sys.exit(bool(verdict.wrong))


if __name__ == "__main__":
    main()
