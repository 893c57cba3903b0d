"""`sluice approvals`: who needs a key, more budget or a model asks for it, and somebody with the right to decides."""

import re
from typing import Annotated, Literal

import typer
from pydantic import JsonValue

from schemas.base import JsonObject
from schemas.budget import Period
from services.cli.client import Api, DataDir, Json, find
from services.cli.output import Failed, emit, line, listed, moment, note, table, text

app = typer.Typer(add_completion=False, no_args_is_help=True, help="Ask for a key, more budget or a model, and decide.")
ask = typer.Typer(add_completion=False, no_args_is_help=True, help="Ask for something.")
app.add_typer(ask, name="ask")

PATH = "/admin/v1/approvals"
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400}

Team = Annotated[str, typer.Option("--team", help="whose it is to be")]
Why = Annotated[str, typer.Option("--why", help="for those who decide")]
For = Annotated[str | None, typer.Option("--for", help="how long it is to last: 30d, 12h …")]
Within = Annotated[str | None, typer.Option("--within", help="how long it may wait to be decided  [default: 7d]")]
Level = Annotated[
    str | None,
    typer.Option(help="team/NAME, project/TEAM/NAME, environment/TEAM/PROJECT/NAME, key/ID or user/NAME  [default: the team]"),
]
Id = Annotated[str, typer.Argument(metavar="ID", help="apr_…, as `sluice approvals list` shows it")]
Reason = Annotated[str, typer.Option("--reason", help="why")]


@ask.command("key")
def ask_key(
    team: Team,
    why: Why,
    project: Annotated[str, typer.Option(help="for the bill")] = "",
    environment: Annotated[str, typer.Option(help="dev, staging, prod …")] = "",
    user: Annotated[str, typer.Option(help="whose key it is to be")] = "",
    name: Annotated[str, typer.Option(help="what people call it")] = "",
    models: Annotated[str | None, typer.Option(help="the models that it may ask, with commas  [default: as the team]")] = None,
    usd: Annotated[str | None, typer.Option(help="a budget of its own, in USD")] = None,
    period: Annotated[Period, typer.Option(help="of that budget")] = Period.MONTH,
    for_: For = None,
    within: Within = None,
    as_json: Json = False,
    data_dir: DataDir = None,
) -> None:
    """Ask for a virtual key. When it is granted, `sluice approvals collect` gives it to you, once."""
    wanted: JsonObject = {"project": project, "environment": environment, "user": user, "name": name}
    if models is not None:
        wanted["models"] = [part.strip() for part in models.split(",") if part.strip()]
    if usd is not None:
        wanted["budget"] = {"usd": usd, "period": period.value}
    _ask(data_dir, "key", team, wanted, why, for_, within, as_json=as_json)


@ask.command("budget")
def ask_budget(
    team: Team,
    why: Why,
    usd: Annotated[str | None, typer.Option(help="so much more, in USD")] = None,
    tokens: Annotated[int | None, typer.Option(min=1, help="so many more tokens")] = None,
    period: Annotated[Period, typer.Option(help="of the budget that is to be increased")] = Period.MONTH,
    level: Level = None,
    for_: For = None,
    within: Within = None,
    as_json: Json = False,
    data_dir: DataDir = None,
) -> None:
    """Ask for more budget, for a time."""
    amounts: dict[str, JsonValue] = {"usd": usd, "tokens": tokens, "level": level}
    wanted: JsonObject = {name: value for name, value in amounts.items() if value is not None}
    _ask(data_dir, "budget", team, {**wanted, "period": period.value}, why, for_, within, as_json=as_json)


@ask.command("model")
def ask_model(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="its name")],
    team: Team,
    why: Why,
    level: Level = None,
    for_: For = None,
    within: Within = None,
    as_json: Json = False,
    data_dir: DataDir = None,
) -> None:
    """Ask for a model that the policy doesn't allow, for a time."""
    wanted: JsonObject = {"model": model, **({"level": level} if level else {})}
    _ask(data_dir, "model", team, wanted, why, for_, within, as_json=as_json)


@app.command("list")
def list_(
    team: Annotated[str | None, typer.Option(help="only the requests of this team")] = None,
    status: Annotated[
        Literal["pending", "granted", "refused", "expired", "collected"] | None, typer.Option(help="only those that stand so")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="how many")] = 100,
    after: Annotated[str | None, typer.Option(help="only those older than this one: the last of the page before")] = None,
    as_json: Json = False,
    data_dir: DataDir = None,
) -> None:
    """List requests, the youngest first."""
    given = {"team": team, "status": status, "after": after}
    params = {name: value for name, value in given.items() if value is not None}
    answer = Api.admin(find(data_dir)).get(PATH, limit=str(limit), **params)
    found = listed(answer)
    if as_json:
        emit(list[JsonValue](found))
    else:
        columns = ["id", "status", "what", "team", "wanted", "requester", "asked", "why"]
        table(columns, [_row(one) for one in found])
    if answer.get("has_more"):
        note(f"There may be more: --after {text(answer, 'last_id')}")


