"""How many completions a second come into the books: Kafka, accounting, ClickHouse.

    python -m benchmarks.ingest [--jobs 100000] [--runs 3] [--instances 1] [--profile FILE]

The completions are published first, as the router publishes them, over the partitions of `sluice.completions`; then accounting is
started, by its own command in a process of its own, and the time counts from its first row until all stand in `usage`. So the
generator takes nothing from the two cores. Settlement reads the same records meanwhile, and counts them in Redis.
"""

import argparse
import asyncio
import os
import sys
import tempfile
import time
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import cast

from benchmarks.processes import cpu_seconds, memory
from infra.clickhouse.client import ClickHouse, ClickHouseError, open_clickhouse
from infra.clock import new_id, now_ms
from infra.embedded.process import Child, launch
from infra.embedded.stack import Stack
from infra.kafka.envelope import encode
from infra.kafka.log import Outgoing
from infra.platform import Platform, open_platform
from infra.settings import Settings
from schemas.attempt import Attempt
from schemas.completion import Completion
from schemas.ids import attempt_id
from schemas.job import Api, Caller, GuardFinding, JobStatus, Labels, Step, Verdict
from schemas.topics import COMPLETIONS, Lane
from schemas.usage import Usage

ROOT = Path(__file__).parents[1]
TEAMS = 40
USERS = 1000
AT_ONCE = 5_000
PATIENCE_S = 300.0
RAW = '{"prompt_tokens":812,"completion_tokens":143,"total_tokens":955,"prompt_tokens_details":{"cached_tokens":128}}'


def completion(number: int) -> Completion:
    """An answered job as it is most often: one call, looked at by the guard, not found in the cache."""
    at_ms = now_ms()
    job_id, user = new_id("job", at_ms), number % USERS
    team = user % TEAMS
    usage = Usage(
        input_tokens=812, cache_read_tokens=128, output_tokens=143 + number % 100, reasoning_tokens=20, source="provider"
    )
    call = Attempt(
        id=attempt_id(job_id, 1),
        n=1,
        deployment=f"fast-{team % 4}",
        provider="openai",
        provider_model="gpt-5-mini-2025-08-07",
        started_ms=at_ms + 9,
        latency_ms=812.25,
        ttft_ms=212.5,
        status="completed",
        http_status=200,
        usage=usage,
        cost_usd=Decimal("0.000478125"),
        price_version="genai-prices:0.0.30",
        service_tier="default",
        raw_usage=RAW,
    )
    return Completion(
        job_id=job_id,
        status=JobStatus.COMPLETED,
        api=Api.CHAT,
        lane=Lane.INTERACTIVE,
        model="fast",
        caller=Caller(
            organization="acme", team=f"team-{team}", project="p", environment="prod", key_id=f"key_{team}", user=f"u{user}"
        ),
        labels=Labels(feature="chat", segment="gold", metadata={"template": "v7"}),
        policy_version="12",
        accepted_ms=at_ms,
        ended_ms=at_ms + 830,
        ended_by="router",
        attempts=(call,),
        cache="miss",
        cache_key=f"{number:064x}",
        cache_ttl_s=3600,
        verdict=Verdict(verdict="flag", findings=(GuardFinding(kind="email", action="flag", count=1),)),
        queue_ms=9,
        trace_id="4bf92f3577b34da6a3ce929d0e0e4736",
        steps=tuple(Step(stage=stage, at_ms=at_ms + n) for n, stage in enumerate(("guard", "cache", "router"), 2)),
        fingerprint="b1946ac92492d2347c6235b4d2611184",
        route=("fast-1: fewest in flight of 4",),
    )


async def publish(platform: Platform, first: int, jobs: int) -> None:
    def record(number: int) -> Outgoing:
        fact = completion(number)
        return encode(fact, topic=COMPLETIONS.name, key=fact.job_id, event_id=fact.job_id, source="router", now_ms=now_ms())

    for begin in range(first, first + jobs, AT_ONCE):
        sent = [await platform.kafka.send(record(number)) for number in range(begin, min(begin + AT_ONCE, first + jobs))]
        await asyncio.gather(*sent)


async def count(clickhouse: ClickHouse, what: str) -> int:
    try:
        return cast(int, (await clickhouse.query(f"SELECT count() AS n FROM sluice.{what}"))[0]["n"])
    except ClickHouseError:
        return 0


