"""What people think of answers, from `sluice.feedback` into `sluice.feedback_log` (infra/clickhouse/migrations). Pure."""

from typing import Final

from infra.kafka.envelope import Poison, decode
from infra.kafka.log import Incoming
from schemas.feedback import Feedback
from schemas.ids import accepted_ms
from schemas.topics import FEEDBACK
from services.accounting import policy
from services.accounting.keeper import Keeping
from services.accounting.rows import Row


def row_of(record: Incoming) -> Row | Poison:
    """The row of an opinion, or why it has none."""
    given = decode(record, Feedback)
    if isinstance(given, Poison):
        return given
    try:
        job_ms = accepted_ms(given.job_id)
    except ValueError as error:
        return Poison("invalid", str(error))
    if not (0 <= job_ms < policy.MOST_MS and 0 <= given.at_ms < policy.MOST_MS):
        return Poison("unwritable", "a time is out of range")
    caller = given.caller
    return {
        "feedback_id": given.id,
        "ts": given.at_ms,
        "job_id": given.job_id,
        "job_ts": job_ms,
        "organization": caller.organization,
        "team": caller.team,
        "project": caller.project,
        "environment": caller.environment,
        "key_id": caller.key_id,
        "author": given.author,
        "name": given.name,
        "score": given.score,
        "label": given.label,
        "comment": given.comment,
        "version": given.at_ms,
    }


FEEDBACK_KEPT: Final = Keeping("feedback", (FEEDBACK.name,), "sluice.feedback_log", row_of)
