"""`sluice policy explain`: who may do what, and which level says so; of a job, what decided it and what would today."""

import json
from typing import Annotated

import typer
from pydantic import JsonValue

from schemas.base import JsonObject
from services.cli.client import Api, DataDir, Json, find
from services.cli.jobs import job_id
from services.cli.output import emit, line, moment, note, table, text

app = typer.Typer(add_completion=False, no_args_is_help=True)

_NARROWED = frozenset({"models", "lanes", "route.providers", "data.regions"})
"""Of these all are allowed where nobody has said anything."""


@app.callback()
def _policies() -> None:  # pyright: ignore[reportUnusedFunction]  # with one command, typer would make no group of it
    """Policies: what applies, and which level says so."""


@app.command()
def explain(
    key: Annotated[str, typer.Option(metavar="ID", help="of this virtual key, as `sluice keys list` shows it")] = "",
    team: Annotated[str, typer.Option(help="of this team")] = "",
    project: Annotated[str, typer.Option(help="in this project")] = "",
    environment: Annotated[str, typer.Option(help="in this environment")] = "",
    user: Annotated[str, typer.Option(help="asked by this user")] = "",
    job: Annotated[str, typer.Option(metavar="JOB", help="what decided this job, and what today's policy would do")] = "",
    as_json: Json = False,
    data_dir: DataDir = None,
) -> None:
    """Show the policy that applies, every level that it comes from, and which level decided each member.

    Of a job that has ended: the policy that decided it, what is different today, and whether it would be admitted now.
    """
    if sum(map(bool, (key, team, job))) != 1:
        raise typer.BadParameter("say whose: one of --key, --team and --job")
    if key.startswith("sk-"):
        raise typer.BadParameter("give the id of the key (key_…), never its secret")
    asked = {"key": key, "team": team, "project": project, "environment": environment, "user": user}
    asked["job"] = job_id(job) if job else ""
    told = Api.admin(find(data_dir)).get("/admin/v1/policy/explain", **{name: value for name, value in asked.items() if value})
    if as_json:
        emit(told)
    elif job:
        _show_job(told)
    else:
        _show_caller(told)


def _show_caller(told: JsonObject) -> None:
    now = _object(told.get("now"))
    line(f"{_who(_object(told.get('caller')))}: policy {text(now, 'version')}")
    _show_policy(now)
    _show_verdict(told, only_refused=True)


def _show_job(told: JsonObject) -> None:
    job, then = _object(told.get("job")), _object(told.get("then"))
    how = ", ".join(filter(None, (text(job, "status"), text(job, "error_type"))))
    accepted = moment(job.get("accepted_ms"))
    line(f"{text(job, 'job_id')}: {text(job, 'model')} ({text(job, 'lane')}), accepted {accepted}, {how}")
    line(f"{_who(_object(told.get('caller')))}: decided by policy {text(then, 'version')}")
    _show_policy(then)
    changes = _objects(told.get("differences"))
    now = text(_object(told.get("now")), "version")
    line(f"\nToday, policy {now}: " + ("different in" if changes else "the same"))
    if changes:
        table(["member", "then", "now"], [[text(one, "member"), _value(one, "then"), _value(one, "now")] for one in changes])
    _show_verdict(told, only_refused=False)


def _show_policy(policy: JsonObject) -> None:
    levels = [[text(one, "level"), _version(one), _written(one)] for one in _objects(policy.get("levels"))]
    table(["level", "version", ""], levels, right=[1])
    line("")
    members = [[text(one, "member"), _value(one, "value"), _decided(one)] for one in _objects(policy.get("members"))]
    table(["member", "value", "decided by"], members)
    limits = _objects(policy.get("limits"))
    if limits:
        line("")
        table(
            ["level", "limits", "budgets"],
            [[text(one, "level"), _value(one, "limits"), _value(one, "budgets")] for one in limits],
        )


def _show_verdict(told: JsonObject, *, only_refused: bool) -> None:
    today, reasons = text(told, "today"), told.get("reasons")
    if today != "admitted" or not only_refused:
        line(
            "\n" + ": ".join(filter(None, (f"today: {today}", "; ".join(map(str, reasons)) if isinstance(reasons, list) else "")))
        )
    notes = told.get("notes")
    for one in notes if isinstance(notes, list) else []:
        note(f"Note: {one}.")


def _who(caller: JsonObject) -> str:
    named = [("key_id", "key"), ("team", "team"), ("project", "project"), ("environment", "environment"), ("user", "user")]
    parts = [f"{word} {text(caller, member)}" for member, word in [*named, ("identity", "identity")] if text(caller, member)]
    return ", ".join(parts)


def _version(level: JsonObject) -> str:
    return text(level, "version") if level.get("version") else ""


def _written(level: JsonObject) -> str:
    """What a level says: the members of its policy that somebody set."""
    document = level.get("document")
    if not isinstance(document, dict):
        return "known no more" if level.get("version") else "nothing written"
    policy = _object(document.get("policy"))
    said = [name for name, value in policy.items() if value not in (None, [], {}) and not _is_blank(value)]
    return ", ".join(said) or "says nothing"


def _is_blank(value: JsonValue) -> bool:
    return isinstance(value, dict) and all(member is None for member in value.values())


def _decided(member: JsonObject) -> str:
    level, before = text(member, "decided_by"), member.get("narrowed_from")
    if not level:
        return "default"
    by = f"{level} v{text(member, 'version')}"
    return f"{by}, narrowed from {', '.join(map(str, before))}" if isinstance(before, list) and before else by


def _value(item: JsonObject, member: str) -> str:
    """A value for a person: lists without brackets, objects as JSON."""
    value = item.get(member)
    if value is None and text(item, "member") in _NARROWED:
        return "all"
    if isinstance(value, list) and all(isinstance(one, str) for one in value):
        return ", ".join(map(str, value)) or "none"
    if isinstance(value, dict | list):
        return json.dumps(value, ensure_ascii=False) if value else ""
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else "" if value is None else str(value)


def _object(value: JsonValue) -> JsonObject:
    return value if isinstance(value, dict) else {}


def _objects(value: JsonValue) -> list[JsonObject]:
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []
