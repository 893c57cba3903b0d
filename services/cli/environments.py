"""`sluice environments`: where a project runs, each with a policy and budgets of its own."""

from typing import Annotated

import typer

from schemas.base import JsonObject
from services.cli.client import Api, DataDir, Json, find
from services.cli.output import emit, line, moment, text
from services.cli.resources import PREFIX, Models, PolicyPatch, add_delete, add_list, add_set_policy, add_show, policy_patch

app = typer.Typer(add_completion=False, no_args_is_help=True, help="Environments: where a project runs.")

REF = "TEAM/PROJECT/NAME"


@app.command()
def create(
    team: Annotated[str, typer.Option("--team", help="name of the team")],
    name: Annotated[str, typer.Argument(help="dev, staging, prod …")],
    project: Annotated[str, typer.Option(help="name of the project; it is made, if it is new  [default: none]")] = "",
    policy: PolicyPatch = None,
    models: Models = None,
    as_json: Json = False,
    data_dir: DataDir = None,
) -> None:
    """Create an environment. One that a key names is made with the key."""
    body: JsonObject = {"team": team, "project": project, "name": name, **policy_patch(policy, models)}
    made = Api.admin(find(data_dir)).post(f"{PREFIX}/environments", body)
    if as_json:
        emit(made)
    else:
        line(_ref(made))


def _ref(environment: JsonObject) -> str:
    return "/".join(text(environment, part) for part in ("team", "project", "name"))


def _row(environment: JsonObject) -> list[str]:
    return [_ref(environment), moment(environment.get("created_ms")), text(environment, "id")]


add_list(app, "environments", "List the environments.", ["environment", "created", "id"], _row)
add_show(app, "environments", "an environment", REF)
add_set_policy(app, "environments", "an environment", REF)
add_delete(app, "environments", "an environment", REF)
