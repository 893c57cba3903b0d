"""What a request is charged, and the words and headers of every refusal."""

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from infra.charging import (
    LEASE_GRACE_MS,
    Account,
    charge,
    check_size,
    duration,
    level_name,
    rate_headers,
    refusal,
)
from infra.faults import error_response
from infra.hierarchy import Level
from infra.redis.admission import (
    DAY_MS,
    MINUTE_MS,
    Charge,
    Closed,
    NoRoom,
    OverBudget,
    OverRate,
    Rate,
    Refused,
    Room,
    Standing,
)
from infra.redis.admission import Limits as AllLimits
from schemas.budget import NANO, Budget, Increase, Period
from schemas.errors import BudgetExceeded, RateLimited, SluiceError, TokensLimited, TooLarge, Unavailable
from schemas.job import Estimate
from schemas.policy import Limits, Policy
from schemas.topics import Lane


def ms(text: str) -> int:
    return round(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000)


NOW_MS = ms("2026-11-21T10:00")
NEXT_MONTH_S = 9 * 86_400 + 14 * 3600
ENVIRONMENT = "environment/fraud//dev"


def usd(amount: str | int, **more: Any) -> Budget:
    return Budget(usd=Decimal(amount), **more)


def account(*budgets: Budget, scope: str = ENVIRONMENT, zone: str = "UTC", **limits: Any) -> Account:
    """One level that says something."""
    return Account(
        (Level("organization/acme", 0, Policy()), Level(scope, 1, Policy(budgets=budgets, limits=Limits(**limits)))), zone
    )


def asking(given: Account, needed: str | int = 0, tokens: int = 0, lane: Lane = Lane.INTERACTIVE) -> Charge:
    estimate = Estimate(input_tokens=tokens, output_tokens=0, usd_nano=int(Decimal(needed) * NANO))
    return charge(given, lane, estimate, NOW_MS, NOW_MS + 120_000)


def over(given: Account, spent: str | int, held: str | int = 0, needed: str | int = "0.01", **asked: Any) -> SluiceError:
    """The refusal of a request by the account's first budget, in USD."""
    request = asking(given, needed, **asked)
    numbers = [int(Decimal(amount) * NANO) for amount in (spent, held)]
    return refusal(OverBudget(request.limits.allowances[0], "usd", *numbers), request, given, NOW_MS)


def told(error: SluiceError) -> tuple[int, dict[str, str]]:
    """Status and headers of an answer."""
    answer = error_response(error.fault(), error.headers)
    return answer.status_code, {name: value for name, value in answer.headers.items() if name.startswith(("x-", "retry"))}


def test_a_budget_that_is_spent_word_for_word() -> None:
    error = over(account(usd(50)), 50)
    assert (
        error.message
        == "Budget exceeded for team fraud in environment dev: 50.00 of 50.00 USD spent this month; resets 2026-12-01"
    )
    assert isinstance(error, BudgetExceeded)
    assert (error.fault().type, error.fault().code) == ("insufficient_quota", "budget_exceeded")
    assert told(error) == (429, {"retry-after": str(NEXT_MONTH_S), "x-should-retry": "false"})


SENTENCES = [
    ((Period.DAY, "UTC"), "spent today; resets 2026-11-22"),
    ((Period.WEEK, "UTC"), "spent this week; resets 2026-11-23"),
    ((Period.MONTH, "Pacific/Kiritimati"), "spent this month; resets 2026-12-01"),
    ((Period.TOTAL, "UTC"), "spent in all; this budget does not reset"),
]


@pytest.mark.parametrize(("period_and_zone", "end"), SENTENCES)
def test_it_says_for_how_long(period_and_zone: tuple[Period, str], end: str) -> None:
    period, zone = period_and_zone
    error = over(account(usd(5, period=period), zone=zone), "5.5")
    assert error.message == f"Budget exceeded for team fraud in environment dev: 5.50 of 5.00 USD {end}"


def test_the_day_of_the_reset_is_the_organizations() -> None:
    given = account(usd(5, period=Period.DAY), zone="Pacific/Kiritimati")
    error = over(given, 5)
    assert error.message.endswith("resets 2026-11-23"), "where it is the 22nd already"
    assert error.retry_after_s == (ms("2026-11-22T10:00") - NOW_MS) // 1000


def test_a_total_says_no_time_to_come_again() -> None:
    assert told(over(account(usd(5, period=Period.TOTAL)), 5)) == (429, {"x-should-retry": "false"})


