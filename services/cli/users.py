"""`sluice users`: people, their roles, and what they may spend whatever key pays."""

from collections.abc import Iterator, Sequence
from typing import Annotated

import typer
from pydantic import JsonValue

from schemas.base import JsonObject
from schemas.roles import Role
from services.cli.client import Api, DataDir, Json, find
from services.cli.output import Failed, emit, line, moment, text
from services.cli.resources import (
    PREFIX,
    IfVersion,
    Models,
    PolicyPatch,
    add_delete,
    add_list_of_all,
    add_show,
    changed,
    path_of,
    policy_patch,
)

app = typer.Typer(add_completion=False, no_args_is_help=True, help="Users: people, and the roles they have.")

Roles = Annotated[
    list[str] | None,
    typer.Option("--role", metavar="ROLE[:TEAM]", help=f"{', '.join(Role)}; with :TEAM only there (again for more)"),
]


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="as identity providers name them: PROVIDER:SUBJECT")],
    roles: Roles = None,
    policy: PolicyPatch = None,
    models: Models = None,
    as_json: Json = False,
    data_dir: DataDir = None,
) -> None:
    """Create a user. Whoever asks need not be one: users are for roles, and for policies and budgets of a person."""
    body: JsonObject = {"name": name, "memberships": list(memberships(roles or ())), **policy_patch(policy, models)}
    made = Api.admin(find(data_dir)).post(f"{PREFIX}/users", body)
    if as_json:
        emit(made)
    else:
        line(text(made, "name"))


@app.command("set")
def set_(
    name: Annotated[str, typer.Argument(metavar="NAME")],
    roles: Roles = None,
    no_role: Annotated[bool, typer.Option("--no-role", help="take all roles away")] = False,
    policy: PolicyPatch = None,
    models: Models = None,
    if_version: IfVersion = None,
    as_json: Json = False,
    data_dir: DataDir = None,
) -> None:
    """Change the roles of a user (all of them are given anew), or the policy."""
    body = policy_patch(policy, models)
    if roles or no_role:
        body["memberships"] = list(memberships([] if no_role else roles or []))
    changed(path_of("users", name), body, if_version, data_dir, as_json=as_json)


def memberships(roles: Sequence[str]) -> Iterator[JsonValue]:
    """`ROLE` or `ROLE:TEAM` as the API takes it. Raises Failed."""
    for written in roles:
        role, _, team = written.partition(":")
        if role not in set(Role):
            raise Failed(f"--role: there is no role {role[:64]!r}; roles are {', '.join(Role)}.", status=2)
        yield {"role": role, "team": team}


def _roles(user: JsonObject) -> str:
    held = user.get("memberships")
    given = [one for one in held if isinstance(one, dict)] if isinstance(held, list) else []
    return ", ".join(":".join(filter(None, (text(one, "role"), text(one, "team")))) for one in given)


def _row(user: JsonObject) -> list[str]:
    return [text(user, "name"), _roles(user), moment(user.get("created_ms")), text(user, "id")]


add_list_of_all(app, "users", "List the users.", ["name", "roles", "created", "id"], _row)
add_show(app, "users", "a user", "NAME")
add_delete(app, "users", "a user", "NAME")
