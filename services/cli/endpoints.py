"""DATA_DIR/endpoints.json: where the parts of a running system are, and which process each is."""

import fcntl
import os
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path

from pydantic import BaseModel, Field


class Endpoints(BaseModel):
    """Addresses (URL or host:port) and process ids by service or part."""

    http: str = ""
    kafka: str = ""
    redis: str = ""
    clickhouse: str = ""
    pids: dict[str, int] = Field(default_factory=dict[str, int])


def write(data_dir: Path, endpoints: Endpoints) -> None:
    """Replaces the file in one step: a reader sees the old one or the new one, whole."""
    path = data_dir / "endpoints.json"
    partial = path.with_suffix(".part")
    partial.write_text(endpoints.model_dump_json(indent=2) + "\n")
    partial.chmod(0o600)
    partial.rename(path)


def read(data_dir: Path) -> Endpoints | None:
    """What stands in the file; None if there is none that makes sense."""
    try:
        return Endpoints.model_validate_json((data_dir / "endpoints.json").read_text())
    except (FileNotFoundError, ValueError):
        return None


def add(data_dir: Path, addresses: Mapping[str, str], pids: Mapping[str, int]) -> None:
    """Adds what one service knows, unless a living process stands there for it: `sluice up`, or another of its kind."""
    with _locked(data_dir) as known:
        if any(known.pids.get(name, pid) != pid and is_alive(known.pids[name]) for name, pid in pids.items()):
            return
        merged = known.model_dump() | {name: address for name, address in addresses.items() if address}
        merged["pids"] = known.pids | dict(pids)
        write(data_dir, Endpoints.model_validate(merged))


def remove(data_dir: Path, pids: Mapping[str, int]) -> None:
    """Takes out what `add` put in; who has taken the place since stays."""
    with _locked(data_dir) as known:
        left = {name: pid for name, pid in known.pids.items() if pids.get(name) != pid}
        if left != known.pids:
            write(data_dir, known.model_copy(update={"pids": left}))


def is_alive(pid: int) -> bool:
    """Whether a process of this machine runs."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


@contextmanager
def _locked(data_dir: Path) -> Generator[Endpoints]:
    """What stands in the file; services that are started by hand change it one after the other."""
    data_dir.mkdir(parents=True, exist_ok=True)
    with (data_dir / "endpoints.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield read(data_dir) or Endpoints()