def test_what_is_held_for_others_is_told_and_comes_back_soon() -> None:
    error = over(account(usd(50)), spent=30, held=15, needed="7.5")
    assert error.message == (
        "Budget exceeded for team fraud in environment dev: 30.00 of 50.00 USD spent this month, 15.00 USD held for requests "
        "that are running, and this request may need 7.50 USD; resets 2026-12-01"
    )
    assert told(error) == (429, {"retry-after": "5", "x-should-retry": "false"})


def test_what_would_not_fit_without_the_others_either_comes_again_when_the_period_is_over() -> None:
    error = over(account(usd(50)), spent=48, held=1, needed="7.5")
    assert "and this request may need 7.50 USD" in error.message
    assert error.retry_after_s == NEXT_MONTH_S


def test_what_no_period_has_room_for_need_not_come_again() -> None:
    error = over(account(usd(50)), spent=0, needed=51)
    assert error.message.endswith("0.00 of 50.00 USD spent this month, and this request may need 51.00 USD; resets 2026-12-01")
    assert error.retry_after_s is None


def test_batch_is_told_of_what_is_held_whatever_it_needs() -> None:
    assert over(account(usd(50)), spent=30, held=20, needed=60, lane=Lane.BATCH).retry_after_s == 5
    assert over(account(usd(50)), spent=50, needed=60, lane=Lane.BATCH).retry_after_s == NEXT_MONTH_S


def test_tokens_are_a_budget_too() -> None:
    given = account(Budget(tokens=1_000))
    request = asking(given, tokens=300)
    error = refusal(OverBudget(request.limits.allowances[0], "tokens", 800, 0), request, given, NOW_MS)
    assert error.message == (
        "Budget exceeded for team fraud in environment dev: 800 of 1000 tokens spent this month, and this request may need "
        "300 tokens; resets 2026-12-01"
    )
    assert error.fault().code == "budget_exceeded"


@pytest.mark.parametrize(
    ("amount", "written"),
    [
        ("0", "0.00"),
        ("0.1", "0.10"),
        ("0.123", "0.123"),
        ("0.000001", "0.000001"),
        ("1.50", "1.50"),
        ("1234.567891", "1234.567891"),
    ],
)
def test_money_to_the_cent_or_to_where_it_says_more(amount: str, written: str) -> None:
    assert f": {written} of 2000.00 USD spent" in over(account(usd(2000)), amount, needed=1999).message


def test_of_several_budgets_of_a_level_the_one_that_refused_is_named() -> None:
    given = account(usd(50), usd(5, period=Period.DAY), Budget(tokens=100), usd(40))
    request = asking(given, 6, tokens=10)
    month, day = request.limits.allowances
    assert refusal(OverBudget(month, "usd", 40 * NANO, 0), request, given, NOW_MS).message == (
        "Budget exceeded for team fraud in environment dev: 40.00 of 40.00 USD spent this month; resets 2026-12-01"
    )
    assert "100 of 100 tokens spent this month" in refusal(OverBudget(month, "tokens", 100, 0), request, given, NOW_MS).message
    assert "5.00 of 5.00 USD spent today" in refusal(OverBudget(day, "usd", 5 * NANO, 0), request, given, NOW_MS).message


def test_who_is_refused_after_another_came_in_the_next_period_is_told_of_his_own() -> None:
    given = account(usd(50), usd(5, period=Period.DAY))
    request = asking(given, 1)
    assert given.allowances(ms("2026-12-01")) != request.limits.allowances
    error = refusal(OverBudget(request.limits.allowances[0], "usd", 50 * NANO, 0), request, given, NOW_MS)
    assert error.message.endswith("spent this month; resets 2026-12-01")


def test_a_period_ends_at_the_instant_it_ends() -> None:
    given = account(usd(50))
    ends = ms("2026-12-01")
    keys = [given.allowances(at)[0].key for at in (NOW_MS, ends - 1, ends, ends - 1, NOW_MS)]
    assert keys == [f"spend:{ENVIRONMENT}:{month}" for month in ("2026-11", "2026-11", "2026-12", "2026-11", "2026-11")]
    assert given.limits(Lane.INTERACTIVE, ends).allowances[0].key.endswith("2026-12")


def test_an_increase_ends_in_the_middle_of_a_period() -> None:
    given = account(usd(50, increases=(Increase(usd=Decimal(5), until_ms=NOW_MS + 1_000),)))
    assert [given.allowances(at)[0].usd_nano for at in (NOW_MS, NOW_MS + 999, NOW_MS + 1_000, NOW_MS)] == [
        55 * NANO,
        55 * NANO,
        50 * NANO,
        55 * NANO,
    ]


def test_soft_budgets_refuse_nobody() -> None:
    assert account(usd(50, hard=False)).allowances(NOW_MS) == ()


