"""However results are told, each line counts once, and stands once in one of the files."""

from hypothesis import given
from hypothesis import strategies as st

from schemas.batch import BatchError, BatchResponse, BatchResult
from services.ingress.batches.tally import Tally

IDS = [f"line-{n}" for n in range(8)]


def result(custom_id: str, status: int = 200, code: str = "", usage: dict[str, object] | None = None) -> BatchResult:
    if code:
        return BatchResult(id=f"batch_req_{custom_id}", custom_id=custom_id, error=BatchError(code=code, message="…"))
    response = BatchResponse(status_code=status, request_id="job_1", body={"usage": usage} if usage else {})  # type: ignore[dict-item]
    return BatchResult(id=f"batch_req_{custom_id}", custom_id=custom_id, response=response)


ENDS = {custom_id: result(custom_id, 200 if n % 2 else 429, usage={"prompt_tokens": n}) for n, custom_id in enumerate(IDS)}


@given(st.lists(st.sampled_from([*IDS, "somebody else's"])))
def test_any_order_and_repetition_tells_the_same(told: list[str]) -> None:
    tally, files = Tally({custom_id: n for n, custom_id in enumerate(IDS)}), dict[str, str]()
    for custom_id in told:
        if part := tally.take(ENDS.get(custom_id, result(custom_id))):
            assert custom_id not in files
            files[custom_id] = part
    ours = {custom_id for custom_id in told if custom_id in ENDS}
    assert files == {custom_id: "output" if IDS.index(custom_id) % 2 else "errors" for custom_id in ours}
    assert tally.undone() == [custom_id for custom_id in IDS if custom_id not in ours]
    assert tally.left == len(tally.undone())
    counts = tally.counts
    assert (counts.total, counts.completed + counts.failed) == (len(IDS), len(ours))
    assert tally.usage.input_tokens == sum(IDS.index(custom_id) for custom_id in ours if IDS.index(custom_id) % 2)


def test_what_failed_goes_to_the_errors_and_costs_no_tokens() -> None:
    tally = Tally({"http": 0, "none": 1, "good": 2})
    usage: dict[str, object] = {"prompt_tokens": 5}
    assert tally.take(result("http", 500, usage=usage)) == "errors"
    assert not tally.expired
    assert tally.take(result("none", code="batch_expired")) == "errors"
    assert tally.expired
    assert tally.take(result("good", 201, usage=usage)) == "output"
    assert (tally.counts.completed, tally.counts.failed, tally.usage.total_tokens) == (1, 2, 5)


def test_usage_has_its_details() -> None:
    tally = Tally({"a": 0, "b": 1, "c": 2})
    usage: dict[str, object] = {
        "prompt_tokens": 10,
        "completion_tokens": 7,
        "prompt_tokens_details": {"cached_tokens": 4},
        "completion_tokens_details": {"reasoning_tokens": 3},
    }
    tally.take(result("a", usage=usage))
    tally.take(result("b", usage={"prompt_tokens": 1, "prompt_tokens_details": None}))
    tally.take(result("c", usage={"prompt_tokens": "many"}))
    found = tally.usage
    assert (found.input_tokens, found.output_tokens, found.total_tokens) == (11, 7, 18)
    assert (found.input_tokens_details.cached_tokens, found.output_tokens_details.reasoning_tokens) == (4, 3)
