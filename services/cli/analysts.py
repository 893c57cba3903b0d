"""`sluice analysts`: users of ClickHouse who read one organization's rows."""

from typing import Annotated

import typer
from pydantic import JsonValue

from schemas.base import JsonObject
from services.cli.client import Api, DataDir, Json, find
from services.cli.output import emit, line, moment, note, text
from services.cli.resources import PREFIX, add_list_of_all, add_show, path_of

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    help="Analysts: users of ClickHouse who read one organization's rows.",
)

Name = Annotated[str, typer.Argument(metavar="NAME", help="as `sluice analysts list` shows it")]


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="the user's name: letters, digits, - and _")],
    organization: Annotated[str, typer.Option(help="whose rows are seen  [default: the house's]")] = "",
    team: Annotated[list[str] | None, typer.Option(help="keep it to this team's rows; may be given several times")] = None,
    as_json: Json = False,
    data_dir: DataDir = None,
) -> None:
    """Create an analyst. The password is shown only this once."""
    body: JsonObject = {"name": name, "organization": organization, "teams": list[JsonValue](team or [])}
    _tell(Api.admin(find(data_dir)).post(f"{PREFIX}/analysts", body), as_json=as_json)


@app.command()
def rotate(name: Name, as_json: Json = False, data_dir: DataDir = None) -> None:
    """Give an analyst a new password. The one before is taken no longer."""
    _tell(Api.admin(find(data_dir)).post(f"{path_of('analysts', name)}/rotate", {}), as_json=as_json)


@app.command()
def revoke(name: Name, as_json: Json = False, data_dir: DataDir = None) -> None:
    """Revoke an analyst: ClickHouse lets nobody in by it any more."""
    answer = Api.admin(find(data_dir)).delete(path_of("analysts", name))
    if as_json:
        emit(answer)
    else:
        note(f"{name} is revoked.")


def _tell(made: JsonObject, *, as_json: bool) -> None:
    if as_json:
        emit(made)
        return
    line(text(made, "password"))
    note(f"The password of the user {text(made, 'user')}, shown only this once. In tools that take a URL: {text(made, 'url')}")


def _row(analyst: JsonObject) -> list[str]:
    teams = analyst.get("teams")
    seen = ", ".join(map(str, teams)) if isinstance(teams, list) and teams else "all"
    words = [text(analyst, "name"), text(analyst, "organization"), seen, text(analyst, "last4")]
    return [*words, moment(analyst.get("created_ms")), "revoked" if analyst.get("revoked") else "valid"]


_COLUMNS = ["name", "organization", "teams", "ends in", "created", "state"]
add_list_of_all(app, "analysts", "List the analysts, without their passwords.", _COLUMNS, _row)
add_show(app, "analysts", "an analyst", "NAME")
