"""`sluice jobs`: asynchronous jobs of all teams."""

from typing import Annotated

import typer
from pydantic import JsonValue

from schemas.base import JsonObject
from schemas.ids import job_id_in
from schemas.job import JobStatus
from schemas.topics import Lane
from services.cli.client import Api, DataDir, Json, find
from services.cli.output import Failed, emit, listed, moment, note, table, text

app = typer.Typer(add_completion=False, no_args_is_help=True, help="Asynchronous jobs of all teams.")

JobId = Annotated[str, typer.Argument(metavar="JOB", help="job_…, resp_…, batch_req_…, evt_… or att_…")]


@app.command("list")
def list_(
    team: Annotated[str | None, typer.Option(help="only the jobs of this team")] = None,
    status: Annotated[JobStatus | None, typer.Option(help="only those that stand so")] = None,
    model: Annotated[str | None, typer.Option(help="only those that asked for this model")] = None,
    lane: Annotated[Lane | None, typer.Option(help="only those of this lane")] = None,
    limit: Annotated[int, typer.Option(min=1, max=100, help="how many")] = 20,
    after: Annotated[str | None, typer.Option(help="only those older than this one: the last of the page before")] = None,
    as_json: Json = False,
    data_dir: DataDir = None,
) -> None:
    """List the jobs that may be asked for, the youngest first."""
    given = {"team": team, "status": status, "model": model, "lane": lane, "after": after}
    params = {name: str(value) for name, value in given.items() if value is not None}
    answer = Api.admin(find(data_dir)).get("/admin/v1/jobs", limit=str(limit), **params)
    jobs = listed(answer)
    if as_json:
        emit(list[JsonValue](jobs))
    else:
        columns = ["id", "status", "team", "model", "lane", "accepted", "attempts", "USD"]
        table(columns, [_row(job) for job in jobs], right=[6, 7])
    if answer.get("has_more"):
        note(f"There may be more: --after {text(answer, 'last_id')}")


@app.command()
def show(job: JobId, as_json: Json = False, data_dir: DataDir = None) -> None:
    """Show how a job stands. `sluice trace` shows its way."""
    _tell(Api.admin(find(data_dir)).get(f"/admin/v1/jobs/{job_id(job)}"), as_json=as_json)


@app.command()
def cancel(job: JobId, as_json: Json = False, data_dir: DataDir = None) -> None:
    """Cancel a job: no provider is called for it any more, and a call that runs is closed.

    What has ended stays as it is; exit status 1 then.
    """
    answer = Api.admin(find(data_dir)).delete(f"/admin/v1/jobs/{job_id(job)}")
    _tell(answer, as_json=as_json)
    if text(answer, "status") != JobStatus.CANCELLED:
        raise Failed(f"It was too late to cancel it: {_status(answer)}.")


def job_id(given: str) -> str:
    """The job that an id names. Raises Failed."""
    found = job_id_in(given.strip())
    if found is None:
        raise Failed(f"{given[:64]!r} is not the id of a job: it looks like job_, resp_, batch_req_ or att_ and 32 hex digits.")
    return found


def _tell(job: JsonObject, *, as_json: bool) -> None:
    if as_json:
        emit(job)
        return
    caller, error = job.get("caller"), job.get("error")
    who = caller if isinstance(caller, dict) else {}
    rows = [
        ("status", _status(job)),
        ("team", "/".join(filter(None, (text(who, part) for part in ("team", "project", "environment"))))),
        ("key", text(who, "key_id")),
        ("model", f"{text(job, 'model')} ({text(job, 'api')}, {text(job, 'lane')})"),
        ("accepted", moment(job.get("accepted_ms"))),
        ("not before", moment(job.get("not_before_ms"))),
        ("deadline", moment(job.get("deadline_ms"))),
        ("ended", moment(job.get("ended_ms"))),
        ("attempts", text(job, "attempts")),
        ("USD", text(job, "cost_usd")),
        ("error", text(error, "message") if isinstance(error, dict) else ""),
    ]
    table(["id", text(job, "id")], [row for row in rows if row[1]])


def _status(job: JsonObject) -> str:
    return text(job, "status") or "ended; `sluice trace` says how"


def _row(job: JsonObject) -> list[str]:
    caller = job.get("caller")
    team = text(caller, "team") if isinstance(caller, dict) else ""
    status = text(job, "status") or "ended"
    asked = [text(job, member) for member in ("model", "lane")]
    return [text(job, "id"), status, team, *asked, moment(job.get("accepted_ms")), text(job, "attempts"), text(job, "cost_usd")]
