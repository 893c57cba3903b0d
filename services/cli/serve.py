"""`sluice serve`: one service against servers named by settings."""

import sys
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from infra.settings import Settings
from services.cli import endpoints
from services.cli.compose import PUBLIC, ServiceName, base_url, listen, own_pids, run, run_loop

if TYPE_CHECKING:
    from infra.embedded.stack import Stack


def serve(
    name: Annotated[ServiceName, typer.Argument(help="which service")],
    port: Annotated[int | None, typer.Option(help="of its HTTP listener; default: 8080 for ingress, else a free one")] = None,
    data_dir: Annotated[Path | None, typer.Option(help="folder of what is kept on this machine")] = None,
) -> None:
    """Run one service against the servers that SLUICE_KAFKA, SLUICE_REDIS and SLUICE_CLICKHOUSE name.

    ingress answers the admin API too, since both stand at the public address.
    """
    settings = Settings()
    if data_dir is not None:
        settings = settings.model_copy(update={"data_dir": data_dir})
    missing = [f"SLUICE_{part.upper()}" for part in ("kafka", "redis") if not getattr(settings, part)]
    if missing:
        sys.exit(f"sluice serve needs {' and '.join(missing)} (host:port). On one machine, `sluice up` starts everything.")
    names: list[ServiceName] = ["ingress", "portal"] if name == "ingress" else [name]
    default_port = settings.port if name in PUBLIC else 0
    try:
        listener = listen(settings.host, default_port if port is None else port)
    except OSError as error:
        sys.exit(f"can't listen on port {port or default_port}: {error.strerror}. Give another with --port.")

    async def main() -> None:
        async with AsyncExitStack() as parts:
            shown, served = settings.clickhouse, settings
            if name == "accounting" and not settings.clickhouse:
                books = await _own_clickhouse(settings.data_dir, parts)
                shown, served = books.clickhouse, settings.model_copy(update={"clickhouse": books.clickhouse_for_services})

            async def ready() -> None:
                addresses = {"kafka": served.kafka, "redis": served.redis_url, "clickhouse": shown}
                if name == "ingress":
                    addresses["http"] = base_url(listener)
                pids = own_pids(names)
                endpoints.add(served.data_dir, addresses, pids)
                parts.callback(endpoints.remove, served.data_dir, pids)
                print(f"ready {base_url(listener)}", flush=True)

            await run(names, served, listener, ready)

    run_loop(main)


async def _own_clickhouse(data_dir: Path, parts: AsyncExitStack) -> "Stack":
    """Without SLUICE_CLICKHOUSE the books are kept on this machine, by the engine that `sluice up` uses."""
    from infra.embedded.parts import CLICKHOUSE
    from infra.embedded.stack import Stack

    stack = Stack(data_dir, parts=(CLICKHOUSE,))
    await stack.start()
    parts.push_async_callback(stack.stop)
    return stack
