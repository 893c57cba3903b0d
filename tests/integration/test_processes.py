"""`sluice up --processes`: every service a process of its own, and none of them outlives `up`, however that ends."""

import os
import signal
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from tests.system import Provider, System, Team, config, prompt, until

SERVICES = {"ingress", "guard", "cache", "router", "accounting"}
PARTS = {"kafka", "redis", "clickhouse"}


def descendants(pid: int) -> set[int]:
    """Children of a process, and theirs: those too that endpoints.json doesn't name."""
    lists = (path.read_text().split() for path in Path(f"/proc/{pid}/task").glob("*/children"))
    children = {int(child) for text in lists for child in text}
    return children.union(*map(descendants, children))


def is_alive(pid: int) -> bool:
    """A zombie isn't: nobody may be there to ask for its status."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return status.rpartition(")")[2].split()[0] not in "ZX"


async def ask(team: Team) -> None:
    """An answer and a stream, by OpenAI's SDK."""
    async with team.openai() as client:
        answer = await client.chat.completions.create(model="mock", messages=[{"role": "user", "content": prompt()}])
        assert answer.choices[0].message.content
        stream = await client.chat.completions.create(model="mock", messages=[{"role": "user", "content": prompt()}], stream=True)
        chunks = [chunk async for chunk in stream]
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert chunks[-1].choices[0].finish_reason == "stop"


@asynccontextmanager
async def started(folder: Path, provider: Provider) -> AsyncGenerator[tuple[System, set[int]]]:
    """A system, and all its processes; what is left of them in the end is killed."""
    system = await System.start(folder, config(provider), "--processes")
    everybody = descendants(system.child.pid) | set(system.pids.values())
    try:
        yield system, everybody
    finally:
        await system.child.stop(grace_s=1)
        for pid in filter(is_alive, everybody):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


async def nobody_is_left(everybody: set[int]) -> bool:
    return not any(map(is_alive, everybody))


async def test_each_service_is_a_process_and_sigterm_ends_them_all(tmp_path: Path, provider: Provider) -> None:
    async with started(tmp_path, provider) as (system, everybody):
        pids = system.pids
        assert pids.keys() == {"up", "portal"} | SERVICES | PARTS
        # The admin API stands at the public address.
        assert pids["portal"] == pids["ingress"]
        assert len(set(pids.values())) == len(pids) - 1
        assert pids["up"] == system.child.pid
        assert all(map(is_alive, everybody))
        await ask(await system.create_team("processes"))
        assert await system.stop() == 0, system.log_tail
        assert [name for name, pid in pids.items() if is_alive(pid)] == []
        await until(lambda: nobody_is_left(everybody))


async def test_kill_9_of_up_leaves_nobody_behind(tmp_path: Path, provider: Provider) -> None:
    async with started(tmp_path, provider) as (system, everybody):
        os.kill(system.child.pid, signal.SIGKILL)
        assert await system.child.exited() == -signal.SIGKILL
        await until(lambda: nobody_is_left(everybody))


async def test_after_kill_9_the_same_folder_serves_again_with_its_books(tmp_path: Path, provider: Provider) -> None:
    async with started(tmp_path, provider) as (killed, _):
        team = await killed.create_team("again")
        await ask(team)
        await killed.usage(team.name, 2)
        os.kill(killed.child.pid, signal.SIGKILL)
        await killed.child.exited()
        # At once: who starts it again doesn't wait until the last process of the dead one is gone.
        async with started(tmp_path, provider) as (system, _):
            await ask(Team(team.name, team.key, system.url))
            assert len(await system.usage(team.name, 4)) == 4
            assert await system.stop() == 0, system.log_tail
