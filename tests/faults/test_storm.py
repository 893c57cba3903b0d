"""A storm over the whole system: nothing accepted is lost, nothing is on the books twice, and all ends by itself."""

import os
from pathlib import Path

import pytest

from tests.faults.storm import QUIET_S, Plan, storm

JOBS = 1_000
SEED = int(os.environ.get("SLUICE_STORM_SEED", "1"))


@pytest.mark.timeout(300)
async def test_a_storm_loses_and_doubles_nothing(tmp_path: Path) -> None:
    plan = Plan(JOBS, SEED)
    print(plan)
    verdict = await storm(tmp_path, plan)
    print(verdict)
    assert verdict.wrong == ()
    assert verdict.unended_s < QUIET_S
