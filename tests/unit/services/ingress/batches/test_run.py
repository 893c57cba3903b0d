"""A batch in the lives of its runner: whatever dies, each line is told once, and the files are the same."""

import asyncio
from contextlib import suppress
from pathlib import Path

import openai.types
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.openai.batches import OVER, Batch
from services.ingress.batches.run import Halt
from tests.fakes.jobs import CALLER
from tests.unit.services.ingress.batches.examples import FILE_ID, Bench, answer, cancelled, jsonl, when


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


async def test_answers_go_to_the_output_and_failures_to_the_errors(bench: Bench) -> None:
    await bench.upload(jsonl("a", "bad-b", "c"))
    batch = await bench.live()
    assert batch.status == "completed"
    assert sorted(await bench.told(batch.output_file_id)) == ["a", "c"]
    assert await bench.told(batch.error_file_id) == ["bad-b"]
    assert (batch.request_counts.total, batch.request_counts.completed, batch.request_counts.failed) == (3, 2, 1)
    assert batch.model == "small"
    assert batch.usage is not None
    assert batch.usage.input_tokens == 4
    statuses = [said.status for said in bench.said]
    assert statuses[0] == "in_progress"
    assert statuses[-1] == "finalizing"
    openai.types.Batch.model_validate(batch.model_dump(), strict=True)


async def test_without_failures_there_is_no_error_file(bench: Bench) -> None:
    await bench.upload(jsonl("a"))
    batch = await bench.live()
    assert batch.error_file_id is None
    file = await bench.files.find(CALLER.team, batch.output_file_id or "")
    assert file is not None
    openai.types.FileObject.model_validate(file.model_dump(), strict=True)
    assert (file.purpose, file.filename) == ("batch_output", f"{batch.id}_output.jsonl")


async def test_a_file_with_a_bad_line_is_not_run_at_all(bench: Bench) -> None:
    await bench.upload(jsonl("a", "b") + b"\nno")
    batch = await bench.live()
    assert (batch.status, bench.lines.submitted) == ("failed", [])
    assert batch.errors is not None
    assert [problem.line for problem in batch.errors.data] == [3]


async def test_a_file_that_is_gone_fails_the_batch(bench: Bench) -> None:
    await bench.upload(jsonl("a"))
    await bench.files.delete(CALLER.team, FILE_ID)
    batch = await bench.live()
    assert batch.errors is not None
    assert [problem.code for problem in batch.errors.data] == ["invalid_input_file"]


async def test_no_more_lines_are_under_way_than_the_window_has(bench: Bench) -> None:
    ids = [f"slow-{n}" for n in range(9)]
    await bench.upload(jsonl(*ids))
    running = asyncio.create_task(bench.live(window=4))
    for n, custom_id in enumerate(ids):
        await when(lambda least=n: len(bench.lines.submitted) > least)
        bench.lines.under_way -= 1
        bench.ends.append(answer(custom_id))
    assert (await running).status == "completed"
    assert bench.lines.most <= 4


async def test_after_a_death_only_what_has_not_ended_is_submitted_again(bench: Bench) -> None:
    await bench.upload(jsonl("a", "slow-b", "c"))
    first = asyncio.create_task(bench.live())
    await when(lambda: len(bench.ends) == 2)
    first.cancel()
    with suppress(asyncio.CancelledError):
        await first
    bench.lines.submitted.clear()
    second = asyncio.create_task(bench.live())
    await when(lambda: bool(bench.lines.submitted))
    bench.ends.append(answer("slow-b"))
    batch = await second
    assert bench.lines.submitted == ["slow-b"]
    assert sorted(await bench.told(batch.output_file_id)) == ["a", "c", "slow-b"]


async def test_a_death_before_the_end_was_noted_makes_the_same_files_again(bench: Bench) -> None:
    await bench.upload(jsonl("a", "bad-b"))
    first, second = await bench.live(), await bench.live()
    assert first == second
    assert len(bench.lines.submitted) == 2
    page, _ = await bench.files.page(CALLER.team, "", 10, "batch_output", oldest_first=True)
    assert len(page) == 2


