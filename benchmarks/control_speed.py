"""How soon a change of a key, a budget or a policy is in force, at two instances of the ingress.

    python -m benchmarks.control_speed [--rounds 20] [--one-process]

Each round has a team of its own, and asks for it at both instances, one request after another. The time counts from the answer
of the admin API, which stands at the first instance, to the first refusal at each. Meanwhile another team asks at both, ten times
a second. The provider, Sluice and this program share the machine.
"""

import argparse
import asyncio
import json
import math
import os
import tempfile
import time
import uuid
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks.subject import MODEL, Gateway, gateway, mock_provider
from infra.embedded.process import Child, launch

CHAT = "/v1/chat/completions"
BAR_MS = 1000.0
_LIGHT_S = 0.1
_PATIENCE_S = 30.0
_SLUICE = Path(__file__).parents[1] / ".venv" / "bin" / "sluice"


@dataclass(frozen=True, slots=True)
class Change:
    """Something that an administrator does to a team or its key, and how it shows."""

    name: str
    method: str
    path: str
    body: Mapping[str, object] | None
    status: int
    code: str

    def request(self, team: str, key_id: str) -> tuple[str, dict[str, object] | None]:
        """Path and body, for this team and key."""
        path = self.path.format(team=team, key=key_id)
        return path, json.loads(json.dumps(self.body).replace("{team}", team)) if self.body is not None else None


CHANGES: Sequence[Change] = (
    Change("revocation", "DELETE", "/admin/v1/keys/{key}", None, 401, "invalid_api_key"),
    Change("budget", "PUT", "/admin/v1/budgets", {"scope": {"team": "{team}"}, "tokens": 0}, 429, "budget_exceeded"),
    Change("policy", "PATCH", "/admin/v1/teams/{team}", {"policy": {"models": ["none"]}}, 403, "model_not_allowed"),
)


class NotInForce(Exception):
    """A change was not in force in time, or a request fared otherwise than it should."""


async def play(change: Change, urls: Sequence[str], admin: httpx.AsyncClient) -> list[float]:
    """One round: milliseconds from the answer to the change until the first refusal, of each instance. Raises NotInForce."""
    team = f"speed-{uuid.uuid4().hex[:8]}"
    _checked(await admin.post("/admin/v1/teams", json={"name": team}), 201)
    made = _checked(await admin.post("/admin/v1/keys", json={"team": team}), 201)
    served = [asyncio.Event() for _ in urls]
    async with asyncio.TaskGroup() as group:
        asking = [
            group.create_task(_until_refused(url, made["key"], change, event)) for url, event in zip(urls, served, strict=True)
        ]
        await asyncio.gather(*(event.wait() for event in served))
        path, body = change.request(team, made["id"])
        _checked(await admin.request(change.method, path, json=body), 200)
        answered = time.perf_counter()
    return [max(0.0, task.result() - answered) * 1000 for task in asking]


async def _until_refused(url: str, key: str, change: Change, served: asyncio.Event) -> float:
    """When (perf_counter) the first refusal came; `served` is set at the first answer."""
    ends = time.perf_counter() + _PATIENCE_S
    async with _client(url, key) as client:
        while time.perf_counter() < ends:
            answer = await client.post(CHAT, json=_body())
            came = time.perf_counter()
            if answer.status_code == 200:
                served.set()
            elif served.is_set() and (answer.status_code, answer.json()["error"]["code"]) == (change.status, change.code):
                await _stays_refused(client, change)
                return came
            elif served.is_set() or answer.status_code != 401:
                # A new key may not be known everywhere yet.
                raise NotInForce(f"{change.name} at {url}: {answer.status_code} {answer.text[:200]}")
    raise NotInForce(f"{change.name} was not in force at {url} within {_PATIENCE_S:g} s")


async def _stays_refused(client: httpx.AsyncClient, change: Change) -> None:
    for _ in range(3):
        answer = await client.post(CHAT, json=_body())
        if answer.status_code != change.status:
            raise NotInForce(f"{change.name} was in force, and then a request had {answer.status_code}")


