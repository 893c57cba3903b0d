"""What follows on a try, and when the next one is."""

from datetime import UTC, datetime
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.control import Organization, Team, VirtualKey
from schemas.policy import Policy, WebhookPolicy
from schemas.webhook import WebhookDelivery
from services.ingress.webhooks.policy import (
    MAX_TRIES,
    Again,
    Next,
    Over,
    PutAside,
    after_answer,
    after_failure,
    longest_wait_s,
    webhooks_of,
)

NOW_MS = 1_800_000_000_000
HOUR_S = 3600
FIRST = WebhookDelivery(id="evt_1", url="https://hooks.example/", team="fraud", payload={}, created_ms=NOW_MS)
LAST = FIRST.model_copy(update={"attempt": MAX_TRIES - 1})


def answered(status: int, retry_after: str = "", chance: float = 0, delivery: WebhookDelivery = FIRST) -> Next:
    return after_answer(delivery, status, retry_after, NOW_MS, chance)


def wait_s(following: Next) -> float:
    assert isinstance(following, Again)
    return (following.delivery.not_before_ms - NOW_MS) / 1000


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
def test_what_arrived_is_not_sent_again(status: int) -> None:
    assert answered(status) == Over("delivered")


def test_an_endpoint_that_is_gone_is_left_alone() -> None:
    assert answered(410) == Over("gone")


@pytest.mark.parametrize("status", [300, 301, 302, 303, 304, 307, 308])
def test_g32_a_redirect_is_refused_and_not_followed(status: int) -> None:
    following = answered(status)
    assert isinstance(following, PutAside)
    assert (following.how, str(status) in following.why) == ("refused", True)


@pytest.mark.parametrize("status", [100, 400, 401, 403, 404, 408, 409, 413, 418, 425, 429, 500, 502, 503, 504, 599, 999])
def test_anything_else_may_be_otherwise_later(status: int) -> None:
    following = answered(status)
    assert isinstance(following, Again)
    assert following.delivery == FIRST.model_copy(update={"attempt": 1, "not_before_ms": NOW_MS})


def test_an_end_comes_after_twelve_tries() -> None:
    for following in (answered(500, delivery=LAST), after_failure(LAST, "no answer", NOW_MS, 1)):
        assert isinstance(following, PutAside)
        assert following.how == "given_up"
        assert "12 tries" in following.why


def test_the_last_try_counts_as_any() -> None:
    assert answered(200, delivery=LAST) == Over("delivered")
    assert answered(410, delivery=LAST) == Over("gone")


def test_tries_are_spread_over_hours_and_end_within_a_day() -> None:
    waits = [longest_wait_s(n) for n in range(1, MAX_TRIES)]
    assert waits == [10, 30, 90, 270, 810, 2430, 7290, *[5 * HOUR_S] * 4]
    assert 20 * HOUR_S < sum(waits) < 24 * HOUR_S


@given(st.floats(0, 1), st.integers(0, MAX_TRIES - 2))
def test_those_who_failed_together_come_back_anywhere_in_the_wait(chance: float, attempt: int) -> None:
    following = after_failure(FIRST.model_copy(update={"attempt": attempt}), "x", NOW_MS, chance)
    assert wait_s(following) == pytest.approx(chance * longest_wait_s(attempt + 1), abs=0.001)


ASKED_FOR: dict[str, float] = {
    "120": 120,
    "0": 0,
    "": 0,
    "-5": 0,
    "1.5": 0,
    "soon": 0,
    "٣": 0,
    "9" * 400: 5 * HOUR_S,
    format_datetime(datetime.fromtimestamp(NOW_MS / 1000 + 120, UTC), usegmt=True): 120,
    format_datetime(datetime.fromtimestamp(NOW_MS / 1000 - 120, UTC), usegmt=True): 0,
    "Fri, 31 Dec 9999 23:59:59 GMT": 5 * HOUR_S,
    "Sun, 06 Nov 1994 08:49:37": 0,
}


@pytest.mark.parametrize("retry_after", ASKED_FOR)
def test_an_endpoint_that_says_when_is_not_asked_before(retry_after: str) -> None:
    assert wait_s(answered(503, retry_after)) == ASKED_FOR[retry_after]


def test_an_endpoint_that_says_when_may_be_asked_later() -> None:
    assert wait_s(answered(429, "2", chance=1)) == 10


@given(st.text() | st.from_regex(r"\A\w{3}, \d{1,3} \w{3} \d{1,6} \d\d:\d\d:\d\d [+-]?\w{1,6}\Z"))
def test_whatever_it_says_is_within_bounds(retry_after: str) -> None:
    assert 0 <= wait_s(answered(503, retry_after)) <= 5 * HOUR_S


def test_a_key_of_another_team_allows_nothing() -> None:
    """Whoever writes a record could name any key."""
    inside = Policy(webhooks=WebhookPolicy(internal=("hooks.internal",)))
    organization = Organization(id="org_1", name="acme")
    team = Team(id="team_1", name="fraud", organization="acme")
    key = VirtualKey(id="key_1", sha256="", last4="", team="fraud", policy=inside)
    assert webhooks_of(organization, team, key).internal == ("hooks.internal",)
    assert webhooks_of(organization, team, key.model_copy(update={"team": "search"})).internal == ()
    assert webhooks_of(organization, team, None).internal == ()
    assert webhooks_of(organization, team.model_copy(update={"policy": inside}), None).internal == ("hooks.internal",)
