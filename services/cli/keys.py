"""`sluice keys`: virtual keys, and the job tokens that are minted from them."""

from typing import Annotated

import typer
from pydantic import JsonValue

from schemas.base import JsonObject
from services.cli.client import Api, DataDir, Json, find
from services.cli.output import emit, line, note, table
from services.cli.teams import listed, moment, text

app = typer.Typer(add_completion=False, no_args_is_help=True, help="Virtual keys, and the job tokens minted from them.")

Team = Annotated[str, typer.Option("--team", help="name of the team")]


@app.command()
def create(
    team: Team,
    project: Annotated[str, typer.Option(help="for the bill")] = "",
    environment: Annotated[str, typer.Option(help="dev, staging, prod …")] = "",
    user: Annotated[str, typer.Option(help="whose key it is")] = "",
    rpm: Annotated[int | None, typer.Option("--rpm", min=1, help="requests per minute of this key")] = None,
    as_json: Json = False,
    data_dir: DataDir = None,
) -> None:
    """Create a virtual key. It is shown only this once."""
    body: JsonObject = {"team": team, "project": project, "environment": environment, "user": user}
    if rpm is not None:
        body["requests_per_minute"] = rpm
    key = Api.admin(find(data_dir)).post("/admin/v1/keys", body)
    if as_json:
        emit(key)
    else:
        line(text(key, "key"))
        note(f"{text(key, 'id')} of team {team}. The key above is shown only this once.")


@app.command("list")
def list_(
    team: Annotated[str | None, typer.Option(help="only the keys of this team")] = None,
    as_json: Json = False,
    data_dir: DataDir = None,
) -> None:
    """List the virtual keys, without their secrets."""
    params = {"team": team} if team else {}
    keys = listed(Api.admin(find(data_dir)).get("/admin/v1/keys", **params))
    if as_json:
        emit(list[JsonValue](keys))
        return
    columns = ["id", "ends in", "team", "project", "environment", "user"]
    members = ["id", "last4", *columns[2:]]
    table(
        [*columns, "created", "state"],
        [[*(text(k, m) for m in members), moment(k.get("created_ms")), "revoked" if k.get("revoked") else "valid"] for k in keys],
    )


@app.command()
def revoke(
    key_id: Annotated[str, typer.Argument(metavar="ID", help="as `sluice keys list` shows it")],
    as_json: Json = False,
    data_dir: DataDir = None,
) -> None:
    """Revoke a key: from now on nobody can use it."""
    answer = Api.admin(find(data_dir)).delete(f"/admin/v1/keys/{key_id}")
    if as_json:
        emit(answer)
    else:
        note(f"{key_id} is revoked.")


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
    token = Api.admin(find(data_dir)).post("/admin/v1/job_tokens", body)
    if as_json:
        emit(token)
    else:
        line(text(token, "token"))
