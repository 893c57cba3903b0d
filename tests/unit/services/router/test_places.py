"""Calls at once: interactive's reserve, batch's tenth, and who gets a place that becomes free."""

import asyncio
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from schemas.control import Deployment
from schemas.topics import Lane
from services.router.health import Health
from services.router.places import Place, Places
from tests.fakes.clock import in_virtual_time
from tests.unit.services.router.doubles import deployment, virtual_clock

INTERACTIVE, BATCH = Lane.INTERACTIVE, Lane.BATCH


def with_places(total: int) -> tuple[Places, Deployment]:
    return Places(Health(), lambda: 0), deployment(max_parallel_requests=total)


def fill(places: Places, target: Deployment, lane: Lane) -> list[Place]:
    taken: list[Place] = []
    while places.room(target, lane):
        taken.append(places.take(target, lane))
    return taken


@given(st.integers(2, 500))
def test_each_lane_has_a_share_that_the_other_cannot_take(total: int) -> None:
    for lane, other, share in ((INTERACTIVE, BATCH, max(1, total // 10)), (BATCH, INTERACTIVE, max(1, total // 4))):
        places, target = with_places(total)
        assert len(fill(places, target, lane)) == total - share
        assert len(fill(places, target, other)) == share
        assert not places.room(target, lane)


@given(st.integers(1, 40), st.lists(st.tuples(st.sampled_from(Lane), st.booleans()), max_size=200))
def test_never_more_calls_than_there_are_places(total: int, steps: list[tuple[Lane, bool]]) -> None:
    places, target = with_places(total)
    held: list[Place] = []
    for lane, takes in steps:
        if takes and places.room(target, lane):
            held.append(places.take(target, lane))
        elif not takes and held:
            held.pop().give_back()
        assert len(held) <= total
        busy = Counter(place.lane for place in held)
        if total > 1:
            assert busy[BATCH] <= total - max(1, total // 4)
            assert busy[INTERACTIVE] <= total - max(1, total // 10)
    for place in held:
        place.give_back()
        place.give_back()
    assert places.share(target) == 0
    assert places.room(target, INTERACTIVE) == (total - max(1, total // 10) if total > 1 else 1)


def test_a_single_place_goes_to_whoever_comes() -> None:
    places, target = with_places(1)
    assert (places.room(target, BATCH), places.room(target, INTERACTIVE)) == (1, 1)


def test_without_a_limit_there_is_room() -> None:
    places = Places(Health(), lambda: 0)
    assert places.room(deployment(), BATCH) > 1000
    places.take(deployment(), BATCH).give_back()


def test_a_changed_limit_counts_at_once_also_those_who_are_at_work() -> None:
    places, target = with_places(10)
    fill(places, target, INTERACTIVE)
    assert places.room(target.model_copy(update={"max_parallel_requests": 5}), INTERACTIVE) == 0
    assert places.room(target.model_copy(update={"max_parallel_requests": 20}), INTERACTIVE) == 9


@in_virtual_time
async def test_interactive_gets_the_place_for_which_batch_waits_longer() -> None:
    places, target = with_places(4)
    held = fill(places, target, INTERACTIVE) + fill(places, target, BATCH)
    order: list[str] = []

    async def wait(name: str, lane: Lane) -> None:
        place = await places.wait([target], lane, 10)
        assert place is not None
        order.append(name)
        held.append(place)

    batch = [asyncio.create_task(wait(f"batch {n}", BATCH)) for n in range(2)]
    await asyncio.sleep(1)
    interactive = asyncio.create_task(wait("interactive", INTERACTIVE))
    await asyncio.sleep(1)
    for _ in range(3):
        held.pop(0).give_back()
        await asyncio.sleep(1)
    await asyncio.gather(interactive, *batch)
    assert order == ["interactive", "batch 0", "batch 1"]


@in_virtual_time
async def test_the_tenth_of_batch_is_not_handed_to_interactive() -> None:
    places, target = with_places(4)
    interactive, [batch] = fill(places, target, INTERACTIVE), fill(places, target, BATCH)
    waiter = asyncio.create_task(places.wait([target], INTERACTIVE, 2))
    await asyncio.sleep(0)
    batch.give_back()
    assert await waiter is None
    assert len(interactive) == 3


@in_virtual_time
async def test_nobody_waits_longer_than_he_may_and_nothing_is_left_behind() -> None:
    places, target = with_places(1)
    [held] = fill(places, target, BATCH)
    other = deployment("other", max_parallel_requests=1)
    kept = places.take(other, BATCH)
    assert await places.wait([target, other], BATCH, 3) is None
    assert asyncio.get_running_loop().time() == 3
    cancelled = asyncio.create_task(places.wait([target, other], BATCH, 3))
    await asyncio.sleep(0)
    held.give_back()
    cancelled.cancel()
    await asyncio.wait([cancelled])
    assert places.room(target, BATCH) == 1, "the place of who was cancelled is free again"
    kept.give_back()


@in_virtual_time
async def test_whoever_waits_at_two_deployments_gets_one_place() -> None:
    places = Places(Health(), virtual_clock)
    targets = [deployment(name, max_parallel_requests=1) for name in ("a", "b")]
    held = [places.take(target, BATCH) for target in targets]
    waiter = asyncio.create_task(places.wait(targets, BATCH, 3))
    await asyncio.sleep(0)
    for place in held:
        place.give_back()
    found = await waiter
    assert found is not None
    assert [places.room(target, BATCH) for target in targets] == [0, 1]


# A limit that was found out


def found_out(places: Places, target: Deployment, calls: int = 60) -> None:
    """All of so many calls at once, and of those that follow them, are refused: the limit is half as many."""
    held = [places.take(target, INTERACTIVE) for _ in range(calls - 1)]
    for _ in range(200):
        places.take(target, INTERACTIVE).give_back()
        places.ended(target, 100, None, ok=False, overloaded=True)
    for place in held:
        place.give_back()


def test_calls_that_are_refused_leave_fewer_places_with_a_share_for_each_lane() -> None:
    places, target = Places(Health(), lambda: 1_000), deployment()
    found_out(places, target)
    assert places.limit(target) == 30
    assert len(fill(places, target, BATCH)) == 30 - 7
    assert len(fill(places, target, INTERACTIVE)) == 7


def test_the_lower_limit_holds_and_a_share_is_that_of_what_the_provider_allows() -> None:
    places, target = Places(Health(), lambda: 1_000), deployment(max_parallel_requests=50)
    assert places.limit(target) == 50
    found_out(places, target)
    assert places.limit(target) == 30
    fill(places, target, BATCH)
    assert places.share(target) == 23 / 50
    assert places.limit(deployment(max_parallel_requests=20)) == 20


def test_calls_that_fail_for_other_reasons_or_are_cancelled_say_nothing() -> None:
    places, target = Places(Health(), lambda: 1_000), deployment()
    for _ in range(1_000):
        places.ended(target, 100, None, ok=False, overloaded=False)
    assert places.limit(target) is None
    assert places.room(target, BATCH) > 1_000


def test_those_at_work_count_when_a_limit_comes() -> None:
    places, target = Places(Health(), lambda: 1_000), deployment()
    fill(places, deployment(max_parallel_requests=40), INTERACTIVE)
    found_out(places, target, 24)
    assert places.limit(target) == 30
    assert places.room(target, INTERACTIVE) == 0


def test_what_is_gone_has_no_limit_any_more() -> None:
    places, target = Places(Health(), lambda: 1_000), deployment()
    found_out(places, target)
    places.forget([target.id])
    assert places.limit(target) is None


@in_virtual_time
async def test_a_limit_that_grows_lets_those_in_who_wait() -> None:
    places, target = Places(Health(), virtual_clock), deployment()
    found_out(places, target, 8)
    held = fill(places, target, INTERACTIVE) + fill(places, target, BATCH)
    waiters = [asyncio.create_task(places.wait([target], INTERACTIVE, 1_000)) for _ in range(3)]
    before = places.limit(target)
    assert before
    for _ in range(300):
        await asyncio.sleep(0.1)
        places.ended(target, 100, 100, ok=True, overloaded=False)
    assert (places.limit(target) or 0) > before
    assert any(waiter.done() for waiter in waiters)
    assert held
    for waiter in waiters:
        waiter.cancel()
