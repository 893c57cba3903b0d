"""A system for the faults, apart from the one that the other suites share: what is killed here would be missed there."""

import json
from collections.abc import AsyncGenerator

import pytest

from tests.faults.ledger import models
from tests.system import Provider, System, config


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Those who share the system come last: it needn't run beside those who start one of their own."""
    items.sort(key=lambda item: "processes" in getattr(item, "fixturenames", ()))


@pytest.fixture(scope="session")
async def processes(tmp_path_factory: pytest.TempPathFactory, provider: Provider) -> AsyncGenerator[System]:
    """The whole system, each service in a process of its own."""
    written = json.loads(config(provider))
    written["model_list"] += models(provider)
    folder = tmp_path_factory.mktemp("processes")
    system = await System.start(folder, json.dumps(written), "--processes", SLUICE_RECONCILE_S="3")
    yield system
    assert await system.stop() == 0, system.log_tail
