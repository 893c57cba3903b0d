"""The measurements of one run, as numbers by name (see `README.md` for what each means)."""

import asyncio
import json
import urllib.request
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from benchmarks.load import Plan, Report, Target, measure
from benchmarks.processes import cpu_by_label, cpu_seconds, labels, memory
from benchmarks.subject import MODEL, Gateway, Running


@dataclass(frozen=True, slots=True)
class Size:
    """How much one run does. `busy_s` is the length of the loaded part; a quiet part of 0 requests is left out."""

    single: int = 500
    streams: int = 200
    connections: int = 64
    busy_s: float = 8.0
    quiet: int = 15
    quiet_pause_s: float = 2.0


@dataclass(slots=True)
class Bench:
    """One gateway and its provider under measurement; `errors` gathers what went wrong in all parts of all runs."""

    gateway: Gateway
    provider: Running
    size: Size
    errors: Counter[str] = field(default_factory=Counter)
    _seed: int = 0

    async def warm_up(self) -> None:
        """Let caches, connection pools and Java's compiler settle; also the direct way."""
        await self._via(Plan(connections=self.size.connections, seconds=min(4.0, self.size.busy_s)))
        await self._via(Plan(requests=self.size.single // 5))
        await self._direct(Plan(requests=self.size.single))

    async def run(self) -> dict[str, float]:
        """All parts once."""
        numbers = {**await self._single(), **await self._streams(), **await self._busy()}
        if self.size.quiet:
            numbers |= await self._quiet()
        return numbers | self._memory()

    async def _single(self) -> dict[str, float]:
        plan = Plan(requests=self.size.single)
        direct, via = await self._direct(plan), await self._via(plan)
        return {
            "direct_p50_ms": direct.latency_ms.p50,
            "via_p50_ms": via.latency_ms.p50,
            "added_p50_ms": via.latency_ms.p50 - direct.latency_ms.p50,
            "added_p95_ms": via.latency_ms.p95 - direct.latency_ms.p95,
            "added_p99_ms": via.latency_ms.p99 - direct.latency_ms.p99,
        }

    async def _streams(self) -> dict[str, float]:
        plan = Plan(requests=self.size.streams, stream=True)
        direct, via = await self._direct(plan), await self._via(plan)
        assert direct.first_token_ms is not None
        assert via.first_token_ms is not None
        return {
            "stream_added_first_token_p50_ms": via.first_token_ms.p50 - direct.first_token_ms.p50,
            "stream_added_whole_p50_ms": via.latency_ms.p50 - direct.latency_ms.p50,
        }

    async def _busy(self) -> dict[str, float]:
        labelled = labels(self.gateway.pid, self.gateway.pids())
        called, before, provider = self._provider_calls(), cpu_by_label(labelled), cpu_seconds(self.provider.pid)
        report = await self._via(Plan(connections=self.size.connections, seconds=self.size.busy_s))
        after = cpu_by_label(labelled)
        micro = 1e6 / max(1, report.requests)
        costs = {f"cpu_us/{label}": (after[label] - before[label]) * micro for label in after}
        return {
            "busy_rps": report.rps,
            "busy_p50_ms": report.latency_ms.p50,
            "busy_p95_ms": report.latency_ms.p95,
            "busy_p99_ms": report.latency_ms.p99,
            "provider_calls_per_answer": (self._provider_calls() - called) / max(1, report.ok),
            **costs,
            "cpu_us/all of sluice": sum(costs.values()),
            "cpu_us/(mock provider)": (cpu_seconds(self.provider.pid) - provider) * micro,
            "cpu_us/(generator)": report.generator_cpu_us,
        }

    async def _quiet(self) -> dict[str, float]:
        plan = Plan(requests=self.size.quiet, pause_s=self.size.quiet_pause_s)
        labelled = labels(self.gateway.pid, self.gateway.pids())
        before = cpu_by_label(labelled)
        # Both ways are asked in turn, so that the provider and this machine's clocks are as sleepy for both.
        asked = asyncio.create_task(self._via(plan))
        await asyncio.sleep(self.size.quiet_pause_s / 2)
        direct = await self._direct(plan)
        via = await asked
        after = cpu_by_label(labelled)
        spent = sum(after.values()) - sum(before.values())
        return {
            "quiet_added_p50_ms": via.latency_ms.p50 - direct.latency_ms.p50,
            "quiet_added_max_ms": via.latency_ms.max - direct.latency_ms.p50,
            "quiet_cpu_percent": 100 * spent / (via.wall_s + self.size.quiet_pause_s / 2),
        }

    def _memory(self) -> dict[str, float]:
        sizes = {label: memory(pid) for pid, label in labels(self.gateway.pid, self.gateway.pids()).items()}
        return {
            **{f"pss_mb/{label}": size.pss_mb for label, size in sizes.items()},
            "pss_mb/all of sluice": sum(size.pss_mb for size in sizes.values()),
            **{f"rss_mb/{label}": size.rss_mb for label, size in sizes.items()},
        }

    async def _direct(self, plan: Plan) -> Report:
        return self._noted("direct", await measure(Target(self.provider.url, model=MODEL), self._fresh(plan)))

    async def _via(self, plan: Plan) -> Report:
        target = Target(self.gateway.url, self.gateway.key, MODEL)
        return self._noted("via sluice", await measure(target, self._fresh(plan)))

    def _fresh(self, plan: Plan) -> Plan:
        self._seed += 1
        return replace(plan, seed=self._seed)

    def _noted(self, way: str, report: Report) -> Report:
        self.errors.update({f"{way}: {reason}": count for reason, count in report.errors.items()})
        return report

    def _provider_calls(self) -> int:
        address = f"{self.provider.url.removesuffix('/v1')}/ledger/summary"
        with urllib.request.urlopen(address, timeout=10) as answer:
            summary: Mapping[str, object] = json.load(answer)
        return int(str(summary["requests"]))
