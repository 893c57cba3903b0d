"""What the suites share: the real parts, started once a session."""

from collections.abc import AsyncGenerator

import pytest

from infra.embedded.parts import KAFKA, REDIS
from infra.embedded.stack import Stack


@pytest.fixture(scope="session")
async def stack(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Stack]:
    """Kafka and Redis on loopback."""
    stack = Stack(tmp_path_factory.mktemp("stack"), [KAFKA, REDIS])
    await stack.start()
    yield stack
    await stack.stop()
