"""`sluice teams`: who gets a bill."""

from datetime import UTC, datetime
from typing import Annotated

import typer
from pydantic import JsonValue

from schemas.base import JsonObject
from services.cli.client import Api, DataDir, Json, find
from services.cli.output import emit, line, note, table

app = typer.Typer(add_completion=False, no_args_is_help=True, help="Teams: who gets a bill.")


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="lower case letters, digits, dot, dash and underscore")],
    rpm: Annotated[int | None, typer.Option("--rpm", min=1, help="requests per minute  [default: no limit]")] = None,
    as_json: Json = False,
    data_dir: DataDir = None,
) -> None:
    """Create a team, with the Kafka topic on which it reads its results."""
    body: JsonObject = {"name": name}
    if rpm is not None:
        body["requests_per_minute"] = rpm
    team = Api.admin(find(data_dir)).post("/admin/v1/teams", body)
    if as_json:
        emit(team)
    else:
        line(text(team, "name"))
        note(f"A key for it: sluice keys create --team {name}")


@app.command("list")
def list_(as_json: Json = False, data_dir: DataDir = None) -> None:
    """List the teams."""
    teams = listed(Api.admin(find(data_dir)).get("/admin/v1/teams"))
    if as_json:
        emit(list[JsonValue](teams))
        return
    table(
        ["name", "requests per minute", "created", "id"],
        [[text(t, "name"), _rpm(t), moment(t.get("created_ms")), text(t, "id")] for t in teams],
        right=[1],
    )


def listed(answer: JsonObject) -> list[JsonObject]:
    """The objects of a list as the API gives it."""
    data = answer.get("data")
    return [item for item in data if isinstance(item, dict)] if isinstance(data, list) else []


def text(item: JsonObject, member: str) -> str:
    """A member as text; empty if it is missing or null."""
    value = item.get(member)
    return "" if value is None else str(value)


def moment(unix_ms: JsonValue) -> str:
    """A time for a person, in UTC."""
    if not isinstance(unix_ms, int | float) or not unix_ms:
        return ""
    return datetime.fromtimestamp(unix_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M")


def _rpm(team: JsonObject) -> str:
    policy = team.get("policy")
    limits = policy.get("limits") if isinstance(policy, dict) else None
    return text(limits, "requests_per_minute") if isinstance(limits, dict) else ""
