"""Which deployment is asked."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.router.health import COOL_MS, IN_A_ROW, Health
from services.router.strategies.weighted import Weighted
from tests.unit.services.router.doubles import deployment

A, B, C = deployment("a", weight=1), deployment("b", weight=3), deployment("c", weight=6)
CASES = [
    (0.0, "a"),
    (0.0999, "a"),
    (0.1, "b"),
    (0.3999, "b"),
    (0.4, "c"),
    (0.9999, "c"),
]


@pytest.mark.parametrize(("chance", "chosen"), CASES)
def test_in_proportion_to_the_weights(chance: float, chosen: str) -> None:
    assert Weighted().choose((A, B, C), (), (), lambda: chance).id == chosen


def test_those_that_failed_the_job_come_last_and_the_cooling_before_them() -> None:
    choose = Weighted().choose
    assert {choose((A, B, C), ("a",), (), lambda c=c: c).id for c in (0.0, 0.5, 0.99)} == {"b", "c"}
    assert choose((A, B, C), ("a",), ("c",), lambda: 0.99).id == "b"
    assert choose((A, B), ("a",), ("b",), lambda: 0.0).id == "b"
    assert choose((A, B), ("a", "b"), ("b",), lambda: 0.99).id == "a"
    assert choose((A,), ("a",), ("a",), lambda: 0.5).id == "a"


@given(st.lists(st.floats(0.001, 1000), min_size=1, max_size=6), st.floats(0, 1, exclude_max=True))
def test_always_one_of_them(weights: list[float], chance: float) -> None:
    deployments = [deployment(str(n), weight=weight) for n, weight in enumerate(weights)]
    assert Weighted().choose(deployments, (), (), lambda: chance) in deployments


def test_a_deployment_cools_after_failures_in_a_row_and_is_well_after_one_success() -> None:
    health = Health()
    for now in range(IN_A_ROW):
        assert not health.cooling(now)
        health.failed("a", now)
    assert health.cooling(IN_A_ROW) == {"a"}
    assert not health.cooling(IN_A_ROW + COOL_MS)
    health.failed("a", IN_A_ROW + COOL_MS)
    assert health.cooling(IN_A_ROW + COOL_MS + 1) == {"a"}
    health.worked("a")
    assert not health.cooling(IN_A_ROW + COOL_MS + 1)
    for now, later in pairwise(range(IN_A_ROW)):
        health.failed("a", now)
        assert not health.cooling(later)
