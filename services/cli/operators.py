"""`sluice operators`: credentials of people and programs that administrate, each with a role."""

from typing import Annotated

import typer

from schemas.base import JsonObject
from schemas.roles import Role
from services.cli.approvals import seconds
from services.cli.client import Api, DataDir, Json, find
from services.cli.output import emit, line, moment, note, text
from services.cli.resources import (
    PREFIX,
    ExpiresIn,
    IfVersion,
    NeverExpires,
    add_list_of_all,
    add_show,
    changed,
    lifetime,
    path_of,
)

app = typer.Typer(add_completion=False, no_args_is_help=True, help="Operators: credentials for the admin API, with a role.")

OperatorId = Annotated[str, typer.Argument(metavar="ID", help="as `sluice operators list` shows it")]


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="who it is for")],
    role: Annotated[Role, typer.Option(help="what may be done with it")],
    team: Annotated[str, typer.Option(help="the team where the role is held; needed for team_admin and member")] = "",
    expires_in: Annotated[str | None, typer.Option(help="how long it is good: 90d, 12h …  [default: for good]")] = None,
    as_json: Json = False,
    data_dir: DataDir = None,
) -> None:
    """Create a credential. It is shown only this once; commands take it as SLUICE_ADMIN_KEY."""
    body: JsonObject = {"name": name, "role": role.value, "team": team}
    if expires_in is not None:
        body["expires_in"] = seconds(expires_in)
    made = Api.admin(find(data_dir)).post(f"{PREFIX}/operators", body)
    if as_json:
        emit(made)
    else:
        line(text(made, "key"))
        note(
            f"{text(made, 'id')}, {role.value}{f' of team {team}' if team else ''}. The credential above is shown only this once."
        )


@app.command("set")
def set_(
    operator_id: OperatorId,
    name: Annotated[str | None, typer.Option(help="who it is for")] = None,
    expires_in: ExpiresIn = None,
    never_expires: NeverExpires = False,
    if_version: IfVersion = None,
    as_json: Json = False,
    data_dir: DataDir = None,
) -> None:
    """Change the name or the end of a credential. For another role, create another one."""
    body: JsonObject = {"name": name} if name is not None else {}
    body |= lifetime(expires_in, never_expires=never_expires)
    changed(path_of("operators", operator_id), body, if_version, data_dir, as_json=as_json)


@app.command()
def revoke(operator_id: OperatorId, as_json: Json = False, data_dir: DataDir = None) -> None:
    """Revoke a credential: from now on nobody can use it."""
    answer = Api.admin(find(data_dir)).delete(path_of("operators", operator_id))
    if as_json:
        emit(answer)
    else:
        note(f"{operator_id} is revoked.")


def _row(operator: JsonObject) -> list[str]:
    members = [text(operator, member) for member in ("id", "name", "role", "team", "last4")]
    ends = moment(operator.get("expires_ms"))
    return [*members, moment(operator.get("created_ms")), ends, "revoked" if operator.get("revoked") else "valid"]


_COLUMNS = ["id", "name", "role", "team", "ends in", "created", "expires", "state"]
add_list_of_all(app, "operators", "List the operators, without their credentials.", _COLUMNS, _row)
add_show(app, "operators", "an operator", "ID")
