"""The whole system as its users meet it: started by its own commands, spoken to over HTTP, Kafka and the command line.

Nothing here knows how Sluice works inside; that's the point of the tests which use it.
"""

import asyncio
import json
import os
import sys
import time
import uuid
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, Self, TypeVar, cast

import httpx
from openai import AsyncOpenAI

from benchmarks.mock_ledger import Entry
from infra.embedded.process import Child, launch, tail
from tests import commands

T = TypeVar("T")

ROOT = Path(__file__).parents[1]
SLUICE = Path(sys.executable).with_name("sluice")

INPUT_USD, OUTPUT_USD = Decimal("0.000001"), Decimal("0.000002")
"""Price a token of every model that the mock provider serves."""

PROVIDER_KEY = "sk-provider-9f2c"
ITSM_SECRET = b"w" * 32
"""Of the inbound hook of the system that the suites share."""
MOCK_MODELS = (
    "mock",
    "mock-400",
    "mock-401",
    "mock-500",
    "mock-500-often",
    "mock-503",
    "mock-429-retry-7",
    "mock-cut",
    "mock-garbage",
    "mock-nousage",
    "mock-latency-50",
    "mock-latency-1500",
    "mock-latency-5000",
    "mock-words-200-chunkms-50",
)
ENDS = (datetime.now(UTC) + timedelta(days=20)).date()
"""When the model `ending` is shut down."""
START_S = 120.0
_LETTERS = str.maketrans("0123456789", "ghijklmnop")
ANSWER_S = 30.0


async def until(condition: Callable[[], Awaitable[T | None]], timeout_s: float = ANSWER_S) -> T:
    """Waits for `condition` to give something that is true, and gives it. Fails after `timeout_s`."""
    ends = time.monotonic() + timeout_s
    while not (found := await condition()):
        if time.monotonic() > ends:
            raise AssertionError(f"not within {timeout_s:g} s; at last it was {found!r}")
        await asyncio.sleep(0.05)
    return found


def environment(**more: str) -> dict[str, str]:
    """The environment without what would lead our commands to another system, or to a real provider."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("SLUICE_", "OPENAI_"))}
    return kept | more


class Provider:
    """The mock provider, a process of its own, and its ledger."""

    def __init__(self, base_url: str) -> None:
        self.base_url = base_url
        self._http = httpx.AsyncClient(base_url=base_url, trust_env=False, timeout=30)

    async def entries(self, *, model: str | None = None, marker: str | None = None, after: int = 0) -> list[Entry]:
        """The calls that arrived, oldest first. `marker`: the body's `user`, else the `x-request-id`: an attempt's id."""
        found = (await self._http.get("/ledger", params={"after": after, "limit": 100_000})).json()
        entries = [Entry(**entry) for entry in found]
        return [e for e in entries if model in (None, e.model) and marker in (None, e.marker)]

    async def last(self) -> int:
        """The number of the latest call, to read on from."""
        return max((entry.seq for entry in await self.entries()), default=0)

    async def close(self) -> None:
        await self._http.aclose()


@asynccontextmanager
async def running_provider(folder: Path) -> AsyncGenerator[Provider]:
    """Starts the mock provider and gives it."""
    log = folder / "provider.log"
    child = Child("provider", [sys.executable, "-m", "benchmarks.mock_provider"], log=log, cwd=ROOT, env=environment())
    await launch(child, lambda: _says_ready(log), START_S)
    provider = Provider(ready_url(log))
    try:
        yield provider
    finally:
        await provider.close()
        await child.stop()


@dataclass(frozen=True, slots=True)
class Team:
    """A team, with a virtual key."""

    name: str
    key: str
    url: str

    def openai(self, **options: Any) -> AsyncOpenAI:
        """OpenAI's own SDK, as it is; it doesn't retry unless asked to."""
        settings: dict[str, Any] = {"base_url": f"{self.url}/v1", "api_key": self.key, "max_retries": 0, "timeout": 60}
        return AsyncOpenAI(**(settings | options))

    def http(self) -> httpx.AsyncClient:
        """A plain client that sends the team's key, and as many requests at once as it is asked to."""
        headers, limits = {"authorization": f"Bearer {self.key}"}, httpx.Limits(max_connections=None)
        return httpx.AsyncClient(base_url=self.url, headers=headers, limits=limits, trust_env=False, timeout=60)


