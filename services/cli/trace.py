"""`sluice trace`: the way of a job, from the books if it has ended, else from the job store."""

import time
from typing import Annotated

import typer
from pydantic import TypeAdapter

from services.cli.client import Api, DataDir, Json, System, find
from services.cli.jobs import job_id
from services.cli.output import Failed, emit, line, moment, note, table
from services.cli.sql import ask
from services.cli.timeline import AttemptRow, JobRow, StoredJob, Timeline, from_books, from_store, lines

PATIENCE_S = 4.0
"""What has just ended stands in the books after a second and a half, or two where they are busy."""
_PAUSE_S = 0.3

_JOB = """
SELECT job_id, status, error_type, team, key_id, user, identity, model, api, lane, cache, toString(cost_usd) AS cost_usd,
       trace_id, metadata, toUnixTimestamp64Milli(accepted) AS accepted_ms, toUnixTimestamp64Milli(ended) AS ended_ms, ended_by,
       arrayMap(step -> (step.1, toUnixTimestamp64Milli(step.2)), steps) AS steps, route, shadow_of
FROM sluice.usage WHERE job_id = '{job_id}'
"""
_ATTEMPTS = """
SELECT attempt_id, n, deployment, provider, status, http_status, error_type, prompt_tokens, completion_tokens,
       toString(cost_usd) AS cost_usd, toUnixTimestamp64Milli(ts) AS started_ms, latency_ms, ttft_ms, hedge
FROM sluice.attempts WHERE job_id = '{job_id}' ORDER BY n
"""

_JOBS: TypeAdapter[list[JobRow]] = TypeAdapter(list[JobRow])
_CALLS: TypeAdapter[list[AttemptRow]] = TypeAdapter(list[AttemptRow])


def trace(
    job: Annotated[str, typer.Argument(metavar="JOB", help="job_…, resp_…, batch_req_…, evt_… or att_…")],
    as_json: Json = False,
    data_dir: DataDir = None,
) -> None:
    """Show the way of a job: its acceptance, every stage, every provider call and its end, with times and cost.

    Times are milliseconds from its acceptance. What has just ended is known after two seconds.
    """
    timeline = _find(find(data_dir), job_id(job))
    if as_json:
        emit(timeline.model_dump(mode="json", exclude_none=True))
    else:
        _show(timeline)


def _find(system: System, wanted: str) -> Timeline:
    """Raises Failed."""
    ends_s = time.monotonic() + PATIENCE_S
    while True:
        if booked := _booked(system, wanted):
            return booked
        stored = _stored(system, wanted)
        if isinstance(stored, Timeline) and (stored.is_open or time.monotonic() >= ends_s):
            return stored
        if isinstance(stored, Failed) and time.monotonic() >= ends_s:
            raise stored
        time.sleep(_PAUSE_S)


def _booked(system: System, wanted: str) -> Timeline | None:
    jobs = _JOBS.validate_json(_rows(system, _JOB, wanted))
    return from_books(jobs[0], _CALLS.validate_json(_rows(system, _ATTEMPTS, wanted))) if jobs else None


def _rows(system: System, query: str, wanted: str) -> str:
    url = system.address("clickhouse")
    return ask(url if "://" in url else f"http://{url}", query.format(job_id=wanted), "JSONEachRow").text


def _stored(system: System, wanted: str) -> Timeline | Failed:
    """What the job store knows, or the words in which it says that it knows nothing."""
    try:
        return from_store(StoredJob.model_validate(Api.admin(system).get(f"/admin/v1/jobs/{wanted}")))
    except Failed as failed:
        return failed


def _show(timeline: Timeline) -> None:
    asked = f"{timeline.identity} for team" if timeline.identity else "team"
    key = f" by {timeline.key_id}" if timeline.key_id else ""
    who = f"{asked} {timeline.team}{key}, {timeline.model} ({timeline.api}, {timeline.lane})"
    how = [timeline.status, timeline.error, f"cache {timeline.cache}" if timeline.cache else None]
    calls = "1 attempt" if timeline.attempts == 1 else f"{timeline.attempts} attempts"
    cost = None if timeline.cost_usd is None else f"{timeline.cost_usd:f} USD in {calls}"
    line(f"{timeline.job_id}: {who}, accepted {moment(timeline.accepted_ms)}")
    copies = [f"replay of {timeline.replay_of}" if timeline.replay_of else None]
    copies += [f"shadow of {timeline.shadow_of}" if timeline.shadow_of else None]
    line(", ".join(filter(None, [*how, cost, *copies])))
    for why in timeline.route:
        line(why)
    columns = ["at", "", "what", "took", ""]
    table(columns, [(one.offset, one.bar, one.name, one.took, one.told) for one in lines(timeline)], right=[0, 3])
    if timeline.source == "store" and timeline.is_open:
        note(f"It has not ended: {calls} so far.")
