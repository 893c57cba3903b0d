"""Hours of the day: over midnight, and on days on which clocks are changed."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.gates import WindowGate
from services.router.gates.window import Window

MINUTE_MS = 60_000


def gate(window: str, tz: str = "UTC") -> Window:
    return Window(WindowGate(window=window, tz=tz))


def ms(text: str) -> int:
    return round(datetime.fromisoformat(text).timestamp() * 1000)


CASES = [
    ("within", "09:00-17:00", "UTC", "2026-03-02T12:00+00:00", None),
    ("its first minute", "09:00-17:00", "UTC", "2026-03-02T09:00+00:00", None),
    ("the minute before", "09:00-17:00", "UTC", "2026-03-02T08:59:59+00:00", "2026-03-02T09:00+00:00"),
    ("its end is no part of it", "09:00-17:00", "UTC", "2026-03-02T17:00+00:00", "2026-03-03T09:00+00:00"),
    ("over midnight, before", "22:00-06:00", "UTC", "2026-03-02T23:00+00:00", None),
    ("over midnight, after", "22:00-06:00", "UTC", "2026-03-02T05:59+00:00", None),
    ("over midnight, by day", "22:00-06:00", "UTC", "2026-03-02T06:00+00:00", "2026-03-02T22:00+00:00"),
    ("until midnight", "18:00-00:00", "UTC", "2026-03-02T00:00+00:00", "2026-03-02T18:00+00:00"),
    ("by the clock of the place, in winter", "22:00-06:00", "Europe/Berlin", "2026-01-02T20:00+00:00", "2026-01-02T21:00+00:00"),
    ("by the clock of the place, in summer", "22:00-06:00", "Europe/Berlin", "2026-07-02T19:00+00:00", "2026-07-02T20:00+00:00"),
    # On 29 March 2026 clocks in Berlin go from 02:00 to 03:00 at 01:00 UTC.
    ("a beginning that the day leaves out", "02:30-06:00", "Europe/Berlin", "2026-03-29T00:30+00:00", "2026-03-29T01:00+00:00"),
    ("a window that the day leaves out", "02:15-02:45", "Europe/Berlin", "2026-03-29T00:30+00:00", "2026-03-30T00:15+00:00"),
    # On 25 October 2026 the hour from 02:00 comes twice: at 00:00 and at 01:00 UTC.
    ("an hour that comes twice, first", "02:00-03:00", "Europe/Berlin", "2026-10-25T00:30+00:00", None),
    ("an hour that comes twice, again", "02:00-03:00", "Europe/Berlin", "2026-10-25T01:30+00:00", None),
    ("closed between the two", "02:00-02:30", "Europe/Berlin", "2026-10-25T00:45+00:00", "2026-10-25T01:00+00:00"),
]


@pytest.mark.parametrize(("window", "tz", "now", "opens"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_when_it_opens(window: str, tz: str, now: str, opens: str | None) -> None:
    assert gate(window, tz).closed_until(ms(now)) == (ms(opens) if opens else 0)


HOURS = st.integers(0, 24 * 60 - 1).map(lambda minute: f"{minute // 60:02}:{minute % 60:02}")
WINDOWS = st.tuples(HOURS, HOURS).filter(lambda pair: pair[0] != pair[1]).map("-".join)
ZONES = st.sampled_from(["UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata", "Australia/Lord_Howe", "Pacific/Apia"])
TIMES = st.integers(ms("2026-01-01T00:00+00:00"), ms("2027-12-31T00:00+00:00"))


def is_open(window: str, tz: str, at_ms: int) -> bool:
    """By the clock on the wall, written out."""
    begins, _, ends = window.partition("-")
    wall = datetime.fromtimestamp(at_ms / 1000, ZoneInfo(tz)).strftime("%H:%M")
    return begins <= wall < ends if begins < ends else not ends <= wall < begins


@settings(deadline=None, max_examples=60)
@given(WINDOWS, ZONES, TIMES)
def test_it_is_open_when_it_said_it_would_be_and_not_a_minute_before(window: str, tz: str, now_ms: int) -> None:
    opens = gate(window, tz).closed_until(now_ms)
    assert bool(opens) != is_open(window, tz, now_ms)
    if opens:
        assert opens > now_ms
        assert is_open(window, tz, opens)
        assert not is_open(window, tz, opens - 1)
        assert opens - now_ms <= timedelta(days=2).total_seconds() * 1000
        for step in range(1, 50):
            assert not is_open(window, tz, now_ms + (opens - 1 - now_ms) * step // 50)


def test_every_rule_of_a_year_that_changes_its_clocks_is_found_in_time() -> None:
    """A gate that stays closed a day too long is as bad as none: each day opens it once."""
    at, opened = datetime(2026, 1, 1, tzinfo=UTC), 0
    window = gate("02:30-02:31", "Europe/Berlin")
    while at.year == 2026:
        opens = window.closed_until(round(at.timestamp() * 1000))
        at = datetime.fromtimestamp(opens / 1000, UTC) + timedelta(minutes=1)
        opened += 1
    assert opened == 365 - 1 + 1 + 1, "one day leaves it out, one has it twice, and one more begins the next year"
