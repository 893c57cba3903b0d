"""G8, G10: a budget is not overshot by five hundred requests at once at two ingresses, and nothing stays held."""

import pytest

from tests.faults.another import another_service
from tests.faults.budget import play
from tests.system import Provider, System


@pytest.mark.parametrize("seed", [1, 2])
async def test_g8_no_budget_is_overshot(processes: System, provider: Provider, seed: int) -> None:
    async with another_service(processes, "ingress", "1") as (_, url):
        done = await play(processes, provider, [processes.url, url], seed)
    assert done.answered > 0
    assert done.refused > 0