@dataclass(frozen=True, slots=True)
class Result:
    """What a command said."""

    status: int
    out: str
    err: str


class System:
    """A running Sluice, and its commands."""

    def __init__(self, child: Child, data_dir: Path, log: Path, url: str) -> None:
        self.child = child
        self.data_dir = data_dir
        self.url = url
        self._log = log

    @property
    def endpoints(self) -> Mapping[str, str]:
        """Addresses of the parts, by name."""
        return cast("Mapping[str, str]", self._endpoints())

    @property
    def pids(self) -> dict[str, int]:
        """Service or part → process id, as of now."""
        return cast("dict[str, int]", self._endpoints()["pids"])

    @property
    def kafka(self) -> str:
        return self.endpoints["kafka"]

    @property
    def admin_key(self) -> str:
        return (self.data_dir / "admin.key").read_text().strip()

    @property
    def log_tail(self) -> str:
        return tail(self._log)

    async def run(self, *words: str | Path, timeout_s: float = 120, **variables: str) -> Result:
        """Runs `sluice WORDS… --data-dir …`, with these variables in its environment."""
        line = [*map(str, words), "--data-dir", str(self.data_dir)]
        try:
            status, out, err = await commands.run(line, environment(**variables), timeout_s)
        except TimeoutError:
            raise AssertionError(f"sluice {' '.join(line)} did not end within {timeout_s:g} s") from None
        return Result(status, out.decode(), err.decode())

    async def json(self, *words: str | Path) -> Any:
        """What a command prints with `--json`. Money comes as Decimal."""
        result = await self.run(*words, "--json")
        assert result.status == 0, result.err
        return json.loads(result.out, parse_float=Decimal)

    async def sql(self, query: str) -> list[dict[str, Any]]:
        """The rows of a query."""
        return cast("list[dict[str, Any]]", await self.json("sql", query))

    async def query(self, query: str) -> list[dict[str, Any]]:
        """The same, asked over ClickHouse's own interface: quicker, for who asks again and again."""
        params = {"database": "sluice", "default_format": "JSON", "output_format_json_quote_64bit_integers": "0"}
        async with httpx.AsyncClient(base_url=self.endpoints["clickhouse"], trust_env=False, timeout=30) as client:
            answer = await client.post("/", params=params, content=query)
        assert answer.status_code == 200, answer.text
        return cast("list[dict[str, Any]]", json.loads(answer.text, parse_float=Decimal)["data"])

    async def usage(self, team: str, rows: int, timeout_s: float = ANSWER_S) -> list[dict[str, Any]]:
        """The usage rows of a team, oldest first, once there are `rows` of them (or more)."""
        where = f"FROM usage WHERE team = '{team}'"

        async def enough() -> bool:
            return int((await self.query(f"SELECT count() AS rows {where}"))[0]["rows"]) >= rows

        assert await until(enough, timeout_s)
        return await self.query(f"SELECT * {where} ORDER BY job_id")

    async def job(self, job_id: str) -> dict[str, Any]:
        """The usage row of one job."""
        return (await until(lambda: self.query(f"SELECT * FROM usage WHERE job_id = '{job_id}'")))[0]

    async def attempts(self, job_id: str) -> list[dict[str, Any]]:
        """The attempts of one job, the first first."""
        return await self.query(f"SELECT * FROM attempts WHERE job_id = '{job_id}' ORDER BY n")

    async def create_team(self, name: str, *options: str) -> Team:
        """A new team and a key; the name gets an ending that is its own. With options it is made by the command line, which takes
        a second of CPU."""
        if not options:
            return await self.create_team_under(name, {})
        name = f"{name}-{uuid.uuid4().hex[:6]}"
        await self.json("teams", "create", name, *options)
        key = await self.json("keys", "create", "--team", name)
        return Team(name, key["key"], self.url)

    async def create_team_under(self, name: str, policy: Mapping[str, object]) -> Team:
        """A new team under a policy of its own, and a key, made by the admin API."""
        name = f"{name}-{uuid.uuid4().hex[:6]}"
        async with self.admin() as admin:
            made = await admin.post("/admin/v1/teams", json={"name": name, "policy": policy})
            assert made.status_code == 201, made.text
            key = await admin.post("/admin/v1/keys", json={"team": name})
        return Team(name, key.json()["key"], self.url)

    async def job_token(self, team: Team) -> str:
        async with self.admin() as admin:
            minted = await admin.post("/admin/v1/job_tokens", json={"team": team.name})
        assert minted.status_code == 201, minted.text
        return str(minted.json()["token"])

    def admin(self) -> httpx.AsyncClient:
        """A plain client that sends the admin key."""
        headers = {"authorization": f"Bearer {self.admin_key}"}
        return httpx.AsyncClient(base_url=self.url, headers=headers, trust_env=False, timeout=30)

    @classmethod
    async def start(cls, data_dir: Path, config: str, *options: str, **variables: str) -> Self:
        """`sluice up` with a configuration, and these variables in its environment; returns after its ready line."""
        file, log = data_dir / "sluice.yaml", data_dir / "up.log"
        file.write_text(config)
        # What an earlier run said would be taken for this one's.
        await asyncio.to_thread(log.unlink, missing_ok=True)
        words = ["up", "--data-dir", data_dir, "--port", "0", "--config", file, *options]
        child = Child("sluice up", [SLUICE, *words], log=log, cwd=data_dir, env=environment(**variables))
        await launch(child, lambda: _says_ready(log), START_S)
        return cls(child, data_dir, log, ready_url(log))

    async def stop(self) -> int:
        """SIGTERM; gives the exit status."""
        await self.child.stop(grace_s=60)
        return await self.child.exited()

    def _endpoints(self) -> dict[str, object]:
        return cast("dict[str, object]", json.loads((self.data_dir / "endpoints.json").read_text()))


