"""`sluice limits`: how fast, and how much at once, at any level."""

from typing import Annotated

import typer
from pydantic import JsonValue

from schemas.base import JsonObject
from services.cli.client import Api, DataDir, Json, find
from services.cli.output import Failed, emit, note, text
from services.cli.resources import PREFIX, IfVersion, given, show_list
from services.cli.scopes import Environment, Key, Organization, Project, Team, User, level, scope_of

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    help="Limits: requests and tokens a minute or a day, and jobs at once, of any level.",
)

PATH = f"{PREFIX}/limits"
NAMES = ("requests_per_minute", "requests_per_day", "tokens_per_minute", "tokens_per_day", "concurrency")


@app.command("set")
def set_(
    team: Team = None,
    project: Project = None,
    environment: Environment = None,
    key: Key = None,
    user: User = None,
    organization: Organization = False,
    requests_per_minute: Annotated[int | None, typer.Option(min=0)] = None,
    requests_per_day: Annotated[int | None, typer.Option(min=0)] = None,
    tokens_per_minute: Annotated[int | None, typer.Option(min=0)] = None,
    tokens_per_day: Annotated[int | None, typer.Option(min=0)] = None,
    concurrency: Annotated[int | None, typer.Option(min=0, help="jobs that are open at once")] = None,
    if_version: IfVersion = None,
    as_json: Json = False,
    data_dir: DataDir = None,
) -> None:
    """Set limits at a level; 0 lifts one, and those that aren't named stay as they are."""
    named = zip(NAMES, (requests_per_minute, requests_per_day, tokens_per_minute, tokens_per_day, concurrency), strict=True)
    limits: JsonObject = {name: value or None for name, value in named if value is not None}
    if not limits:
        raise Failed("Say which limit to set: `--help` lists them.", status=2)
    scope = scope_of(team, project, environment, key, user, organization=organization)
    answer = Api.admin(find(data_dir)).put(PATH, {"scope": scope, "limits": limits}, if_version)
    if as_json:
        emit(answer)
    else:
        note(f"{level(answer)}: {_told(answer.get('limits')) or 'no limit'}.")


@app.command("list")
def list_(
    team: Team = None,
    project: Project = None,
    environment: Environment = None,
    key: Key = None,
    user: User = None,
    organization: Organization = False,
    as_json: Json = False,
    data_dir: DataDir = None,
) -> None:
    """List limits: all, or those of a level; of a team also what its projects, environments and keys have."""
    named = given(team=team, project=project, environment=environment, key=key, user=user)
    if organization:
        named["organization"] = "true"
    found = Api.admin(find(data_dir)).all(PATH, **named)
    show_list(found, ["level", *(name.replace("_", " ") for name in NAMES)], _row, as_json=as_json, right=range(1, 6))


def _told(limits: JsonValue) -> str:
    given = limits if isinstance(limits, dict) else {}
    return ", ".join(f"{given[name]} {name.replace('_', ' ')}" for name in NAMES if given.get(name))


def _row(one: JsonObject) -> list[str]:
    limits = one.get("limits")
    return [level(one), *(text(limits if isinstance(limits, dict) else {}, name) for name in NAMES)]
