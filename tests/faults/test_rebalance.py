"""Routers come and go while they call a slow provider: every caller gets his answer, and nobody is called for twice."""

import asyncio
import re
import time
from collections import Counter
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import product

import httpx

from infra.embedded.process import Child
from tests.faults.another import another_service
from tests.system import Provider, System, chat, prompt, until

CALLS, WAVE = 200, 50
LANES = ("interactive", "batch")
SLOW, QUICK = "mock-latency-5000", "mock"
TEAMS = 4
"""Each owns some of the partitions."""
CHAT = "/v1/chat/completions"


class Router:
    """A router more, started by hand beside those of `sluice up`."""

    def __init__(self, child: Child, url: str) -> None:
        self.child = child
        self._url = url

    async def is_busy(self) -> bool:
        """Whether it is at work on something."""
        async with httpx.AsyncClient(base_url=self._url, trust_env=False) as client:
            metrics = (await client.get("/metrics")).text
        return any(float(value) > 0 for value in re.findall(r'^sluice_stage_busy{stage="router"} (\S+)$', metrics, re.M))


@asynccontextmanager
async def another_router(system: System, slot: str) -> AsyncGenerator[Router]:
    """A router beside those of a running system; it is there when it is ready."""
    async with another_service(system, "router", slot) as (child, url):
        yield Router(child, url)


class Slow:
    """Calls that take the provider seconds, each with a marker of its own."""

    def __init__(self, provider: Provider, clients: Sequence[httpx.AsyncClient], tasks: asyncio.TaskGroup) -> None:
        self._provider, self._clients, self._tasks = provider, clients, tasks
        self.asked: dict[str, asyncio.Task[httpx.Response]] = {}

    def ask(self, count: int) -> None:
        for n in range(count):
            marker, client, headers = prompt(), self._clients[n // 2 % len(self._clients)], {"x-sluice-lane": LANES[n % 2]}
            call = client.post(CHAT, json=chat(SLOW, user=marker), headers=headers)
            self.asked[marker] = self._tasks.create_task(call)

    async def calls(self) -> Counter[str]:
        """How often the provider was called for each."""
        called = Counter(entry.marker or "" for entry in await self._provider.entries(model=SLOW))
        return Counter({marker: called[marker] for marker in self.asked if called[marker]})

    async def are_called(self) -> bool:
        return len(await self.calls()) == len(self.asked)


class Quick:
    """One small request after the other, of each team and in each lane, and how long each took, by what went on meanwhile."""

    def __init__(self, clients: Sequence[httpx.AsyncClient]) -> None:
        self._clients = clients
        self.meanwhile = "start"
        self.seconds: dict[str, list[float]] = {}
        self.statuses: Counter[int] = Counter()
        self.enough = False

    async def go_on(self) -> None:
        """Until it is enough; whatever was asked is answered then."""
        while not self.enough:
            for client, lane in product(self._clients, LANES):
                meanwhile, began = self.meanwhile, time.monotonic()
                answer = await client.post(CHAT, json=chat(QUICK), headers={"x-sluice-lane": lane})
                self.seconds.setdefault(meanwhile, []).append(time.monotonic() - began)
                self.statuses[answer.status_code] += 1

    def __str__(self) -> str:
        return "; ".join(f"{name}: {len(took)} requests, slowest {max(took):.2f} s" for name, took in self.seconds.items())


@asynccontextmanager
async def asked_meanwhile(clients: Sequence[httpx.AsyncClient]) -> AsyncGenerator[Quick]:
    """Small requests, one after the other, as long as this goes on."""
    quick = Quick(clients)
    asking = asyncio.create_task(quick.go_on())
    try:
        yield quick
        quick.enough = True
        await asking
    finally:
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        print(quick)


async def test_routers_come_and_go_and_each_call_is_made_once(processes: System, provider: Provider) -> None:
    async with AsyncExitStack() as opened, asyncio.TaskGroup() as tasks:
        teams = [await processes.create_team_under("rebalance", {}) for _ in range(TEAMS)]
        clients = [await opened.enter_async_context(team.http()) for team in teams]
        slow = Slow(provider, clients, tasks)
        async with asked_meanwhile(clients) as quick:
            slow.ask(WAVE)
            await until(slow.are_called)
            quick.meanwhile = "a router joins"
            slow.ask(WAVE)
            async with another_router(processes, "1") as router:
                quick.meanwhile = "two routers"
                slow.ask(CALLS - 2 * WAVE)
                await until(slow.are_called)
                assert await until(router.is_busy)
                quick.meanwhile = "a router leaves"
                await router.child.stop(grace_s=60)
                assert await router.child.exited() == 0
            quick.meanwhile = "one router"
            answers = [await answer for answer in slow.asked.values()]
    assert Counter(answer.status_code for answer in answers) == {200: CALLS}
    assert await slow.calls() == Counter(slow.asked.keys())
    assert quick.statuses.keys() == {200}
