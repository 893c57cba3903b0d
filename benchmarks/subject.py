"""The two systems a benchmark runs: the mock provider, and Sluice in front of it; each in processes of its own."""

import asyncio
import contextlib
import os
import re
import signal
import socket
import sys
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml
from pydantic import BaseModel

from benchmarks.processes import descendants

MODEL = "mock"
_START_S = 180.0
_STOP_S = 45.0
_URL = re.compile(r"http://[\w.:/-]*\w")
_ROOT = Path(__file__).parents[1]


class StartError(Exception):
    """A system did not start, or a command failed; the message holds the end of its output."""


class _Key(BaseModel):
    id: str
    key: str


class _Endpoints(BaseModel):
    http: str
    pids: dict[str, int]


@dataclass(frozen=True, slots=True)
class Running:
    """A started system: the URL on its ready line, and the process that was started."""

    url: str
    pid: int


@dataclass(frozen=True, slots=True)
class Gateway:
    """Sluice, ready to be asked: `url` ends in `/v1`; `key` is a virtual key of a team of its own."""

    url: str
    key: str
    pid: int
    data_dir: Path

    def pids(self) -> dict[str, int]:
        """Service or part to process id, as Sluice writes them down."""
        return _Endpoints.model_validate_json((self.data_dir / "endpoints.json").read_bytes()).pids


@contextlib.asynccontextmanager
async def mock_provider(folder: Path, latency_ms: int = 0) -> AsyncGenerator[Running]:
    """The mock provider on a free port; its `url` ends in `/v1`."""
    argv = [sys.executable, "-m", "benchmarks.mock_provider", "--latency-ms", str(latency_ms)]
    async with _started(argv, folder / "provider.log") as running:
        yield running


@contextlib.asynccontextmanager
async def gateway(
    sluice: Path, folder: Path, provider_url: str, *, processes: bool, models: Sequence[str] = (MODEL,)
) -> AsyncGenerator[Gateway]:
    """`sluice up` on a free port with models at `provider_url`, and a fresh key."""
    config, data_dir = folder / "sluice.yaml", folder / "data"
    config.write_text(yaml.safe_dump(_config(provider_url, models), sort_keys=False))
    options = ["--data-dir", str(data_dir)]
    argv = [str(sluice), "up", *options, "--port", str(_free_port()), "--config", str(config)]
    async with _started([*argv, "--processes"] if processes else argv, folder / "sluice.log") as running:
        await command(sluice, "teams", "create", "bench", *options)
        made = await command(sluice, "keys", "create", "--team", "bench", "--json", *options)
        key = _Key.model_validate_json(made).key
        yield Gateway(f"{running.url.removesuffix('/v1')}/v1", key, running.pid, data_dir)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


def _config(provider_url: str, models: Sequence[str]) -> dict[str, object]:
    return {
        "model_list": [
            {
                "model_name": model,
                "litellm_params": {"model": f"openai/{model}", "api_base": provider_url, "api_key": "sk-mock"},
                "model_info": {"input_cost_per_token": 1e-6, "output_cost_per_token": 2e-6},
            }
            for model in models
        ]
    }


@contextlib.asynccontextmanager
async def _started(argv: Sequence[str], log: Path) -> AsyncGenerator[Running]:
    with log.open("wb") as errors:
        process = await asyncio.create_subprocess_exec(
            *argv, stdout=asyncio.subprocess.PIPE, stderr=errors, cwd=_ROOT, start_new_session=True
        )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(_START_S):
            url = await _ready_url(process.stdout, log)
    except (TimeoutError, StartError) as error:
        await _stop(process)
        raise StartError(f"{' '.join(argv)} was not ready within {_START_S:.0f} s\n{error}\n{_tail(log)}") from error
    except asyncio.CancelledError:
        await _stop(process)
        raise
    drain = asyncio.create_task(_drain(process.stdout))
    try:
        yield Running(url, process.pid)
    finally:
        await _stop(process)
        await drain


async def _ready_url(output: asyncio.StreamReader, log: Path) -> str:
    said = ""
    while line := (await output.readline()).decode(errors="replace"):
        found = _URL.search(line)
        if line.startswith("ready") and found:
            return found[0]
        said = (said + line)[-4000:]
    raise StartError(f"it ended without a ready line\n{said}")


async def _drain(output: asyncio.StreamReader) -> None:
    # Nobody reads what it says from now on, but a full pipe would stop it.
    while await output.read(65536):
        pass


async def _stop(process: asyncio.subprocess.Process) -> None:
    if process.returncode is not None:
        return
    family = descendants(process.pid)
    process.send_signal(signal.SIGTERM)
    try:
        async with asyncio.timeout(_STOP_S):
            await process.wait()
    except TimeoutError:
        print(f"process {process.pid} did not end {_STOP_S:.0f} s after SIGTERM: killed", file=sys.stderr)
        for pid in family:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        await process.wait()
    if process.returncode:
        print(f"process {process.pid} ended with {process.returncode} after SIGTERM", file=sys.stderr)


async def command(sluice: Path, *arguments: str) -> bytes:
    """What `sluice ARGUMENTS` prints. Raises StartError."""
    process = await asyncio.create_subprocess_exec(
        str(sluice), *arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, cwd=_ROOT
    )
    try:
        async with asyncio.timeout(60):
            output, errors = await process.communicate()
    except BaseException:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        raise
    if process.returncode:
        said = (output + errors).decode(errors="replace")[-2000:]
        raise StartError(f"sluice {' '.join(arguments)} ended with {process.returncode}\n{said}")
    return output


def _tail(log: Path) -> str:
    return log.read_text(errors="replace")[-4000:]
