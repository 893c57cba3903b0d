"""What the suites share: the real parts, started once a session."""

import gc
from collections.abc import AsyncGenerator, Generator

import pytest
from hypothesis import settings

from infra.embedded.parts import KAFKA, REDIS
from infra.embedded.stack import Stack
from infra.kafka.broker import Kafka
from infra.webhooks.signing import shown
from tests.fakes.recorder import Recorder, recording
from tests.integration.served import served
from tests.system import ITSM_SECRET, Provider, System, running_provider

# How long an example takes says nothing on a machine that others use too.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")


def pytest_collection_finish() -> None:
    """What was imported and collected stays: the collector need not walk it again and again."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
async def stack(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Stack]:
    """Kafka and Redis on loopback."""
    stack = Stack(tmp_path_factory.mktemp("stack"), [KAFKA, REDIS])
    await stack.start()
    yield stack
    await stack.stop()


@pytest.fixture(scope="session")
async def kafka(stack: Stack) -> AsyncGenerator[Kafka]:
    """A connection to that Kafka."""
    kafka = Kafka(stack.kafka)
    await kafka.start()
    yield kafka
    await kafka.stop()


@pytest.fixture(scope="session")
async def provider(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Provider]:
    """The mock provider, in a process of its own."""
    async with running_provider(tmp_path_factory.mktemp("provider")) as provider:
        yield provider


@pytest.fixture(scope="session")
def recorder() -> Generator[Recorder]:
    """A provider that remembers what reached it."""
    with recording() as recorder:
        yield recorder


@pytest.fixture(scope="session")
async def system(tmp_path_factory: pytest.TempPathFactory, provider: Provider, recorder: Recorder) -> AsyncGenerator[System]:
    """The whole system by `sluice up`, all services in one process."""
    folder = tmp_path_factory.mktemp("system")
    system = await System.start(folder, served(provider, recorder.base_url), SLUICE_ITSM_SECRET=shown(ITSM_SECRET))
    yield system
    assert await system.stop() == 0, system.log_tail
