"""What can't become a row is found before a block is planned."""

from decimal import Decimal

import pytest

from schemas.attempt import Attempt
from schemas.completion import Completion
from schemas.usage import Usage
from services.accounting.policy import flaw, job_ms
from tests.unit.services.accounting.examples import ACCEPTED_MS, attempt, completion


def test_the_time_of_a_job_is_in_its_id() -> None:
    assert job_ms(completion(accepted_ms=5)) == ACCEPTED_MS
    assert job_ms(completion(job_id="job_of_another_kind", accepted_ms=5)) == 5


@pytest.mark.parametrize(
    "good",
    [
        completion(),
        completion(attempts=()),
        completion(attempts=(attempt(cost_usd=Decimal(0)), attempt(n=2, http_status=None))),
        completion(attempts=(attempt(cost_usd=Decimal("999999998.9999999999")),)),
        completion(attempts=(attempt(usage=Usage(input_tokens=2**63)),)),
        completion(job_id="no uuid"),
    ],
)
def test_what_fits_into_the_tables_is_billed(good: Completion) -> None:
    assert flaw(good) is None


@pytest.mark.parametrize(
    ("told", "why"),
    [
        ({"job_id": "job_" + "f" * 32}, "time"),
        ({"accepted_ms": -1}, "time"),
        ({"ended_ms": 10**400}, "time"),
        ({"saved_usd": Decimal(-1)}, "cost"),
        ({"saved_usd": Decimal(10**9)}, "cost"),
    ],
)
def test_a_completion_that_does_not_fit(told: dict[str, object], why: str) -> None:
    assert why in str(flaw(completion(**told)))


@pytest.mark.parametrize(
    ("odd", "why"),
    [
        (attempt(cost_usd=Decimal(-1)), "cost"),
        (attempt(cost_usd=Decimal("999999999.5")), "cost"),
        (attempt(usage=Usage(input_tokens=2**64)), "tokens"),
        (attempt(usage=Usage(input_tokens=2**63, output_tokens=2**63)), "tokens"),
        (attempt(started_ms=-1), "start"),
        (attempt(n=2**32), "number"),
        (attempt(n=-1), "number"),
        (attempt(http_status=2**16), "number"),
    ],
)
def test_an_attempt_that_does_not_fit(odd: Attempt, why: str) -> None:
    assert why in str(flaw(completion(attempts=(odd,))))


def test_a_negative_attempt_does_not_hide_behind_another() -> None:
    both = (attempt(cost_usd=Decimal(5)), attempt(n=2, cost_usd=Decimal(-1)))
    assert "cost of an attempt" in str(flaw(completion(attempts=both)))