@dataclass(frozen=True, slots=True)
class Spent:
    """CPU seconds of each process up to a moment."""

    seconds: dict[str, float]

    def since(self, before: "Spent", jobs: int) -> str:
        return ", ".join(f"{name} {(s - before.seconds[name]) / max(1, jobs) * 1e6:.0f} µs" for name, s in self.seconds.items())


def spent(pids: dict[str, int]) -> Spent:
    return Spent({name: cpu_seconds(pid) for name, pid in pids.items()})


def accounting(settings: Settings, folder: Path, profile: Path | None, slot: int) -> Child:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("SLUICE_")}
    own = {"SLUICE_KAFKA": settings.kafka, "SLUICE_REDIS": settings.redis, "SLUICE_CLICKHOUSE": settings.clickhouse}
    profiled = ["-m", "cProfile", "-o", str(profile)] if profile else []
    words = [sys.executable, *profiled, "-m", "services.cli", "serve", "accounting", "--port", "0", "--data-dir", str(folder)]
    name = f"accounting-{slot}"
    return Child(name, words, log=folder / f"{name}.log", cwd=ROOT, env=kept | own | {"SLUICE_SLOT": str(slot)})


async def run(
    folder: Path, stack: Stack, platform: Platform, clickhouse: ClickHouse, jobs: int, profile: Path | None, instances: int
) -> None:
    """One run: publish, start accounting, wait, print."""
    before = await count(clickhouse, "usage_log")
    began = time.perf_counter()
    await publish(platform, before, jobs)
    published_s = time.perf_counter() - began
    services = [accounting(platform.settings, folder, profile, slot) for slot in range(instances)]

    async def up() -> bool:
        return await count(clickhouse, "usage_log") > before

    for service in services[1:]:
        await service.start()
    await launch(services[0], up, PATIENCE_S)
    pids = {service.name: service.pid for service in services} | stack.pids
    first, base, cpu = await count(clickhouse, "usage_log"), time.perf_counter(), spent(pids)
    ends = base + PATIENCE_S
    while (rows := await count(clickhouse, "usage_log")) < before + jobs and time.perf_counter() < ends:  # noqa: ASYNC110
        await asyncio.sleep(0.25)  # Counting takes ClickHouse from what it counts.
    took = time.perf_counter() - base
    now = spent(pids)
    done, rss = rows - first, max(memory(service.pid).rss_mb for service in services)
    exact = await count(clickhouse, "usage") == before + jobs
    print(f"{done:,} of {jobs:,} completions in {took:.2f} s: {done / took:,.0f}/s; all in usage: {exact}", flush=True)
    print(
        f"  CPU a completion: {now.since(cpu, done)}; accounting {rss:.0f} MB, published in {published_s:.0f} s",
        flush=True,
    )
    for service in services:
        await service.stop(20)


async def measure(folder: Path, jobs: int, runs: int, profile: Path | None, instances: int) -> None:
    stack = Stack(folder)
    await stack.start()
    try:
        settings = Settings(kafka=stack.kafka, redis=stack.redis, clickhouse=stack.clickhouse, data_dir=folder, slot="0")
        platform = await open_platform(settings, "benchmark")
        clickhouse = await open_clickhouse(settings.clickhouse_url)
        try:
            await run(folder, stack, platform, clickhouse, 1_000, None, 1)  # tables are made, and budgets opened
            for _ in range(runs):
                await run(folder, stack, platform, clickhouse, jobs, profile, instances)
        finally:
            await clickhouse.close()
            await platform.close()
    finally:
        await stack.stop()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=100_000)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--profile", type=Path, help="of accounting, by cProfile; its figures are worthless then")
    parser.add_argument("--instances", type=int, default=1, help="processes of accounting, which share the partitions")
    words = parser.parse_args()
    load = " ".join(f"{one:.1f}" for one in os.getloadavg())
    print(f"{os.cpu_count()} cores, load before {load}", flush=True)
    with tempfile.TemporaryDirectory(prefix="sluice-ingest-") as folder:
        profile, instances = cast("Path | None", words.profile), cast(int, words.instances)
        asyncio.run(measure(Path(folder), cast(int, words.jobs), cast(int, words.runs), profile, instances))


if __name__ == "__main__":
    main()
