"""G31: a revoked key, a new budget and a new policy are in force at two ingresses, without a restart of either."""

import pytest

from benchmarks.control_speed import CHANGES, Change, admin_client, play
from tests.faults.another import another_service
from tests.system import System


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.name)
async def test_g31_a_change_is_in_force_at_both_ingresses(processes: System, change: Change) -> None:
    async with (
        another_service(processes, "ingress", "1") as (_, url),
        admin_client(processes.url, processes.data_dir) as admin,
    ):
        took_ms = await play(change, [processes.url, url], admin)
    print(f"{change.name}: in force after {took_ms[0]:.0f} ms here and {took_ms[1]:.0f} ms there")
