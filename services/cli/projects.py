"""`sluice projects`: pieces of work of a team, each with a policy and budgets of its own."""

from typing import Annotated

import typer

from schemas.base import JsonObject
from services.cli.client import Api, DataDir, Json, find
from services.cli.output import emit, line, moment, text
from services.cli.resources import PREFIX, Models, PolicyPatch, add_delete, add_list, add_set_policy, add_show, policy_patch

app = typer.Typer(add_completion=False, no_args_is_help=True, help="Projects: pieces of work of a team.")

REF = "TEAM/NAME"


@app.command()
def create(
    team: Annotated[str, typer.Option("--team", help="name of the team")],
    name: Annotated[str, typer.Argument(help="anything without a slash")],
    policy: PolicyPatch = None,
    models: Models = None,
    as_json: Json = False,
    data_dir: DataDir = None,
) -> None:
    """Create a project. One that a key names is made with the key."""
    body: JsonObject = {"team": team, "name": name, **policy_patch(policy, models)}
    made = Api.admin(find(data_dir)).post(f"{PREFIX}/projects", body)
    if as_json:
        emit(made)
    else:
        line(f"{text(made, 'team')}/{text(made, 'name')}")


def _row(project: JsonObject) -> list[str]:
    return [f"{text(project, 'team')}/{text(project, 'name')}", moment(project.get("created_ms")), text(project, "id")]


add_list(app, "projects", "List the projects.", ["project", "created", "id"], _row)
add_show(app, "projects", "a project", REF)
add_set_policy(app, "projects", "a project", REF)
add_delete(app, "projects", "a project", REF)
