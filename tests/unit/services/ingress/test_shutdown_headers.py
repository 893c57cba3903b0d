"""What an answer says of a model that will be shut down."""

from datetime import UTC, date, datetime
from email.utils import parsedate_to_datetime

import pytest

from schemas.control import Deployment, Model
from services.ingress.http.responses import sunset_headers

NOW_MS = int(datetime(2027, 3, 1, 12, tzinfo=UTC).timestamp() * 1000)


def model(*days: str | None) -> Model:
    """One whose deployments are shut down on these days."""
    ends = [date.fromisoformat(day) if day else None for day in days]
    return Model(
        name="m",
        deployments=tuple(Deployment(id=f"d{n}", provider="p", model="x", shutdown_date=end) for n, end in enumerate(ends)),
    )


@pytest.mark.parametrize(
    ("days", "told"),
    [
        ((), None),
        ((None, None), None),
        (("2027-05-30",), "Sun, 30 May 2027 00:00:00 GMT"),
        (("2027-05-31",), None),
        ((None, "2028-01-01", "2027-03-02"), "Tue, 02 Mar 2027 00:00:00 GMT"),
        (("2027-01-01",), "Fri, 01 Jan 2027 00:00:00 GMT"),
    ],
)
def test_the_first_end_is_told_from_ninety_days_before_it(days: tuple[str | None, ...], told: str | None) -> None:
    found = sunset_headers(model(*days), NOW_MS)
    assert found.get("sunset") == told
    assert ("deprecation" in found) == (told is not None)


def test_it_is_deprecated_before_it_ends() -> None:
    found = sunset_headers(model("2027-03-31"), NOW_MS)
    since = datetime.fromtimestamp(int(found["deprecation"].removeprefix("@")), UTC)
    assert (parsedate_to_datetime(found["sunset"]) - since).days == 90
