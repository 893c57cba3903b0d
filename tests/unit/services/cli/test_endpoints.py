"""Who is named in endpoints.json when services come and go."""

import os
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path

import pytest

from services.cli import endpoints
from services.cli.endpoints import Endpoints

OWN = {"router": os.getpid()}


def known(folder: Path) -> Endpoints:
    found = endpoints.read(folder)
    assert found
    return found


@pytest.fixture
def other() -> Generator[subprocess.Popen[bytes]]:
    """Another process; it ends when its standard input does."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        yield process


def test_the_first_makes_the_folder_and_adds_what_it_knows(tmp_path: Path) -> None:
    folder = tmp_path / "new"
    endpoints.add(folder, {"kafka": "k:1", "clickhouse": ""}, OWN)
    endpoints.add(folder, {"http": "http://h"}, {"ingress": 1})
    assert known(folder) == Endpoints(http="http://h", kafka="k:1", pids={**OWN, "ingress": 1})


def test_beside_a_living_one_nothing_changes(tmp_path: Path, other: subprocess.Popen[bytes]) -> None:
    up = Endpoints(http="http://h", kafka="k:1", pids={"up": other.pid, "router": other.pid})
    endpoints.write(tmp_path, up)
    endpoints.add(tmp_path, {"kafka": "k:2"}, OWN)
    assert known(tmp_path) == up
    endpoints.remove(tmp_path, OWN)
    assert known(tmp_path) == up


def test_the_place_of_a_dead_one_is_taken(tmp_path: Path, other: subprocess.Popen[bytes]) -> None:
    endpoints.write(tmp_path, Endpoints(kafka="k:1", pids={"guard": other.pid, "router": other.pid}))
    other.communicate()
    endpoints.add(tmp_path, {"kafka": "k:2"}, OWN)
    assert known(tmp_path) == Endpoints(kafka="k:2", pids={"guard": other.pid, **OWN})


def test_who_goes_takes_out_only_itself(tmp_path: Path) -> None:
    endpoints.add(tmp_path, {"kafka": "k:1"}, {**OWN, "guard": 1})
    endpoints.remove(tmp_path, {**OWN, "guard": 2})
    assert known(tmp_path) == Endpoints(kafka="k:1", pids={"guard": 1})


def test_of_a_folder_that_names_nobody_nothing_is_taken(tmp_path: Path) -> None:
    endpoints.remove(tmp_path, OWN)
    assert endpoints.read(tmp_path) is None
