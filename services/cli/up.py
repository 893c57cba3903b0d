"""`sluice up`: everything on one machine."""

import asyncio
import logging
import os
import signal
import socket
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from infra.secret_files import admin_key
from infra.settings import Settings
from infra.telemetry import logs
from services.cli import endpoints
from services.cli.compose import SERVICES, base_url, listen, own_pids, run, run_loop
from services.cli.config import read_and_warn
from services.cli.first_steps import apply_config, first_key, try_this
from services.cli.from_file import with_file
from services.portal.config import Parsed

log = logging.getLogger(__name__)


def up(
    port: Annotated[int | None, typer.Option(help="of the public address; default 8080, or a free one if that is taken")] = None,
    data_dir: Annotated[Path | None, typer.Option(help="folder of everything that is kept")] = None,
    config: Annotated[
        Path | None, typer.Option(help="sluice.yaml or LiteLLM's config.yaml, applied before the ready line", exists=True)
    ] = None,
    processes: Annotated[bool, typer.Option("--processes", help="each service a process of its own")] = False,
    quickstart: Annotated[bool, typer.Option("--quickstart", help="make a key, and print what to try")] = False,
) -> None:
    """Start everything on this machine: Kafka, Redis, ClickHouse and all services. SIGTERM drains and exits 0."""
    settings = Settings()
    folder = (data_dir or settings.data_dir).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    settings = settings.model_copy(update={"data_dir": folder, "slot": settings.slot or "0"})
    logs.configure(settings.log_level)
    parsed = read_and_warn([config], settings) if config else None
    settings = with_file(settings, parsed) if parsed else settings
    admin_key(folder, settings.admin_key.get_secret_value())
    try:
        listener = listen(settings.host, settings.port if port is None else port, or_free=port is None)
    except OSError as error:
        sys.exit(f"can't listen on port {port}: {error.strerror}. Give another with --port.")
    wanted = Wanted(config, parsed, quickstart)
    run_loop(lambda: _up(settings, listener, wanted, processes=processes))


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be done before the ready line."""

    config: Path | None
    parsed: Parsed | None
    quickstart: bool


async def _up(settings: Settings, listener: socket.socket, wanted: Wanted, *, processes: bool) -> None:
    from infra.embedded.process import PartFailed
    from infra.embedded.stack import Stack

    url = base_url(listener)
    services: dict[str, int] = {}
    stack: Stack | None = None

    def note() -> None:
        if stack is not None:
            pids = {"up": os.getpid(), **services, **stack.pids}
            found = endpoints.Endpoints(http=url, kafka=stack.kafka, redis=stack.redis, clickhouse=stack.clickhouse, pids=pids)
            endpoints.write(settings.data_dir, found)

    async def ready() -> None:
        note()
        await asyncio.to_thread(apply_config, settings, url, wanted.config, wanted.parsed)
        key = await asyncio.to_thread(first_key, settings, url) if wanted.quickstart else None
        print(f"ready {url}", flush=True)
        if key:
            print(try_this(url, key, settings.data_dir), flush=True)

    stack = Stack(settings.data_dir, changed=note)
    try:
        await stack.start()
    except PartFailed as failure:
        sys.exit(str(failure))
    try:
        addresses = {"kafka": stack.kafka, "redis": stack.redis, "clickhouse": stack.clickhouse_for_services}
        public_url = settings.public_url or settings.url or url
        found = settings.model_copy(update={**addresses, "public_url": public_url})
        if processes:
            listener.close()
            await _up_in_processes(found, int(url.rsplit(":", 1)[1]), services, note, ready)
        else:
            services |= own_pids(SERVICES)
            await run(SERVICES, found, listener, ready)
    finally:
        await stack.stop()


async def _up_in_processes(
    settings: Settings, port: int, services: dict[str, int], note: Callable[[], None], ready: Callable[[], Awaitable[None]]
) -> None:
    from infra.embedded.process import PartFailed
    from services.cli.children import Children

    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)

    def changed() -> None:
        services.update(children.pids)
        note()

    children = Children(settings, port, changed)
    try:
        await children.start()
        changed()
        await ready()
        await stopping.wait()
    except PartFailed as failure:
        sys.exit(str(failure))
    finally:
        await children.stop()
