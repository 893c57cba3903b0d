"""`sluice organization`: what holds for everybody, and by which clock days and months begin."""

from typing import Annotated

import typer

from services.cli.client import Api, DataDir, Json, find
from services.cli.resources import PREFIX, IfVersion, Models, PolicyPatch, changed, policy_patch, tell

app = typer.Typer(add_completion=False, no_args_is_help=True, help="The organization: what holds for everybody.")

_PATH = f"{PREFIX}/organization"


@app.command()
def show(as_json: Json = False, data_dir: DataDir = None) -> None:
    """Show the organization: all that is set."""
    tell(Api.admin(find(data_dir)).get(_PATH), as_json=as_json)


@app.command("set")
def set_(
    time_zone: Annotated[str | None, typer.Option(help="where its days, weeks and months begin, such as Europe/Berlin")] = None,
    policy: PolicyPatch = None,
    models: Models = None,
    if_version: IfVersion = None,
    as_json: Json = False,
    data_dir: DataDir = None,
) -> None:
    """Change the organization's policy, or its time zone. Budgets and limits have commands of their own."""
    body = policy_patch(policy, models)
    if time_zone is not None:
        body["time_zone"] = time_zone
    changed(_PATH, body, if_version, data_dir, as_json=as_json)