NAMES = {
    "organization/acme": "organization acme",
    "team/fraud": "team fraud",
    "project/fraud/scores": "project scores of team fraud",
    "environment/fraud/scores/dev": "project scores of team fraud in environment dev",
    "environment/fraud//dev": "team fraud in environment dev",
    "key/key_1": "this key",
    "key/key_1@held": "this key",
    "batch/key/key_1": "this key",
    "user/ada": "user ada",
    "user/okta:a/b": "user okta:a/b",
    "user/ada@analysts": "user ada@analysts",
    "batch/team/fraud": "team fraud",
}


@pytest.mark.parametrize(("scope", "name"), NAMES.items())
def test_levels_as_a_person_calls_them(scope: str, name: str) -> None:
    assert level_name(scope) == name


RATES = [
    (Rate("team/fraud", 60), "60 of 60 requests per minute used", RateLimited, "requests"),
    (Rate("batch/team/fraud", 60, period_ms=DAY_MS), "60 of 60 requests per day used", RateLimited, "requests"),
    (Rate("team/fraud", 60, "tokens"), "60 of 60 tokens per minute used", TokensLimited, "tokens"),
    (Rate("team/fraud", 60, "tokens", DAY_MS), "60 of 60 tokens per day used", TokensLimited, "tokens"),
]


@pytest.mark.parametrize(("rate", "used", "kind", "unit"), RATES)
def test_a_rate_that_refuses(rate: Rate, used: str, kind: type[SluiceError], unit: str) -> None:
    given = account()
    error = refusal(OverRate(Standing(rate, 0, 59_001), 1_001), asking(given), given, NOW_MS)
    assert error.message == f"Rate limit reached for team fraud: {used}. Try again in 2 s."
    assert isinstance(error, kind)
    assert (error.fault().type, error.fault().code) == (unit, "rate_limit_exceeded")
    assert told(error) == (
        429,
        {
            "retry-after": "2",
            "x-should-retry": "true",
            f"x-ratelimit-limit-{unit}": "60",
            f"x-ratelimit-remaining-{unit}": "0",
            f"x-ratelimit-reset-{unit}": "1m0s",
        },
    )


def test_a_rate_of_tokens_may_refuse_with_some_of_them_left() -> None:
    given, rate = account(), Rate("key/key_1", 1_000, "tokens")
    error = refusal(OverRate(Standing(rate, 100, 54_000), 6_000), asking(given), given, NOW_MS)
    assert error.message == "Rate limit reached for this key: 900 of 1000 tokens per minute used. Try again in 6 s."
    assert error.headers["x-ratelimit-remaining-tokens"] == "100"


def test_headers_tell_of_the_tightest_limit_of_each_kind() -> None:
    standings = [
        Standing(Rate("organization/acme", 6_000), 5_000, 10_000),
        Standing(Rate("team/fraud", 60), 3, 57_000),
        Standing(Rate("team/fraud", 10_000, period_ms=DAY_MS), 9_000, 8_640_000),
        Standing(Rate("key/key_1", 1_000, "tokens"), 10, 120),
    ]
    assert rate_headers(standings) == {
        "x-ratelimit-limit-requests": "60",
        "x-ratelimit-remaining-requests": "3",
        "x-ratelimit-reset-requests": "57s",
        "x-ratelimit-limit-tokens": "1000",
        "x-ratelimit-remaining-tokens": "10",
        "x-ratelimit-reset-tokens": "120ms",
    }
    assert rate_headers([]) == {}


@pytest.mark.parametrize(
    ("of_ms", "written"),
    [(0, "0ms"), (999, "999ms"), (1_000, "1s"), (1_001, "2s"), (60_000, "1m0s"), (360_000, "6m0s"), (59_999, "1m0s")],
)
def test_durations_as_openai_writes_them(of_ms: int, written: str) -> None:
    assert duration(of_ms) == written


def test_no_room() -> None:
    given = account()
    error = refusal(NoRoom(Room("project/fraud/scores", 3)), asking(given), given, NOW_MS)
    assert error.message == (
        "Concurrency limit reached for project scores of team fraud: 3 of 3 requests are running. "
        "Try again when one of them has ended."
    )
    assert told(error) == (429, {"retry-after": "1", "x-should-retry": "true"})


def test_a_closed_ledger_is_our_fault_and_passes() -> None:
    given = account()
    error = refusal(Closed(), asking(given), given, NOW_MS)
    assert isinstance(error, Unavailable)
    assert error.fault().code == "budget_unavailable"
    assert told(error) == (503, {"retry-after": "2", "x-should-retry": "true"})


