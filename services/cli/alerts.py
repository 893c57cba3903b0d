"""`sluice alerts`: budgets that burn, keys that run away, parts that are away; and the channels by which they are told."""

import json
import time
from typing import Annotated

import typer
from pydantic import JsonValue

from schemas.alert import AlertKind
from schemas.base import JsonObject
from services.cli.client import Api, DataDir, Json, find
from services.cli.output import Failed, cell, emit, line, listed, moment, note, table, text

PAUSE_S = 2.0
_PATH = "/admin/v1/alerts"
_CHANNELS = "/admin/v1/alert_channels"

app = typer.Typer(add_completion=False, help="Alerts: budgets that burn, keys that run away; and who is told.")


@app.callback(invoke_without_command=True)
def alerts(
    context: typer.Context,
    team: Annotated[str | None, typer.Option(help="only those about this team and what is its own")] = None,
    what: Annotated[AlertKind | None, typer.Option(help="only those of this kind")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="how many")] = 20,
    after: Annotated[str | None, typer.Option(help="only those before this one: the last of the page before")] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="go on with those to come, until Ctrl-C")] = False,
    as_json: Json = False,
    data_dir: DataDir = None,
) -> None:
    """List the alerts of the last day, the youngest first. With --follow the youngest comes last, with --json too one a line."""
    if context.invoked_subcommand is not None:
        return
    api = Api.admin(find(data_dir))
    given = {"team": team, "what": what}
    params = {name: value for name, value in given.items() if value is not None}
    if follow:
        _follow(api, params, limit, as_json=as_json)
        return
    answer = api.get(_PATH, limit=str(limit), **params, **({"after": after} if after else {}))
    found = listed(answer)
    if as_json:
        emit(list[JsonValue](found))
    else:
        members = ["severity", "what", "team", "scope", "message"]
        table(["at", *members], [[moment(one.get("at_ms")), *(text(one, member) for member in members)] for one in found])
    if answer.get("has_more"):
        note(f"There may be more: --after {text(answer, 'last_id')}")


@app.command()
def show(
    alert: Annotated[str, typer.Argument(metavar="ALERT", help="its id, or a link to it")],
    as_json: Json = False,
    data_dir: DataDir = None,
) -> None:
    """Show an alert of the last day, with its numbers."""
    found = Api.admin(find(data_dir)).get(f"{_PATH}/{alert.rstrip('/').rpartition('/')[2]}")
    if as_json:
        emit(found)
        return
    facts = found.get("facts")
    members = ["id", "severity", "what", "team", "scope", "message", "link"]
    rows = [["at", moment(found.get("at_ms"))], *([member, text(found, member)] for member in members)]
    rows += [[name, str(value)] for name, value in (facts.items() if isinstance(facts, dict) else ())]
    table(["member", "value"], rows)


@app.command()
def channels(as_json: Json = False, data_dir: DataDir = None) -> None:
    """List the channels by which alerts are told. `alerts.channels` of a sluice.yaml says which there are."""
    found = listed(Api.admin(find(data_dir)).get(_CHANNELS))
    if as_json:
        emit(list[JsonValue](found))
    else:
        table(["name", "kind", "to", "only"], [[text(o, "name"), text(o, "kind"), text(o, "to"), _only(o)] for o in found])


@app.command("test")
def try_(
    channel: Annotated[str, typer.Argument(metavar="CHANNEL", help="its name")],
    as_json: Json = False,
    data_dir: DataDir = None,
) -> None:
    """Send a test alert by a channel, once, and say what came of it."""
    answer = Api.admin(find(data_dir)).post(f"{_CHANNELS}/{channel}/test", {})
    if as_json:
        emit(answer)
    elif answer.get("delivered"):
        note(f"Delivered: {text(answer, 'id')} was taken by channel {channel}.")
    if not answer.get("delivered"):
        raise Failed(f"Not delivered: {text(answer, 'reason')}")


def _only(channel: JsonObject) -> str:
    only = channel.get("only")
    wanted = (
        [f"{name}: {', '.join(map(str, of))}" for name, of in (only or {}).items() if isinstance(of, list)]
        if isinstance(only, dict)
        else []
    )
    return "; ".join(wanted) or "all"


def _follow(api: Api, params: dict[str, str], limit: int, *, as_json: bool) -> None:
    seen: frozenset[str] = frozenset()
    page = listed(api.get(_PATH, limit=str(limit), **params))
    try:
        while True:
            for one in reversed(page):
                line(json.dumps(one, ensure_ascii=False) if as_json else _line(one))
            seen |= {text(one, "id") for one in page}
            time.sleep(PAUSE_S)
            page, seen = _fresh(api, params, seen)
    except KeyboardInterrupt:
        return


def _fresh(api: Api, params: dict[str, str], seen: frozenset[str]) -> tuple[list[JsonObject], frozenset[str]]:
    """The alerts that are not among those seen, the youngest first; and of those seen which are still there."""
    page = listed(api.get(_PATH, limit="1000", **params))
    there = {text(one, "id") for one in page}
    older = next((place for place, one in enumerate(page) if text(one, "id") in seen), len(page))
    return page[:older], seen & there


def _line(one: JsonObject) -> str:
    return cell("  ".join((moment(one.get("at_ms")), text(one, "severity"), text(one, "message"))))
