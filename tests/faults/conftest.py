"""A system of its own for each module of faults: what is killed here would be missed elsewhere."""

import json
from collections.abc import AsyncGenerator

import pytest

from tests.faults.ledger import models
from tests.system import Provider, System, config


@pytest.fixture(scope="module")
async def processes(tmp_path_factory: pytest.TempPathFactory, provider: Provider) -> AsyncGenerator[System]:
    """The whole system, each service in a process of its own."""
    written = json.loads(config(provider))
    written["model_list"] += models(provider)
    folder = tmp_path_factory.mktemp("processes")
    system = await System.start(folder, json.dumps(written), "--processes", SLUICE_RECONCILE_S="3")
    yield system
    assert await system.stop() == 0, system.log_tail
