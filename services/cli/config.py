"""`sluice config`: policy as code."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Protocol

import typer
from pydantic import BaseModel, JsonValue, ValidationError

from infra.settings import Settings
from schemas.base import JsonObject
from services.cli.client import Api, DataDir, Json, find, load_settings
from services.cli.output import Failed, cell, emit, line, note
from services.cli.plan import changes, render
from services.cli.prices import unpriced
from services.portal.config import ConfigError, Configuration, Parsed, read

app = typer.Typer(add_completion=False, no_args_is_help=True, help="Policy as code: models, policies, teams from files.")

Files = Annotated[list[Path], typer.Argument(metavar="FILE…", exists=True, dir_okay=False, allow_dash=True)]

CHANGES = 2
"""Exit status of `plan` when there is something to do, as terraform's -detailed-exitcode has it."""


class Applied(BaseModel):
    """What was written and what was deleted, by key on the control topic."""

    applied: list[str] = []
    deleted: list[str] = []


class Client(Protocol):
    """The admin API, as far as a configuration needs it."""

    def get(self, path: str) -> JsonObject: ...
    def put(self, path: str, body: JsonObject) -> JsonObject: ...


@app.command()
def check(
    files: Files,
    strict: Annotated[bool, typer.Option("--strict", help="warnings fail too")] = False,
    as_json: Json = False,
    data_dir: DataDir = None,
) -> None:
    """Check files without a running system: exit status 1 if they can't be used."""
    parsed = read_and_warn(files, load_settings(data_dir), as_json=as_json)
    models = parsed.models or ()
    if as_json:
        emit({"valid": True, "models": [m.name for m in models], "problems": [], "warnings": list[JsonValue](parsed.warnings)})
    else:
        line(f"{len(models)} models, {sum(len(m.deployments) for m in models)} deployments, {len(parsed.teams)} teams")
    if strict and parsed.warnings:
        raise Failed(f"{len(parsed.warnings)} warnings, and --strict was asked for")


@app.command()
def plan(files: Files, as_json: Json = False, data_dir: DataDir = None) -> None:
    """Show what `apply` would change: exit status 0 for nothing, 2 for something, 1 if that can't be told."""
    system = find(data_dir)
    parsed = read_and_warn(files, system.settings)
    found = changes(standing(Api.admin(system)), parsed)
    if as_json:
        emit({"changes": [change.to_json() for change in found], "warnings": list[JsonValue](parsed.warnings)})
    else:
        for text in render(found):
            line(cell(text))
        note(f"{len(found)} to change. `sluice config apply` does it." if found else "Nothing to change.")
    if found:
        raise typer.Exit(CHANGES)


@app.command("apply")
def apply_(files: Files, as_json: Json = False, data_dir: DataDir = None) -> None:
    """Make the running system as the files say: models exactly so, and the policies that they name."""
    system = find(data_dir)
    parsed = read_and_warn(files, system.settings)
    if parsed.secrets and not system.is_local:
        note(
            f"Warning: keys stand literally in the files. They go to {system.data_dir / 'secrets'} on this machine, where the "
            "router must find them; os.environ/NAME leaves them out of it."
        )
    done = apply(Api.admin(system), parsed, system.data_dir)
    if as_json:
        emit(done.model_dump(mode="json"))
        return
    for key in done.applied:
        line(f"applied {key}")
    for key in done.deleted:
        line(f"deleted {key}")
    if not done.applied and not done.deleted:
        note("Nothing to change.")


def apply(client: Client, parsed: Parsed, data_dir: Path) -> Applied:
    """Keeps the secrets of a configuration on this machine, then puts it in force. Raises Failed."""
    write_secrets(parsed, data_dir)
    return put(client, parsed.over(standing(client)))


def put(client: Client, wanted: Configuration) -> Applied:
    """Puts a configuration in force. Raises Failed."""
    return Applied.model_validate(client.put("/admin/v1/config", wanted.model_dump(mode="json")))


def standing(client: Client) -> Configuration:
    """The configuration in force. Raises Failed."""
    try:
        return Configuration.model_validate(client.get("/admin/v1/config"))
    except ValidationError as error:
        raise Failed("The answer of /admin/v1/config can't be read: is that Sluice of another version?") from error


def write_secrets(parsed: Parsed, data_dir: Path) -> None:
    """Each secret in a file of its own (0600) in DATA_DIR/secrets (0700), whole at every moment."""
    if not parsed.secrets:
        return
    folder = data_dir / "secrets"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.chmod(0o700)
    for name, secret in parsed.secrets.items():
        partial = folder / f"{name}.{os.getpid()}.part"
        with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            file.write(secret)
        partial.rename(folder / name)


def read_files(files: list[Path], lookup: Callable[[str], str | None]) -> Parsed:
    """Raises ConfigError with everything that is wrong, or Failed for a file that can't be read."""
    try:
        return read([(str(path), path.read_text(encoding="utf-8")) for path in files], lookup)
    except (OSError, UnicodeDecodeError) as error:
        raise Failed(f"can't read the files: {error}") from error


def read_and_warn(files: list[Path], settings: Settings, *, as_json: bool = False) -> Parsed:
    """What the files say; warnings go to stderr. Raises Failed that says everything that is wrong."""
    """Reads files, and tells on stderr what is doubtful in them. Raises Failed with everything that is wrong."""
    try:
        parsed = read_files(files, settings.secret)
    except ConfigError as error:
        if as_json:
            emit({"valid": False, "models": [], "problems": list[JsonValue](error.problems), "warnings": []})
        raise Failed(f"{len(error.problems)} found\n" + "\n".join(f"  {cell(problem)}" for problem in error.problems)) from error
    for warning in parsed.warnings:
        note(f"Warning: {cell(warning)}")
    for alias, deployment in unpriced(parsed.models or ()):
        note(f"Warning: {alias}: {deployment} has no price, so what it costs is booked as 0; write it into model_info")
    return parsed
