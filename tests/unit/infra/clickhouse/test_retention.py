"""How long rows are kept."""

import pytest
from pydantic import ValidationError

from infra.clickhouse.retention import change
from infra.settings import Settings

PLAIN = "CREATE TABLE sluice.usage_log (ts DateTime64(3)) ENGINE = MergeTree ORDER BY ts SETTINGS x = 1"
NINETY = PLAIN.replace(" SETTINGS", " TTL toDateTime(ts) + toIntervalDay(90) SETTINGS")


@pytest.mark.parametrize(
    ("days", "stands", "statement"),
    [
        (0, PLAIN, None),
        (90, NINETY, None),
        (90, PLAIN, "ALTER TABLE sluice.usage_log MODIFY TTL toDateTime(ts) + toIntervalDay(90)"),
        (365, NINETY, "ALTER TABLE sluice.usage_log MODIFY TTL toDateTime(ts) + toIntervalDay(365)"),
        (0, NINETY, "ALTER TABLE sluice.usage_log REMOVE TTL"),
    ],
)
def test_a_table_is_changed_only_if_it_stands_otherwise(days: int, stands: str, statement: str | None) -> None:
    assert change("usage_log", days, stands) == statement


def test_rows_that_budgets_and_reports_need_cannot_be_given_up() -> None:
    with pytest.raises(ValidationError, match="last 35 days"):
        Settings(keep_usage_days=34)
    assert Settings(keep_usage_days=35, keep_attempts_days=0).keep_usage_days == 35