@settings(max_examples=25, deadline=None)
@given(st.permutations(["a", "b", "c", "bad-d", "a", "bad-d"]), st.integers(0, 6))
async def test_any_order_of_ends_any_repetition_and_any_death_tells_each_line_once(
    tmp_path_factory: pytest.TempPathFactory, order: list[str], known: int
) -> None:
    bench = Bench(tmp_path_factory.mktemp("run"))
    await bench.upload(jsonl("a", "b", "c", "bad-d"))
    ends = [answer(custom_id, 500 if custom_id.startswith("bad") else 200) for custom_id in order]
    bench.ends += ends[:known]
    batch = await bench.live()
    assert sorted(await bench.told(batch.output_file_id)) == ["a", "b", "c"]
    assert await bench.told(batch.error_file_id) == ["bad-d"]
    bench.ends += ends[known:]
    again = await bench.live()
    assert (again.request_counts, again.usage) == (batch.request_counts, batch.usage)
    assert sorted(await bench.told(again.output_file_id)) == ["a", "b", "c"]


async def halted(bench: Bench, why: str, submitted: int, **hands: object) -> "asyncio.Task[Batch]":
    """A batch that is halted when so many lines were submitted."""
    halt = Halt()
    running = asyncio.create_task(bench.live(halt, **hands))
    await when(lambda: len(bench.lines.submitted) >= submitted)
    halt.set("cancelled" if why == "cancelled" else "expired", 7)
    return running


async def test_a_cancelled_batch_calls_off_what_runs_and_runs_nothing_more(bench: Bench) -> None:
    await bench.upload(jsonl("a", "slow-b", "slow-c", "d"))
    running = await halted(bench, "cancelled", 3, window=2)
    await running
    batch = bench.said[-1]
    assert (batch.status, batch.cancelling_at) == ("cancelling", 7)
    ended = running.result()
    assert ended.status == "cancelled"
    assert bench.lines.abandoned == ["slow-b", "slow-c"]
    assert "d" not in bench.lines.submitted
    assert await bench.told(ended.error_file_id) == ["slow-b", "slow-c", "d"]


async def test_a_line_that_answers_while_it_is_called_off_still_counts(bench: Bench) -> None:
    await bench.upload(jsonl("slow-deaf"))
    running = await halted(bench, "cancelled", 1, cancel_wait_s=5.0)
    await when(lambda: bool(bench.lines.abandoned))
    bench.ends.append(answer("slow-deaf"))
    ended = await running
    assert await bench.told(ended.output_file_id) == ["slow-deaf"]


async def test_cancelling_does_not_wait_for_ever(bench: Bench) -> None:
    await bench.upload(jsonl("slow-deaf"))
    ended = await (await halted(bench, "cancelled", 1))
    assert await bench.told(ended.error_file_id) == ["slow-deaf"]


async def test_an_expired_batch_keeps_what_was_answered_and_tells_of_the_rest(bench: Bench) -> None:
    await bench.upload(jsonl("a", "slow-b", "slow-c"))
    ended = await (await halted(bench, "expired", 3))
    assert ended.status == "expired"
    assert sorted(bench.lines.abandoned) == ["slow-b", "slow-c"]
    assert await bench.told(ended.output_file_id) == ["a"]
    assert await bench.told(ended.error_file_id) == ["slow-b", "slow-c"]


async def test_after_a_death_what_an_earlier_life_submitted_is_called_off_too(bench: Bench) -> None:
    await bench.upload(jsonl("slow-a", "slow-b", "c", "d"))
    bench.ends += [answer("c")]
    halt = Halt()
    halt.set("cancelled", 7)
    batch = await bench.live(halt, window=2)
    assert bench.lines.submitted == []
    assert bench.lines.abandoned == ["slow-a", "slow-b"]
    assert batch.status == "cancelled"


async def test_a_line_that_somebody_else_cancelled_does_not_hold_the_batch(bench: Bench) -> None:
    await bench.upload(jsonl("slow-a"))
    bench.ends.append(cancelled("slow-a"))
    batch = await bench.live()
    assert (batch.status, batch.request_counts.failed) == ("completed", 1)
    assert batch.status in OVER


async def test_a_submission_that_fails_ends_the_life_and_not_the_batch(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    await bench.upload(jsonl("a", "b"))

    async def away(*_: object) -> None:
        raise ConnectionError("no broker")

    with monkeypatch.context() as patched:
        patched.setattr(bench.lines, "submit", away)
        with pytest.raises(ExceptionGroup):
            await bench.live()
    assert (await bench.live()).status == "completed"
