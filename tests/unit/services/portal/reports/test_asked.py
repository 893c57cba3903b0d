"""What a report is asked for."""

from datetime import UTC, date, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.errors import InvalidRequest
from services.portal.reports.asked import ChargebackAsked, PeriodAsked, Window, breakdown, month_of, window
from services.portal.reports.sums import SUMS, select

NOW_MS = round(datetime(2026, 11, 30, 23, 30, tzinfo=UTC).timestamp() * 1000)
DAY_MS = 86_400_000

PERIODS: list[tuple[dict[str, str], Window]] = [
    ({}, Window(date(2026, 11, 1), date(2026, 11, 30), "UTC")),
    ({"time_zone": "Europe/Berlin"}, Window(date(2026, 12, 1), date(2026, 12, 31), "Europe/Berlin")),
    ({"month": "2028-02"}, Window(date(2028, 2, 1), date(2028, 2, 29), "UTC")),
    ({"from": "2026-11-03", "to": "2026-11-03"}, Window(date(2026, 11, 3), date(2026, 11, 3), "UTC")),
]
WRONG = [
    ({"month": "2026-13"}, "month"),
    ({"month": "November"}, "month"),
    ({"from": "2026-11-03"}, "to"),
    ({"to": "2026-11-03"}, "from"),
    ({"from": "2026-11-03", "to": "2026-11-02"}, "to"),
    ({"month": "2026-11", "from": "2026-11-01", "to": "2026-11-02"}, "month"),
    ({"time_zone": "../etc/passwd"}, "time_zone"),
    ({"month": "9999-12"}, "month"),
    ({"from": "0001-01-01", "to": "2026-11-01", "time_zone": "Europe/Berlin"}, "from"),
    ({"from": "2026-11-01", "to": "9999-12-31"}, "to"),
]


@pytest.mark.parametrize(("said", "expected"), PERIODS)
def test_a_period_is_a_month_or_days(said: dict[str, str], expected: Window) -> None:
    assert window(PeriodAsked.model_validate(said), NOW_MS) == expected


@pytest.mark.parametrize(("said", "param"), WRONG)
def test_what_is_no_period_is_named(said: dict[str, str], param: str) -> None:
    with pytest.raises(InvalidRequest) as told:
        window(PeriodAsked.model_validate(said), NOW_MS)
    assert told.value.param == param


def test_a_month_in_which_the_clock_changes_has_an_hour_more() -> None:
    moments = month_of(date(2026, 10, 5), "Europe/Berlin").parameters()
    assert int(str(moments["to_ms"])) - int(str(moments["from_ms"])) == 31 * DAY_MS + 3_600_000


def test_a_month_is_over_at_its_last_midnight() -> None:
    month = month_of(date(2026, 11, 1), "UTC")
    end_ms = round(datetime(2026, 12, 1, tzinfo=UTC).timestamp() * 1000)
    assert (month.is_over(end_ms - 1), month.is_over(end_ms)) == (False, True)


@given(st.text(min_size=1, max_size=80).filter(lambda text: "," not in text and text.strip()))
def test_nothing_that_somebody_writes_gets_into_the_query(text: str) -> None:
    by = breakdown(f"team,metadata.{text}")
    plain = breakdown("team,metadata.x")
    assert list(by.parameters.values()) == [text.rstrip()]
    assert select(by, SUMS, "usage", of_teams=True) == select(plain, SUMS, "usage", of_teams=True)


def test_the_names_of_metadata_are_bound_in_their_order() -> None:
    by = breakdown("metadata.a, team ,metadata.b,team")
    assert by.names == ("metadata.a", "team", "metadata.b")
    assert by.sql == ("u.metadata[{metadata_0:String}]", "u.team", "u.metadata[{metadata_2:String}]")
    assert by.parameters == {"metadata_0": "a", "metadata_2": "b"}


def test_teams_come_with_commas() -> None:
    assert ChargebackAsked(team="fraud, search,").teams() == ("fraud", "search")
