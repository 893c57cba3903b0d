"""G31: a revoked key, a new budget and a new policy are in force at two ingresses, without a restart of either."""

from benchmarks.control_speed import CHANGES, admin_client, play
from tests.faults.another import another_service
from tests.system import System


async def test_g31_a_change_is_in_force_at_both_ingresses(processes: System) -> None:
    async with (
        another_service(processes, "ingress", "1") as (_, url),
        admin_client(processes.url, processes.data_dir) as admin,
    ):
        for change in CHANGES:
            here_ms, there_ms = await play(change, [processes.url, url], admin)
            print(f"{change.name}: in force after {here_ms:.0f} ms here and {there_ms:.0f} ms there")
