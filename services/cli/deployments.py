"""`sluice deployments`: how the deployments of the models are now, and taking one out."""

from typing import Annotated

import typer

from schemas.base import JsonObject
from services.cli.client import Api, DataDir, Json, find
from services.cli.output import emit, moment, note, text
from services.cli.resources import PREFIX, given, path_of, show_list

app = typer.Typer(
    add_completion=False, no_args_is_help=True, help="Deployments: how they are, taken out of service and put back."
)

DeploymentId = Annotated[str, typer.Argument(metavar="ID", help="as `sluice deployments list` shows it")]
Why = Annotated[str, typer.Option(help="for who asks later")]

_COLUMNS = (
    *("model", "deployment", "provider", "region", "state", "why", "until"),
    *("calls", "errors", "p50", "p95", "limit", "in flight", "shut down"),
)


@app.command("list")
def list_(
    model: Annotated[str | None, typer.Option(help="only those of this model")] = None,
    as_json: Json = False,
    data_dir: DataDir = None,
) -> None:
    """List the deployments: state, calls and errors of the last minute, how long calls take, calls at once."""
    found = Api.admin(find(data_dir)).all(f"{PREFIX}/deployments", **given(model=model))
    show_list(found, _COLUMNS, _row, as_json=as_json, right=range(7, 13))


@app.command()
def drain(deployment: DeploymentId, why: Why = "", as_json: Json = False, data_dir: DataDir = None) -> None:
    """Take a deployment out: it gets no new calls, those at work go on. It stays so until it is resumed."""
    _say(deployment, "drain", why, "gets no new calls", data_dir, as_json=as_json)


@app.command()
def resume(deployment: DeploymentId, why: Why = "", as_json: Json = False, data_dir: DataDir = None) -> None:
    """Put a deployment back that is drained; or one that failed, or whose credential was refused, before its time is over."""
    _say(deployment, "resume", why, "is asked again", data_dir, as_json=as_json)


def _say(deployment: str, what: str, why: str, then: str, data_dir: DataDir, *, as_json: bool) -> None:
    answer = Api.admin(find(data_dir)).post(f"{path_of('deployments', deployment)}/{what}", {**given(why=why)})
    if as_json:
        emit(answer)
    else:
        note(f"{deployment} {then}.")


def _row(one: JsonObject) -> list[str]:
    members = [text(one, name) for name in ("model", "id", "provider", "region", "state", "why")]
    counts = [text(one, name) for name in ("calls", "errors")]
    took = [_took(one, name) for name in ("p50_ms", "p95_ms")]
    return [
        *members,
        moment(one.get("until_ms")),
        *counts,
        *took,
        text(one, "limit"),
        text(one, "in_flight"),
        text(one, "shutdown_date"),
    ]


def _took(one: JsonObject, name: str) -> str:
    ms = one.get(name)
    return f"{ms / 1000:.2f} s" if isinstance(ms, int | float) else ""
