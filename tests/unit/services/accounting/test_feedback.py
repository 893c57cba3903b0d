"""An opinion as a row."""

import re

import pytest

from infra.clickhouse.migrate import migrations
from infra.kafka.envelope import Poison, encode
from schemas.feedback import Feedback
from schemas.job import Caller
from schemas.topics import FEEDBACK
from services.accounting.feedback import FEEDBACK_KEPT, row_of
from tests.fakes.log import Record

CALLER = Caller(organization="acme", team="fraud", project="scores", environment="prod", key_id="key_1")
JOB_ID = "job_019b76daa8007000800000000000002a"
GIVEN = Feedback(
    id="fb_1", at_ms=1_800_000_000_000, job_id=JOB_ID, caller=CALLER, name="rating", author="ada", score=-1, label="rude"
)


def record(given: Feedback) -> Record:
    sent = encode(given, topic=FEEDBACK.name, key=given.job_id, event_id=given.id, source="ingress", now_ms=given.at_ms)
    return Record(FEEDBACK.name, 0, 7, given.at_ms, sent.key, sent.value, sent.headers)


def test_an_opinion_is_a_row_with_every_column_of_its_table() -> None:
    text = next(t for m in migrations() for t in m.statements if f"CREATE TABLE IF NOT EXISTS {FEEDBACK_KEPT.table}\n" in t)
    row = row_of(record(GIVEN))
    assert not isinstance(row, Poison)
    assert list(row) == re.findall(r"^    (\w+) ", text, re.MULTILINE)
    assert (row["job_id"], row["team"], row["score"], row["label"], row["author"]) == (JOB_ID, "fraud", -1, "rude", "ada")
    assert row["job_ts"] == int(JOB_ID.removeprefix("job_")[:12], 16)


@pytest.mark.parametrize("job_id", ["job_short", "job_" + "f" * 32])
def test_an_opinion_of_no_job_has_no_row(job_id: str) -> None:
    assert isinstance(row_of(record(GIVEN.model_copy(update={"job_id": job_id}))), Poison)
