"""A system of its own for each module of faults: what is killed here would be missed elsewhere."""

from collections.abc import AsyncGenerator

import pytest

from tests.system import Provider, System, config


@pytest.fixture(scope="module")
async def processes(tmp_path_factory: pytest.TempPathFactory, provider: Provider) -> AsyncGenerator[System]:
    """The whole system, each service in a process of its own."""
    system = await System.start(tmp_path_factory.mktemp("processes"), config(provider), "--processes")
    yield system
    assert await system.stop() == 0, system.log_tail
