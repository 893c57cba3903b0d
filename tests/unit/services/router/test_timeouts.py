"""How long a call may take: until its first token, between tokens, and in all; whatever is silent is left for another."""

import asyncio

import pytest

from infra.kafka.carriage import Finish
from schemas.control import Deployment
from schemas.job import JobStatus
from schemas.reply import Failed
from services.router.policy import SILENCE_S, patience_s
from tests.fakes.clock import in_virtual_time
from tests.unit.services.router.doubles import Bench, Hangs, answer, chunk, deployment, job, model, virtual_clock
from tests.unit.services.router.test_hedging import after

WELL = [[chunk("well")], [chunk(finish="stop"), "[DONE]"]]
PREAMBLE = [chunk("", role="assistant")]


def bench(first: Deployment, *script: object) -> Bench:
    return Bench(*script, table=model(first, deployment("d2")), clock=virtual_clock)


async def ended(on: Bench, stream: bool) -> tuple[Finish, float]:
    end = await on.handle(job(stream=stream))
    assert isinstance(end, Finish)
    return end, asyncio.get_running_loop().time()


@in_virtual_time
async def test_a_stream_whose_first_token_is_late_is_asked_for_elsewhere() -> None:
    on = bench(deployment("d1", timeout_s=30, first_token_timeout_s=2), [PREAMBLE, Hangs()], WELL)
    end, at_s = await ended(on, stream=True)
    assert end.completion.status is JobStatus.COMPLETED
    assert at_s == pytest.approx(2)
    assert [a.deployment for a in end.completion.attempts] == ["d1", "d2"]


@in_virtual_time
async def test_what_comes_before_the_first_token_buys_no_time() -> None:
    preambles = [after(0.9, PREAMBLE) for _ in range(5)]
    on = bench(deployment("d1", first_token_timeout_s=2), [*preambles, [chunk("late")]], WELL)
    _, at_s = await ended(on, stream=True)
    assert at_s == pytest.approx(2)


@in_virtual_time
async def test_a_stream_that_falls_silent_ends_with_an_error() -> None:
    on = bench(deployment("d1", silence_timeout_s=3), [[chunk("one")], after(2.9, [chunk("two")]), Hangs()])
    end, at_s = await ended(on, stream=True)
    assert isinstance(end.last, Failed)
    assert at_s == pytest.approx(5.9)


@in_virtual_time
async def test_without_a_time_of_its_own_silence_lasts_half_a_minute() -> None:
    on = bench(deployment("d1"), [[chunk("one")], Hangs()])
    _, at_s = await ended(on, stream=True)
    assert at_s == pytest.approx(SILENCE_S)


@in_virtual_time
async def test_a_stream_has_a_time_for_all_of_it() -> None:
    talks = [after(1, [chunk("x")]) for _ in range(100)]
    on = bench(deployment("d1", timeout_s=10, first_token_timeout_s=2), talks)
    end, at_s = await ended(on, stream=True)
    assert isinstance(end.last, Failed)
    assert at_s == pytest.approx(10)


@in_virtual_time
async def test_a_whole_answer_has_the_whole_time() -> None:
    on = bench(deployment("d1", timeout_s=10, first_token_timeout_s=2), after(9, answer("late")))
    end, at_s = await ended(on, stream=False)
    assert end.completion.status is JobStatus.COMPLETED
    assert at_s == pytest.approx(9)


CASES = [
    (deployment(), False, (600.0, None)),
    (deployment(), True, (600.0, None)),
    (deployment(timeout_s=20), True, (20.0, None)),
    (deployment(timeout_s=20, first_token_timeout_s=3), True, (3.0, 20.0)),
    (deployment(timeout_s=20, first_token_timeout_s=3), False, (20.0, None)),
    (deployment(timeout_s=2, first_token_timeout_s=3), True, (2.0, 2.0)),
]


@pytest.mark.parametrize(("given", "stream", "expected"), CASES)
def test_times(given: Deployment, stream: bool, expected: tuple[float, float | None]) -> None:
    assert patience_s(given, stream) == expected