def config(provider: Provider, recorder_url: str = "") -> str:
    """A sluice.yaml: the mock provider's models, the recorder as `recorded`, `echo`, `minilm`, one that ends soon, and one that
    moderates where no model is named."""
    price = {"input_cost_per_token": str(INPUT_USD), "output_cost_per_token": str(OUTPUT_USD)}

    def remote(name: str, base_url: str) -> dict[str, object]:
        params = {"model": f"mocked/{name}", "api_base": base_url, "api_key": PROVIDER_KEY}
        return {"model_name": name, "litellm_params": params, "model_info": {"id": f"{name}@mocked", **price}}

    models = [
        *(remote(name, provider.base_url) for name in MOCK_MODELS),
        *([remote("recorded", recorder_url)] if recorder_url else []),
        {"model_name": "echo", "litellm_params": {"model": "echo/echo"}},
        {"model_name": "minilm", "litellm_params": {"model": "local/all-MiniLM-L6-v2"}},
        {
            "model_name": "ending",
            "litellm_params": {"model": "echo/ending"},
            "model_info": {"id": "ending@echo", "shutdown_date": ENDS.isoformat()},
        },
        {"model_name": "omni-moderation-latest", "litellm_params": {"model": "echo/omni"}},
    ]
    # JSON is YAML too.
    return json.dumps({"model_list": models}, indent=1)


def cost_usd(prompt_tokens: int, completion_tokens: int) -> Decimal:
    """What the mock's models cost."""
    return prompt_tokens * INPUT_USD + completion_tokens * OUTPUT_USD


def prompt(about: str = "") -> str:
    """A prompt that nobody has sent before, so that no cache knows it. Without digits, in which a guard might see something."""
    return f"{about} {uuid.uuid4().hex.translate(_LETTERS)}".strip()


def chat(model: str, text: str | None = None, **more: object) -> dict[str, object]:
    """The body of a chat request."""
    return {"model": model, "messages": [{"role": "user", "content": text or prompt()}], **more}


async def _says_ready(log: Path) -> bool:
    return bool(ready_url(log))


def ready_url(log: Path) -> str:
    """The URL in the ready line of one of our commands; empty as long as there is none."""
    lines = log.read_text().splitlines() if log.exists() else []
    return next((line.split()[1] for line in lines if line.startswith("ready ")), "")