@asynccontextmanager
async def light_load(urls: Sequence[str], key: str) -> AsyncGenerator[None]:
    """Ten requests a second at each instance, as long as the block lasts."""

    async def go_on(url: str) -> None:
        async with _client(url, key) as client:
            while True:
                await asyncio.gather(client.post(CHAT, json=_body()), asyncio.sleep(_LIGHT_S))

    tasks = [asyncio.create_task(go_on(url)) for url in urls]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@asynccontextmanager
async def another_ingress(running: Gateway) -> AsyncGenerator[str]:
    """A second instance beside the one of `sluice up`; gives its URL."""
    endpoints = json.loads((running.data_dir / "endpoints.json").read_text())
    places = {f"SLUICE_{name.upper()}": str(endpoints[name]) for name in ("kafka", "redis", "clickhouse")}
    log = running.data_dir / "another.log"
    words: list[str | Path] = [_SLUICE, "serve", "ingress", "--data-dir", running.data_dir, "--port", "0"]
    child = Child("another ingress", words, log=log, cwd=running.data_dir, env={**os.environ, **places, "SLUICE_SLOT": "1"})

    def url() -> str:
        lines = log.read_text().splitlines() if log.exists() else []
        return next((line.split()[1] for line in lines if line.startswith("ready ")), "")

    async def ready() -> bool:
        return bool(url())

    await launch(child, ready, 60)
    try:
        yield url()
    finally:
        await child.stop()


def admin_client(url: str, data_dir: Path) -> httpx.AsyncClient:
    """A client of the admin API."""
    return _client(url, (data_dir / "admin.key").read_text().strip())


def _client(url: str, key: str) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=url, headers={"authorization": f"Bearer {key}"}, trust_env=False, timeout=30)


def _body() -> dict[str, object]:
    return {"model": MODEL, "max_tokens": 12, "messages": [{"role": "user", "content": uuid.uuid4().hex}]}


def _checked(answer: httpx.Response, status: int) -> dict[str, str]:
    if answer.status_code != status:
        raise NotInForce(f"{answer.request.method} {answer.request.url}: {answer.status_code} {answer.text[:200]}")
    return answer.json()


async def measure(rounds: int, *, processes: bool) -> dict[str, list[list[float]]]:
    """Of each change the milliseconds of each round, at each instance."""
    found: dict[str, list[list[float]]] = {change.name: [] for change in CHANGES}
    with tempfile.TemporaryDirectory(prefix="sluice-speed-") as folder:
        async with (
            mock_provider(Path(folder)) as provider,
            gateway(_SLUICE, Path(folder), provider.url, processes=processes) as running,
            another_ingress(running) as there,
        ):
            urls = [running.url.removesuffix("/v1"), there]
            async with admin_client(urls[0], running.data_dir) as admin, light_load(urls, running.key):
                for _ in track(range(rounds), "rounds", console=Console(stderr=True)):
                    for change in CHANGES:
                        found[change.name].append(await play(change, urls, admin))
    return found


def quantile(values: Sequence[float], percent: int) -> float:
    """By nearest rank."""
    return sorted(values)[max(0, math.ceil(len(values) * percent / 100) - 1)]


def table(found: Mapping[str, Sequence[Sequence[float]]]) -> Table:
    """p50, p99 and the longest, in milliseconds."""
    rounds = len(next(iter(found.values())))
    shown = Table(title=f"from the admin API's answer to the first refusal (ms), {rounds} rounds")
    for column in ("change", "instance", "p50", "p99", "max", "within the bar"):
        shown.add_column(column, justify="right" if column in ("p50", "p99", "max") else "left")
    for name, values in found.items():
        for place, instance in enumerate(("the admin's own", "the other")):
            times = [one[place] for one in values]
            within = "yes" if max(times) < BAR_MS else f"NO: {BAR_MS:.0f}"
            shown.add_row(name, instance, f"{quantile(times, 50):.1f}", f"{quantile(times, 99):.1f}", f"{max(times):.1f}", within)
    return shown


def main() -> None:
    """Measures and prints a table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.control_speed", description=__doc__)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--one-process", action="store_true", help="all services of the first instance in one process")
    given = parser.parse_args()
    Console().print(table(asyncio.run(measure(given.rounds, processes=not given.one_process))))


if __name__ == "__main__":
    main()
