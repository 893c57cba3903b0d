"""`sluice webhooks`: the secrets that a team's events are signed with, and an event to try an endpoint with."""

from typing import Annotated

import typer

from services.cli.client import Api, DataDir, Json, find
from services.cli.output import Failed, emit, line, note, text

app = typer.Typer(add_completion=False, no_args_is_help=True, help="Webhooks: secrets, and a test event.")

Team = Annotated[str, typer.Option("--team", help="name of the team")]


@app.command()
def secret(
    team: Team,
    rotate: Annotated[
        bool, typer.Option("--rotate", help="make a new one; the one before stays good until the next time")
    ] = False,
    as_json: Json = False,
    data_dir: DataDir = None,
) -> None:
    """Show the secret that a team's events are signed with."""
    api, path = Api.admin(find(data_dir)), f"/admin/v1/teams/{team}/webhook_secret"
    answer = api.post(f"{path}/rotate", {}) if rotate else api.get(path)
    if as_json:
        emit(answer)
        return
    line(text(answer, "secret"))
    if text(answer, "previous"):
        note(f"Version {text(answer, 'version')}. Events are signed with the version before it too, until the next rotation.")


@app.command("test")
def try_(
    team: Team,
    url: Annotated[str, typer.Argument(metavar="URL", help="the endpoint")],
    as_json: Json = False,
    data_dir: DataDir = None,
) -> None:
    """Send an event to an endpoint, once, and say what it answered."""
    answer = Api.admin(find(data_dir)).post(f"/admin/v1/teams/{team}/webhooks/test", {"url": url})
    if as_json:
        emit(answer)
    elif answer.get("delivered"):
        note(f"Delivered: the endpoint answered {text(answer, 'status')} to {text(answer, 'id')}.")
    if not answer.get("delivered"):
        raise Failed(f"Not delivered: {text(answer, 'reason')}")
