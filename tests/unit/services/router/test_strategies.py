"""Which deployment is asked."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

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
    assert Weighted().choose((A, B, C), lambda: chance).id == chosen


@given(st.lists(st.floats(0.001, 1000), min_size=1, max_size=6), st.floats(0, 1, exclude_max=True))
def test_always_one_of_them(weights: list[float], chance: float) -> None:
    deployments = [deployment(str(n), weight=weight) for n, weight in enumerate(weights)]
    assert Weighted().choose(deployments, lambda: chance) in deployments