@app.command()
def show(approval_id: Id, as_json: Json = False, data_dir: DataDir = None) -> None:
    """Show a request, and what became of it."""
    _tell(Api.admin(find(data_dir)).get(f"{PATH}/{approval_id}"), as_json=as_json)


@app.command()
def grant(
    approval_id: Id,
    reason: Reason,
    for_: Annotated[str | None, typer.Option("--for", help="how long it lasts: 30d, 12h …  [default: as asked]")] = None,
    as_json: Json = False,
    data_dir: DataDir = None,
) -> None:
    """Grant a request. Nobody grants his own."""
    body: JsonObject = {"reason": reason, **_lasting(for_, "for_s")}
    answer = Api.admin(find(data_dir)).post(f"{PATH}/{approval_id}/grant", body)
    _tell(answer, as_json=as_json)
    if text(answer, "what") == "key" and not as_json:
        note(f"{text(answer, 'requester')} collects the key: sluice approvals collect {approval_id}")


@app.command()
def refuse(approval_id: Id, reason: Reason, as_json: Json = False, data_dir: DataDir = None) -> None:
    """Refuse a request."""
    _tell(Api.admin(find(data_dir)).post(f"{PATH}/{approval_id}/refuse", {"reason": reason}), as_json=as_json)


@app.command()
def collect(approval_id: Id, as_json: Json = False, data_dir: DataDir = None) -> None:
    """Collect the key that you asked for. It is shown only this once."""
    key = Api.admin(find(data_dir)).post(f"{PATH}/{approval_id}/collect", {})
    if as_json:
        emit(key)
        return
    line(text(key, "key"))
    until = moment(key.get("expires_ms"))
    note(f"{text(key, 'id')} of team {text(key, 'team')}{', good until ' + until if until else ''}. It is shown only this once.")


def seconds(duration: str) -> int:
    """A duration such as `30d`, `12h`, `45m` or `90s`, in seconds. Raises Failed."""
    found = re.fullmatch(r"([1-9][0-9]{0,8})([smhdw])", duration.strip().lower())
    if found is None:
        raise Failed(f"{duration[:32]!r} is no duration: write one such as 30d, 12h, 45m or 90s.", status=2)
    return int(found[1]) * _UNITS[found[2]]


def _lasting(duration: str | None, member: str) -> JsonObject:
    return {} if duration is None else {member: seconds(duration)}


def _ask(
    data_dir: DataDir,
    what: str,
    team: str,
    wanted: JsonObject,
    why: str,
    for_: str | None,
    within: str | None,
    *,
    as_json: bool,
) -> None:
    body: JsonObject = {"what": what, "team": team, "wanted": wanted, "why": why}
    answer = Api.admin(find(data_dir)).post(PATH, {**body, **_lasting(for_, "for_s"), **_lasting(within, "expires_in")})
    if as_json:
        emit(answer)
        return
    approval_id, until = text(answer, "id"), moment(answer.get("expires_ms"))
    line(approval_id)
    note(f"It waits until {until} UTC for somebody to decide: sluice approvals show {approval_id}")


def _tell(approval: JsonObject, *, as_json: bool) -> None:
    if as_json:
        emit(approval)
        return
    rows = [
        ("status", text(approval, "status")),
        ("wanted", f"{text(approval, 'what')}: {_wanted(approval)}"),
        ("team", text(approval, "team")),
        ("requester", text(approval, "requester")),
        ("why", text(approval, "why")),
        ("asked", moment(approval.get("created_ms"))),
        ("to be decided by", moment(approval.get("expires_ms")) if text(approval, "status") == "pending" else ""),
        ("decided by", text(approval, "decided_by")),
        ("decided", moment(approval.get("decided_ms"))),
        ("reason", text(approval, "reason")),
        ("ticket", text(approval, "ticket")),
        ("result", text(approval, "result")),
        ("lasts until", moment(approval.get("until_ms"))),
    ]
    table(["id", text(approval, "id")], [row for row in rows if row[1]])


def _row(approval: JsonObject) -> list[str]:
    asked = [text(approval, member) for member in ("id", "status", "what", "team")]
    return [*asked, _wanted(approval), text(approval, "requester"), moment(approval.get("created_ms")), text(approval, "why")]


def _wanted(approval: JsonObject) -> str:
    """What is asked for, in a line: `level=team/fraud, period=month, usd=500`."""
    wanted = approval.get("wanted")
    if not isinstance(wanted, dict):
        return ""
    return ", ".join(f"{name}={_value(value)}" for name, value in wanted.items() if value not in ("", None, 0, "0"))


def _value(value: JsonValue) -> str:
    if isinstance(value, list):
        return "+".join(map(str, value))
    if isinstance(value, dict):
        return "(" + ", ".join(f"{name}={one}" for name, one in value.items() if one not in ("", None, [], {})) + ")"
    return str(value)
