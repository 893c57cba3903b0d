"""A service more, started by hand beside those of `sluice up`."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

from infra.embedded.process import Child, launch
from tests.system import SLUICE, START_S, System, environment, ready_url


@asynccontextmanager
async def another_service(system: System, service: str, slot: str) -> AsyncGenerator[tuple[Child, str]]:
    """`sluice serve SERVICE` against the servers of a running system, and its URL; it is there when it is ready."""
    places = {f"SLUICE_{name.upper()}": system.endpoints[name] for name in ("kafka", "redis", "clickhouse")}
    log = system.data_dir / f"{service}-{slot}.log"
    # What one before said in the same place would be taken for this one's.
    log.unlink(missing_ok=True)
    words: list[str | Path] = [SLUICE, "serve", service, "--data-dir", system.data_dir, "--port", "0"]
    child = Child(f"another {service}", words, log=log, cwd=system.data_dir, env=environment(**places, SLUICE_SLOT=slot))

    async def ready() -> bool:
        return bool(ready_url(log))

    await launch(child, ready, START_S)
    try:
        yield child, ready_url(log)
    finally:
        await child.stop()
