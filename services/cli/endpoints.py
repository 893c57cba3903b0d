"""DATA_DIR/endpoints.json: where the parts of a running system are, and which process each is."""

import fcntl
from collections.abc import Mapping
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


def merge(data_dir: Path, addresses: Mapping[str, str], pids: Mapping[str, int]) -> None:
    """Adds to the file what one service knows; services that are started by hand do this one after the other."""
    data_dir.mkdir(parents=True, exist_ok=True)
    with (data_dir / "endpoints.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        known = read(data_dir) or Endpoints()
        merged = known.model_dump() | {name: address for name, address in addresses.items() if address}
        merged["pids"] = known.pids | dict(pids)
        write(data_dir, Endpoints.model_validate(merged))
