"""`sluice teams`: who gets a bill."""

from typing import Annotated

import typer

from schemas.base import JsonObject
from services.cli.client import Api, DataDir, Json, find
from services.cli.output import emit, line, moment, note, text
from services.cli.resources import PREFIX, Models, PolicyPatch, add_delete, add_set_policy, add_show, policy_patch, show_list

app = typer.Typer(add_completion=False, no_args_is_help=True, help="Teams: who gets a bill.")


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="lower case letters, digits, dot, dash and underscore")],
    rpm: Annotated[int | None, typer.Option("--rpm", min=1, help="requests per minute  [default: no limit]")] = None,
    policy: PolicyPatch = None,
    models: Models = None,
    as_json: Json = False,
    data_dir: DataDir = None,
) -> None:
    """Create a team, with the Kafka topic on which it reads its results."""
    body: JsonObject = {"name": name, **policy_patch(policy, models)}
    if rpm is not None:
        body["requests_per_minute"] = rpm
    team = Api.admin(find(data_dir)).post(f"{PREFIX}/teams", body)
    if as_json:
        emit(team)
    else:
        line(text(team, "name"))
        note(f"A key for it: sluice keys create --team {name}")


@app.command("list")
def list_(as_json: Json = False, data_dir: DataDir = None) -> None:
    """List the teams."""
    teams = Api.admin(find(data_dir)).all(f"{PREFIX}/teams")
    show_list(teams, ["name", "requests per minute", "created", "id"], _row, as_json=as_json, right=[1])


add_show(app, "teams", "a team", "NAME")
add_set_policy(app, "teams", "a team", "NAME")
add_delete(app, "teams", "a team", "NAME")


def _row(team: JsonObject) -> list[str]:
    policy = team.get("policy")
    limits = policy.get("limits") if isinstance(policy, dict) else None
    rpm = text(limits, "requests_per_minute") if isinstance(limits, dict) else ""
    return [text(team, "name"), rpm, moment(team.get("created_ms")), text(team, "id")]
