"""Ids that sort by time of birth."""

import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.clock import new_id
from schemas.ids import accepted_ms, attempt_id, job_id_in, uuid7_hex

TIMES = st.integers(0, 2**48 - 1)


@given(TIMES, st.integers(0, 2**74 - 1))
def test_a_uuid7_has_its_version_its_variant_and_its_time(unix_ms: int, chance: int) -> None:
    text = uuid7_hex(unix_ms, chance)
    made = uuid.UUID(text)
    assert (made.version, made.variant, len(text)) == (7, uuid.RFC_4122, 32)
    assert made.int >> 80 == unix_ms
    assert accepted_ms(f"job_{text}") == unix_ms


@given(TIMES, st.integers(0, 2**74 - 1), st.integers(0, 2**74 - 1))
def test_no_chance_is_lost(unix_ms: int, one: int, other: int) -> None:
    assert (uuid7_hex(unix_ms, one) == uuid7_hex(unix_ms, other)) == (one == other)


@given(TIMES, TIMES)
def test_ids_sort_by_time(a: int, b: int) -> None:
    if a != b:
        assert (new_id("job", a) < new_id("job", b)) == (a < b)


@pytest.mark.parametrize("text", ["", "job_", "job_123", "job_" + "0" * 31, "job_" + "0" * 33, "job_" + "g" * 32])
def test_what_is_no_id_has_no_time(text: str) -> None:
    with pytest.raises(ValueError):
        accepted_ms(text)


def test_an_attempt_bears_the_jobs_name_and_its_number() -> None:
    assert attempt_id("job_0af7", 2) == "att_0af7_2"


@given(TIMES, st.integers(0, 2**74 - 1), st.integers(1, 99))
def test_every_id_of_a_job_leads_to_it(unix_ms: int, chance: int, n: int) -> None:
    digits = uuid7_hex(unix_ms, chance)
    names = [f"{kind}_{digits}" for kind in ("job", "resp", "batch_req", "evt")] + [attempt_id(f"job_{digits}", n)]
    assert {job_id_in(name) for name in names} == {f"job_{digits}"}


@pytest.mark.parametrize(
    "name", ["", "job_", "job_x", "team_" + "0" * 32, "job_" + "0" * 31, "job_" + "0" * 32 + "_1", "att_" + "0" * 32]
)
def test_what_names_no_job_leads_nowhere(name: str) -> None:
    assert job_id_in(name) is None
