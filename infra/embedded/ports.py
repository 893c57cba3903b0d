"""Loopback ports that stay the same from one start to the next."""

import json
import random
import socket
from collections.abc import Sequence
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

# Below the ports that Linux (32768 up) and the BSDs (49152 up) give to outgoing connections: a port from there
# could be taken by any client while its part restarts, and a client would connect to itself.
RANGE = range(20_000, 32_000)
_PORTS = TypeAdapter(dict[str, int])


def choose_ports(data_dir: Path, names: Sequence[str]) -> dict[str, int]:
    """A free loopback port for each name, the one of the last start if it is still free.

    Remembered in `data_dir/ports.json`. Raises OSError when no port is free or the folder can't be written.
    """
    data_dir.mkdir(parents=True, exist_ok=True)
    file = data_dir / "ports.json"
    known = _read(file)
    ports: dict[str, int] = {}
    for name in names:
        port = known.get(name, 0)
        ports[name] = port if port and _is_free(port) else _free_port({*known.values(), *ports.values()})
    _write(file, known | ports)
    return ports


def _read(file: Path) -> dict[str, int]:
    try:
        return _PORTS.validate_json(file.read_bytes())
    except (FileNotFoundError, ValidationError):
        return {}


def _write(file: Path, ports: dict[str, int]) -> None:
    fresh = file.with_suffix(".new")
    fresh.write_text(json.dumps(ports, indent=2) + "\n")
    fresh.replace(file)


def _free_port(avoid: set[int]) -> int:
    for port in random.sample(RANGE, k=200):
        if port not in avoid and _is_free(port):
            return port
    raise OSError("no free loopback port found; is another program holding thousands of them?")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        # As the servers do: a port is not taken because a closed connection of it still lingers.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
