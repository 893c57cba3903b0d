"""What is the same for the commands of every kind of resource: list, show, set, delete; and how policies are given."""

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Annotated
from urllib.parse import quote

import typer
from pydantic import JsonValue, TypeAdapter, ValidationError

from infra.clock import now_ms
from schemas.base import JsonObject
from services.cli.approvals import seconds
from services.cli.client import Api, DataDir, Json, find
from services.cli.output import Failed, emit, moment, note, table

PREFIX = "/admin/v1"
PolicyPatch = Annotated[
    str | None,
    typer.Option(
        "--policy",
        metavar="JSON",
        help="members of the policy to set, null to unset one; @FILE reads a file, - reads stdin",
    ),
]
Models = Annotated[list[str] | None, typer.Option("--model", help="a model that may be asked (again for more)  [default: all]")]
ExpiresIn = Annotated[str | None, typer.Option("--expires-in", help="how long it is good from now on: 90d, 12h …")]
NeverExpires = Annotated[bool, typer.Option("--never-expires", help="it is good until it is revoked")]
IfVersion = Annotated[int | None, typer.Option("--if-version", metavar="N", help="only if it still stands at this version")]

_OBJECT: TypeAdapter[JsonObject] = TypeAdapter(JsonObject)


def path_of(kind: str, name: str) -> str:
    """Where a resource stands."""
    return f"{PREFIX}/{kind}/{quote(name, safe='/')}"


def read_object(given: str, option: str) -> JsonObject:
    """The JSON object that an option gives: itself, `@FILE`, or `-` for stdin. Raises Failed."""
    try:
        read = sys.stdin.read() if given == "-" else Path(given[1:]).read_text() if given.startswith("@") else given
        return _OBJECT.validate_json(read)
    except OSError as error:
        raise Failed(f"{option}: {given[1:]} can't be read: {error.strerror}.", status=2) from None
    except ValidationError:
        raise Failed(f'{option}: that is no JSON object; write one such as \'{{"models": ["small"]}}\'.', status=2) from None


def policy_patch(policy: str | None, models: Sequence[str] | None) -> JsonObject:
    """The member `policy` of a body; nothing if nothing is said of it."""
    given = read_object(policy, "--policy") if policy is not None else {}
    if models:
        given["models"] = list[JsonValue](models)
    return {"policy": given} if given else {}


def lifetime(expires_in: str | None, *, never_expires: bool) -> JsonObject:
    """The member `expires_ms` of a patch; nothing if nothing is said of it."""
    if never_expires:
        return {"expires_ms": 0}
    return {} if expires_in is None else {"expires_ms": now_ms() + seconds(expires_in) * 1000}


def changed(path: str, body: JsonObject, version: int | None, data_dir: DataDir, *, as_json: bool) -> None:
    """Changes a resource by a patch, and shows it."""
    if not body:
        raise Failed("Say what to set: `--help` lists it.", status=2)
    tell(Api.admin(find(data_dir)).patch(path, body, version), as_json=as_json)


def tell(resource: JsonObject, *, as_json: bool) -> None:
    """Shows a resource: whatever it says."""
    if as_json:
        emit(resource)
        return
    rows = list(_rows("", resource))
    table(list(rows[0]), rows[1:])


def add_list(app: typer.Typer, kind: str, help_: str, columns: Sequence[str], row: Callable[[JsonObject], Sequence[str]]) -> None:
    """The command `list` of what teams have."""

    @app.command("list", help=help_)
    def list_(  # pyright: ignore[reportUnusedFunction]
        team: Annotated[str | None, typer.Option(help="only those of this team")] = None,
        as_json: Json = False,
        data_dir: DataDir = None,
    ) -> None:
        show_list(Api.admin(find(data_dir)).all(f"{PREFIX}/{kind}", **given(team=team)), columns, row, as_json=as_json)


def add_list_of_all(
    app: typer.Typer, kind: str, help_: str, columns: Sequence[str], row: Callable[[JsonObject], Sequence[str]]
) -> None:
    """The command `list` of what stands above teams."""

    @app.command("list", help=help_)
    def list_(as_json: Json = False, data_dir: DataDir = None) -> None:  # pyright: ignore[reportUnusedFunction]
        show_list(Api.admin(find(data_dir)).all(f"{PREFIX}/{kind}"), columns, row, as_json=as_json)


def add_show(app: typer.Typer, kind: str, word: str, metavar: str) -> None:
    """The command `show`."""

    @app.command(help=f"Show {word}: all that is set.")
    def show(  # pyright: ignore[reportUnusedFunction]
        name: Annotated[str, typer.Argument(metavar=metavar)], as_json: Json = False, data_dir: DataDir = None
    ) -> None:
        tell(Api.admin(find(data_dir)).get(path_of(kind, name)), as_json=as_json)


def add_set_policy(app: typer.Typer, kind: str, word: str, metavar: str) -> None:
    """The command `set` of what has nothing to set but its policy."""

    @app.command("set", help=f"Change the policy of {word}. Budgets and limits have commands of their own.")
    def set_(  # pyright: ignore[reportUnusedFunction]
        name: Annotated[str, typer.Argument(metavar=metavar)],
        policy: PolicyPatch = None,
        models: Models = None,
        if_version: IfVersion = None,
        as_json: Json = False,
        data_dir: DataDir = None,
    ) -> None:
        changed(path_of(kind, name), policy_patch(policy, models), if_version, data_dir, as_json=as_json)


def add_delete(app: typer.Typer, kind: str, word: str, metavar: str) -> None:
    """The command `delete`."""

    @app.command(help=f"Delete {word}, if nothing uses it any more.")
    def delete(  # pyright: ignore[reportUnusedFunction]
        name: Annotated[str, typer.Argument(metavar=metavar)],
        if_version: IfVersion = None,
        as_json: Json = False,
        data_dir: DataDir = None,
    ) -> None:
        answer = Api.admin(find(data_dir)).delete(path_of(kind, name), if_version)
        if as_json:
            emit(answer)
        else:
            note(f"{name} is deleted.")


def show_list(
    found: Sequence[JsonObject],
    columns: Sequence[str],
    row: Callable[[JsonObject], Sequence[str]],
    *,
    as_json: bool,
    right: Sequence[int] = (),
) -> None:
    """A list for a program or a person; `right` are the columns of numbers."""
    if as_json:
        emit(list[JsonValue](found))
    else:
        table(columns, [row(one) for one in found], right)


def given(**params: str | None) -> dict[str, str]:
    """The parameters that were given."""
    return {name: value for name, value in params.items() if value}


def _rows(path: str, value: JsonObject) -> Iterator[tuple[str, str]]:
    """Members that say something, by their path."""
    for name, member in value.items():
        at = f"{path}.{name}" if path else name
        if isinstance(member, dict):
            yield from _rows(at, member)
        elif member not in (None, "", [], 0):
            yield at, _shown(name, member)


def _shown(name: str, member: JsonValue) -> str:
    if name.endswith("_ms"):
        return f"{moment(member)} UTC"
    if isinstance(member, list) and not any(isinstance(one, dict | list) for one in member):
        return ", ".join(map(str, member))
    return member if isinstance(member, str) else json.dumps(member)
