"""Inclusive totals with subsets."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.usage import Usage, UsageSource

SOURCES: tuple[UsageSource, ...] = ("provider", "estimated", "none")


@st.composite
def usages(draw: st.DrawFn) -> Usage:
    tokens = st.integers(0, 10**9)
    read, written, fresh, reasoning, said = (draw(tokens) for _ in range(5))
    return Usage(
        input_tokens=read + written + fresh,
        cache_read_tokens=read,
        cache_write_tokens=written,
        output_tokens=reasoning + said,
        reasoning_tokens=reasoning,
        source=draw(st.sampled_from(SOURCES)),
    )


@pytest.mark.parametrize(
    "members",
    [
        {"input_tokens": 5, "cache_read_tokens": 6},
        {"input_tokens": 5, "cache_read_tokens": 3, "cache_write_tokens": 3},
        {"output_tokens": 1, "reasoning_tokens": 2},
        {"input_tokens": -1},
    ],
)
def test_a_part_is_never_more_than_its_whole(members: dict[str, int]) -> None:
    with pytest.raises(ValueError):
        Usage.model_validate(members)


@given(usages(), usages(), usages())
def test_sums_do_not_depend_on_order_and_nothing_adds_nothing(a: Usage, b: Usage, c: Usage) -> None:
    assert a + b == b + a
    assert (a + b) + c == a + (b + c)
    assert a + Usage() == a


@given(usages(), usages())
def test_every_kind_of_token_is_added(a: Usage, b: Usage) -> None:
    total = (a + b).model_dump(exclude={"source"})
    one, other = a.model_dump(exclude={"source"}), b.model_dump(exclude={"source"})
    assert total == {kind: one[kind] + other[kind] for kind in one}


@pytest.mark.parametrize(
    ("a", "b", "source"),
    [
        ("provider", "provider", "provider"),
        ("provider", "none", "provider"),
        ("provider", "estimated", "estimated"),
        ("estimated", "none", "estimated"),
        ("none", "none", "none"),
    ],
)
def test_a_sum_is_as_good_as_its_worst_part(a: UsageSource, b: UsageSource, source: UsageSource) -> None:
    assert (Usage(source=a) + Usage(source=b)).source == source
