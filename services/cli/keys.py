"""`sluice keys`: virtual keys, and the job tokens that are minted from them."""

from typing import Annotated

import typer
from pydantic import JsonValue

from schemas.base import JsonObject
from services.cli.approvals import seconds
from services.cli.client import Api, DataDir, Json, find
from services.cli.output import Failed, emit, line, moment, note, text
from services.cli.resources import (
    PREFIX,
    ExpiresIn,
    IfVersion,
    Models,
    NeverExpires,
    PolicyPatch,
    add_show,
    changed,
    given,
    lifetime,
    path_of,
    policy_patch,
    show_list,
)

app = typer.Typer(add_completion=False, no_args_is_help=True, help="Virtual keys, and the job tokens minted from them.")

Team = Annotated[str, typer.Option("--team", help="name of the team")]
KeyId = Annotated[str, typer.Argument(metavar="ID", help="as `sluice keys list` shows it")]
Addresses = Annotated[
    list[str] | None,
    typer.Option("--ip-range", metavar="CIDR", help="a network that it may be used from (again for more)  [default: any]"),
]


@app.command()
def create(
    team: Team,
    project: Annotated[str, typer.Option(help="for the bill")] = "",
    environment: Annotated[str, typer.Option(help="dev, staging, prod …")] = "",
    user: Annotated[str, typer.Option(help="whose key it is")] = "",
    name: Annotated[str, typer.Option(help="what people call it")] = "",
    rpm: Annotated[int | None, typer.Option("--rpm", min=1, help="requests per minute of this key")] = None,
    expires_in: Annotated[str | None, typer.Option(help="how long it is good: 90d, 12h …  [default: for good]")] = None,
    ip_ranges: Addresses = None,
    models: Models = None,
    policy: PolicyPatch = None,
    as_json: Json = False,
    data_dir: DataDir = None,
) -> None:
    """Create a virtual key. It is shown only this once. Its project and environment are made, if they are new."""
    body: JsonObject = {"team": team, "project": project, "environment": environment, "user": user}
    if name:
        body["name"] = name
    if rpm is not None:
        body["requests_per_minute"] = rpm
    if expires_in is not None:
        body["expires_in"] = seconds(expires_in)
    if ip_ranges:
        body["ip_ranges"] = list[JsonValue](ip_ranges)
    key = Api.admin(find(data_dir)).post(f"{PREFIX}/keys", {**body, **policy_patch(policy, models)})
    if as_json:
        emit(key)
    else:
        line(text(key, "key"))
        until = moment(key.get("expires_ms"))
        good = f", good until {until} UTC" if until else ""
        note(f"{text(key, 'id')} of team {team}{good}. The key above is shown only this once.")


@app.command("list")
def list_(
    team: Annotated[str | None, typer.Option(help="only the keys of this team")] = None,
    project: Annotated[str | None, typer.Option(help="only those of this project")] = None,
    environment: Annotated[str | None, typer.Option(help="only those of this environment")] = None,
    user: Annotated[str | None, typer.Option(help="only those of this user")] = None,
    as_json: Json = False,
    data_dir: DataDir = None,
) -> None:
    """List the virtual keys, without their secrets."""
    params = given(team=team, project=project, environment=environment, user=user)
    keys = Api.admin(find(data_dir)).all(f"{PREFIX}/keys", **params)
    columns = ["id", "ends in", "team", "project", "environment", "user", "created", "state", "expires", "last used", "name"]
    show_list(keys, columns, _row, as_json=as_json)


add_show(app, "keys", "a virtual key", "ID")


@app.command("set")
def set_(
    key_id: KeyId,
    name: Annotated[str | None, typer.Option(help="what people call it")] = None,
    expires_in: ExpiresIn = None,
    never_expires: NeverExpires = False,
    ip_ranges: Addresses = None,
    any_address: Annotated[bool, typer.Option("--any-address", help="it may be used from anywhere")] = False,
    models: Models = None,
    policy: PolicyPatch = None,
    if_version: IfVersion = None,
    as_json: Json = False,
    data_dir: DataDir = None,
) -> None:
    """Change a key: its name, its end, its addresses, its policy. Budgets and limits have commands of their own."""
    body = policy_patch(policy, models)
    if name is not None:
        body["name"] = name
    body |= lifetime(expires_in, never_expires=never_expires)
    if ip_ranges or any_address:
        body["ip_ranges"] = list[JsonValue]([] if any_address else ip_ranges or [])
    changed(path_of("keys", key_id), body, if_version, data_dir, as_json=as_json)


@app.command()
def rotate(
    key_id: KeyId,
    overlap: Annotated[str, typer.Option(help="how long the secret before is taken too: 24h, 30m …; 0: no longer")] = "24h",
    as_json: Json = False,
    data_dir: DataDir = None,
) -> None:
    """Give a key a new secret, shown only this once. The one before is taken for a while.

    Rotated again within that time, the newest secret is replaced, and the one from before is taken as long as it was to be.
    """
    overlap_s = 0 if overlap.strip() == "0" else seconds(overlap)
    key = Api.admin(find(data_dir)).post(f"{path_of('keys', key_id)}/rotate", {"overlap_s": overlap_s})
    if as_json:
        emit(key)
        return
    line(text(key, "key"))
    until = moment(key.get("old_until_ms"))
    before = f"The secret before is taken until {until} UTC" if until else "The secret before is taken no longer"
    note(f"{before}. The one above is shown only this once.")


@app.command()
def revoke(key_id: KeyId, as_json: Json = False, data_dir: DataDir = None) -> None:
    """Revoke a key: from now on nobody can use it."""
    answer = Api.admin(find(data_dir)).delete(path_of("keys", key_id))
    if as_json:
        emit(answer)
    else:
        note(f"{key_id} is revoked.")


@app.command()
def resume(key_id: KeyId, as_json: Json = False, data_dir: DataDir = None) -> None:
    """Lift what holds a key that ran away. `sluice alerts` says why it is held."""
    answer = Api.admin(find(data_dir)).post(f"{path_of('keys', key_id)}/resume", {})
    state = text(answer, "state")
    if as_json:
        emit(answer)
    elif state == "valid":
        note(f"{key_id} may be used again.")
    if state not in ("", "valid"):
        raise Failed(f"{key_id} is {state}: it can't be used.")


@app.command("job-token")
def job_token(
    team: Team,
    expires_in: Annotated[int | None, typer.Option(min=60, max=86_400, help="seconds  [default: 12 hours]")] = None,
    as_json: Json = False,
    data_dir: DataDir = None,
) -> None:
    """Mint a token for a team's records on the Kafka door."""
    body: JsonObject = {"team": team}
    if expires_in is not None:
        body["expires_in"] = expires_in
    token = Api.admin(find(data_dir)).post(f"{PREFIX}/job_tokens", body)
    if as_json:
        emit(token)
    else:
        line(text(token, "token"))


def _row(key: JsonObject) -> list[str]:
    members = [text(key, member) for member in ("id", "last4", "team", "project", "environment", "user")]
    state = text(key, "state") or ("revoked" if key.get("revoked") else "valid")
    ends, used = moment(key.get("expires_ms")), moment(key.get("last_used_ms"))
    return [*members, moment(key.get("created_ms")), state, ends, used, text(key, "name")]