@pytest.mark.parametrize("unit", ["requests", "tokens"])
@pytest.mark.parametrize("refused", [OverRate, NoRoom, OverBudget])
def test_budgets_are_not_asked_again_and_everything_else_is(refused: type, unit: Any) -> None:
    given = account(usd(1, tokens=1))
    request = asking(given)
    of_kind: dict[type, Refused] = {
        OverRate: OverRate(Standing(Rate("team/fraud", 1, unit), 0, 1), 1),
        NoRoom: NoRoom(Room("team/fraud", 1)),
        OverBudget: OverBudget(request.limits.allowances[0], "tokens" if unit == "tokens" else "usd", 1, 0),
    }
    fault = refusal(of_kind[refused], request, given, NOW_MS).fault()
    assert fault.should_retry is (refused is not OverBudget)
    assert fault.owner == "caller"


def test_more_tokens_than_any_minute_has_are_refused_for_good() -> None:
    given = account(tokens_per_minute=1_000)
    check_size(asking(given, tokens=1_000))
    with pytest.raises(TooLarge) as refused:
        check_size(asking(given, tokens=1_001))
    assert refused.value.message == (
        "Request too large for team fraud in environment dev: the limit is 1000 tokens per minute, and it may need 1001. "
        "Shorten the prompt, or set max_tokens lower."
    )
    assert told(refused.value) == (429, {"x-should-retry": "false"})
    assert refused.value.fault().code == "rate_limit_exceeded"


def test_every_kind_of_rate_at_every_level() -> None:
    limits = Limits(requests_per_minute=1, requests_per_day=2, tokens_per_minute=3, tokens_per_day=4)
    levels = (Level("team/fraud", 1, Policy(limits=limits)), Level("key/key_1", 1, Policy()), Level("", 0, Policy()))
    given = Account((*levels, Level("user/ada", 1, Policy(limits=Limits(requests_per_minute=5)), "@analysts")), "UTC")
    assert given.rates(Lane.INTERACTIVE) == (
        Rate("team/fraud", 1, "requests", MINUTE_MS),
        Rate("team/fraud", 2, "requests", DAY_MS),
        Rate("team/fraud", 3, "tokens", MINUTE_MS),
        Rate("team/fraud", 4, "tokens", DAY_MS),
        Rate("user/ada@analysts", 5, "requests", MINUTE_MS),
    )
    assert [rate.scope for rate in given.rates(Lane.BATCH)] == ["batch/team/fraud"] * 4 + ["batch/user/ada@analysts"]
    assert len({rate.key for lane in Lane for rate in given.rates(lane)}) == 10


def test_a_key_that_is_held_has_a_rate_besides() -> None:
    given = Account((Level("key/key_1", 1, Policy(limits=Limits(requests_per_minute=600))),), "UTC", throttled=3)
    assert given.rates(Lane.INTERACTIVE) == (Rate("key/key_1", 600), Rate("key/key_1@held", 3))


def test_an_interactive_request_takes_everything_at_once() -> None:
    given = account(usd(50), concurrency=3, requests_per_minute=60)
    request = asking(given, 2, tokens=7)
    assert request.limits == AllLimits((Rate(ENVIRONMENT, 60),), (Room(ENVIRONMENT, 3),), given.allowances(NOW_MS))
    assert (request.holds, request.tokens, request.usd_nano) == (True, 7, 2 * NANO)
    assert request.lease_ms == 120_000 + LEASE_GRACE_MS


def test_batch_takes_its_place_and_its_money_when_it_is_sent_out() -> None:
    given = account(usd(50), concurrency=3, requests_per_minute=60)
    request = asking(given, 2, lane=Lane.BATCH)
    assert (request.limits.rooms, request.holds) == ((), False)
    assert request.limits.rates == (Rate(f"batch/{ENVIRONMENT}", 60),)
    sent_out = given.limits(Lane.BATCH, NOW_MS, sent_out=True)
    assert (sent_out.rates, sent_out.rooms) == ((), (Room(ENVIRONMENT, 3),))
    assert sent_out.allowances == request.limits.allowances


def test_what_nobody_limits_need_not_be_estimated() -> None:
    free = account(usd(50, hard=False), requests_per_minute=60)
    assert not free.needs_money(NOW_MS)
    assert not free.needs_tokens(Lane.INTERACTIVE, NOW_MS)
    by_tokens = account(tokens_per_minute=60)
    assert (by_tokens.needs_money(NOW_MS), by_tokens.needs_tokens(Lane.BATCH, NOW_MS)) == (False, True)
    budget = account(Budget(tokens=5))
    assert (budget.needs_money(NOW_MS), budget.needs_tokens(Lane.BATCH, NOW_MS)) == (False, True)
    assert account(usd(0)).needs_money(NOW_MS)
