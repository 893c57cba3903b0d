"""What happened within a minute, counted in buckets."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.telemetry.minute import Minute, bucket, quantile_ms


def test_calls_count_for_a_minute() -> None:
    minute = Minute()
    for now_ms in range(0, 120_000, 1_000):
        minute.add(now_ms, 10, error=now_ms % 4_000 == 0)
    calls, errors, took = minute.total(119_000)
    assert (calls, errors, sum(took.values())) == (60, 15, 60)
    assert minute.total(119_000 + 60_000)[0] == 0


def test_what_went_wrong_took_nothing() -> None:
    minute = Minute()
    minute.add(0, error=True)
    assert minute.total(0) == (1, 1, {})


@given(st.lists(st.floats(1, 600_000), min_size=1), st.lists(st.floats(1, 600_000), min_size=1), st.sampled_from((0.5, 0.95)))
def test_quantiles_are_off_by_a_tenth_at_most_also_of_two_added_up(one: list[float], other: list[float], share: float) -> None:
    took = Counter(map(bucket, one)) + Counter(map(bucket, other))
    both = sorted(one + other)
    exact = both[max(0, -(-len(both) * round(share * 100) // 100) - 1)]
    assert quantile_ms(took, share) == pytest.approx(exact, rel=0.1, abs=0.1)


def test_of_nothing_there_is_no_quantile() -> None:
    assert quantile_ms({}, 0.5) is None
