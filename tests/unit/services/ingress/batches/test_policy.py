"""States, deadlines, and what is refused."""

from collections.abc import Mapping

import openai.types
import pytest

from schemas.errors import InvalidRequest
from schemas.openai.batches import OVER, Batch, BatchProblem
from schemas.topics import BATCH_RESULTS
from services.ingress.batches import policy
from tests.fakes.jobs import NOW_MS
from tests.unit.services.ingress.batches.examples import an_order, answer

NOW_S = NOW_MS // 1000
DAY_MS = 86_400_000


@pytest.mark.parametrize(
    ("header", "metadata", "deadline_ms"),
    [
        (None, None, NOW_MS + DAY_MS),
        (str(NOW_S + 60), None, NOW_MS + 60_000),
        (None, {"sluice_deadline": str(NOW_S + 60)}, NOW_MS + 60_000),
        (str(NOW_S + 60), {"sluice_deadline": str(NOW_S + 90)}, NOW_MS + 60_000),
        ("2027-01-15T09:00:00Z", None, NOW_MS + 3_600_000),
    ],
)
def test_a_batch_expires_after_a_day_or_when_its_owner_says(
    header: str | None, metadata: Mapping[str, str] | None, deadline_ms: int
) -> None:
    assert policy.deadline_ms(header, metadata, NOW_MS) == deadline_ms


@pytest.mark.parametrize("header", ["yesterday", str(NOW_S), str(NOW_S + 86_401), "-5"])
def test_a_deadline_that_cant_be_is_refused(header: str) -> None:
    with pytest.raises(InvalidRequest):
        policy.deadline_ms(header, None, NOW_MS)


def test_an_endpoint_that_we_dont_have_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="/v1/chat/completions"):
        policy.api_of("/v1/videos")


def test_each_state_is_one_that_the_sdk_knows() -> None:
    asked = policy.asked(an_order(metadata={"a": "b"}))
    begun = policy.begun(asked, 3, "small", 1)
    called_off = policy.cancelling(begun, 2)
    states = [
        asked,
        begun,
        called_off,
        policy.finalizing(begun, 3),
        policy.failed(asked, [BatchProblem(code="x", message="y", line=1)], 4),
        policy.ended(begun, None, 5, "file_a", "file_b"),
        policy.ended(begun, "expired", 5, None, "file_b"),
        policy.ended(called_off, "cancelled", 5, None, None),
    ]
    for state in states:
        told = openai.types.Batch.model_validate(state.model_dump(), strict=True)
        if state.status != "validating":
            assert getattr(told, f"{state.status}_at") in range(1, 6)
        assert Batch.model_validate_json(state.model_dump_json(exclude_defaults=True)) == state


def test_a_batch_that_is_cancelled_stays_so_while_its_files_are_made() -> None:
    batch = policy.cancelling(policy.asked(an_order()), 2)
    assert policy.finalizing(batch, 3).status == "cancelling"


@pytest.mark.parametrize("status", ["validating", "in_progress"])
def test_who_cancels_sees_it_at_once(status: str) -> None:
    batch = policy.asked(an_order()).model_copy(update={"status": status})
    assert policy.shown(batch, 0) == batch
    shown = policy.shown(batch, 5000)
    assert (shown.status, shown.cancelling_at) == ("cancelling", 5)


@pytest.mark.parametrize("status", ["finalizing", *sorted(OVER)])
def test_what_is_nearly_over_is_shown_as_it_is(status: str) -> None:
    batch = policy.asked(an_order()).model_copy(update={"status": status})
    assert policy.shown(batch, 5000) == batch


def test_what_is_over_cant_be_cancelled() -> None:
    policy.check_cancellable(policy.asked(an_order()))
    with pytest.raises(InvalidRequest, match="completed"):
        policy.check_cancellable(policy.ended(policy.asked(an_order()), None, 5, None, None))


def test_batches_are_spread_over_the_partitions_and_stay_there() -> None:
    found = {policy.results_partition(f"batch_{n}") for n in range(200)}
    assert found == set(range(BATCH_RESULTS.partitions))
    assert policy.results_partition("batch_1") == policy.results_partition("batch_1")


def test_only_cancelled_lines_count_as_cancelled() -> None:
    assert policy.is_cancelled(policy.unrun("batch_req_1", "1", "cancelled"))
    assert not policy.is_cancelled(policy.unrun("batch_req_1", "1", "expired"))
    assert not policy.is_cancelled(answer("1"))


def test_the_event_is_the_same_whenever_it_is_sent() -> None:
    batch = policy.ended(policy.asked(an_order()), "expired", 5, None, None)
    event = policy.event(batch, 9)
    assert event == {
        "id": f"evt_{batch.id.removeprefix('batch_')}",
        "object": "event",
        "type": "batch.expired",
        "created_at": 9,
        "data": {"id": batch.id},
    }
