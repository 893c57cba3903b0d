"""Admission's seal on a job."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.signing import Signer
from schemas.job import Job
from schemas.policy import EffectivePolicy
from schemas.slip import Stage
from tests.fakes.jobs import CALLER, SIGNER, a_job

JOB = a_job()
G, C, R = Stage.GUARD, Stage.CACHE, Stage.ROUTER

FORGERIES: dict[str, dict[str, object]] = {
    "id": {"id": "job_" + "0" * 32},
    "organization": {"caller": CALLER.model_copy(update={"organization": "x"})},
    "team": {"caller": CALLER.model_copy(update={"team": "x"})},
    "project": {"caller": CALLER.model_copy(update={"project": "x"})},
    "environment": {"caller": CALLER.model_copy(update={"environment": "x"})},
    "key": {"caller": CALLER.model_copy(update={"key_id": "x"})},
    "model": {"model": "large"},
    "policy": {"policy": EffectivePolicy(version="2")},
    "deadline": {"deadline_ms": JOB.deadline_ms + 1},
    "way": {"way": (R,)},
    "way and slip": {"way": (R,), "slip": (R,)},
    "signature": {"signature": JOB.signature[:-1] + "x"},
    "no signature": {"signature": ""},
    "a signature that is no ASCII": {"signature": "é"},
}


@pytest.mark.parametrize("member", FORGERIES)
def test_a_changed_job_does_not_hold(member: str) -> None:
    assert SIGNER.holds(JOB)
    assert not SIGNER.holds(JOB.model_copy(update=FORGERIES[member]))


@pytest.mark.parametrize("slip", [(G, C, R), (C, R), (R,), ()])
def test_a_slip_may_lose_its_front(slip: tuple[Stage, ...]) -> None:
    assert SIGNER.holds(JOB.model_copy(update={"slip": slip}))


@pytest.mark.parametrize("slip", [(G,), (G, C), (G, R), (C,), (R, C), (C, C, R), (G, G, C, R), (G, C, R, R)])
def test_a_slip_may_not_be_anything_else(slip: tuple[Stage, ...]) -> None:
    assert not SIGNER.holds(JOB.model_copy(update={"slip": slip}))


@given(st.lists(st.sampled_from(Stage), max_size=5).map(tuple))
def test_only_ends_of_the_way_hold(slip: tuple[Stage, ...]) -> None:
    ends = [JOB.way[n:] for n in range(len(JOB.way) + 1)]
    assert SIGNER.holds(JOB.model_copy(update={"slip": slip})) == (slip in ends)


def test_who_has_another_key_can_neither_sign_nor_check() -> None:
    other = Signer(b"another key")
    assert not other.holds(JOB)
    assert not SIGNER.holds(other.sign(JOB))


def test_a_job_holds_after_its_way_through_the_wire() -> None:
    assert SIGNER.holds(Job.model_validate_json(JOB.model_dump_json(exclude_defaults=True)))


@given(st.text(), st.text())
def test_what_is_derived_is_the_same_each_time_and_fits_an_id(a: str, b: str) -> None:
    derived = SIGNER.derive(a, b)
    assert derived == SIGNER.derive(a, b) < 1 << 74
    assert derived != Signer(b"another key").derive(a, b)
