"""`sluice identity-providers`: OIDC issuers whose tokens say who asks."""

from typing import Annotated

import typer
from pydantic import JsonValue

from schemas.base import JsonObject
from services.cli.client import Api, DataDir, Json, find
from services.cli.output import emit, line, text
from services.cli.resources import (
    PREFIX,
    IfVersion,
    add_delete,
    add_list_of_all,
    add_show,
    changed,
    path_of,
    read_object,
)

app = typer.Typer(add_completion=False, no_args_is_help=True, help="Identity providers: OIDC issuers whose tokens say who asks.")

Members = Annotated[
    str | None,
    typer.Option("--set", metavar="JSON", help="other members: groups, user_claim, groups_claim, leeway_s …; @FILE, - for stdin"),
]


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="lower case letters, digits, dot, dash and underscore")],
    issuer: Annotated[str, typer.Option(help="its URL, as in the `iss` of its tokens")],
    audiences: Annotated[list[str], typer.Option("--audience", help="an `aud` that is meant for us (again for more)")],
    algorithms: Annotated[list[str] | None, typer.Option("--algorithm", help="(again for more)  [default: RS256]")] = None,
    jwks_url: Annotated[str | None, typer.Option(help="where its keys are  [default: discovered from the issuer]")] = None,
    members: Members = None,
    as_json: Json = False,
    data_dir: DataDir = None,
) -> None:
    """Trust an issuer."""
    body: JsonObject = {"name": name, "issuer": issuer, "audiences": list[JsonValue](audiences)}
    if algorithms:
        body["algorithms"] = list[JsonValue](algorithms)
    if jwks_url is not None:
        body["jwks_url"] = jwks_url
    more = read_object(members, "--set") if members is not None else {}
    made = Api.admin(find(data_dir)).post(f"{PREFIX}/identity_providers", {**body, **more})
    if as_json:
        emit(made)
    else:
        line(text(made, "name"))


@app.command("set")
def set_(
    name: Annotated[str, typer.Argument(metavar="NAME")],
    members: Members = None,
    if_version: IfVersion = None,
    as_json: Json = False,
    data_dir: DataDir = None,
) -> None:
    """Change an identity provider: members that are named, null unsets one."""
    body = read_object(members, "--set") if members is not None else {}
    changed(path_of("identity_providers", name), body, if_version, data_dir, as_json=as_json)


def _row(provider: JsonObject) -> list[str]:
    audiences, groups = provider.get("audiences"), provider.get("groups")
    listed = ", ".join(map(str, audiences)) if isinstance(audiences, list) else ""
    return [text(provider, "name"), text(provider, "issuer"), listed, str(len(groups) if isinstance(groups, list) else 0)]


add_list_of_all(app, "identity_providers", "List them.", ["name", "issuer", "audiences", "group rules"], _row)
add_show(app, "identity_providers", "an identity provider", "NAME")
add_delete(app, "identity_providers", "an identity provider", "NAME")
