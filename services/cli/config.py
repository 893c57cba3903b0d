"""`sluice config`: policy as code."""

import hashlib
import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Protocol

import typer
from pydantic import BaseModel, JsonValue, ValidationError

from infra.settings import Settings
from schemas.base import JsonObject
from services.cli.client import Api, DataDir, Json, System, find, load_settings
from services.cli.output import Failed, cell, emit, line, note
from services.cli.plan import changes, drift, render, render_drift
from services.cli.pricing import unpriced
from services.portal.config import ConfigError, Parsed, gone, import_litellm, outlived, read
from services.portal.declared import Configuration

app = typer.Typer(
    add_completion=False, no_args_is_help=True, help="Policy as code: models, policies, teams and people from files."
)

Files = Annotated[list[Path], typer.Argument(metavar="FILE…", exists=True, dir_okay=False, allow_dash=True)]

CHANGES = 2
"""Exit status of `plan` and `drift` when there is something to tell, as terraform's -detailed-exitcode has it."""


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
    """Check files without a running system: exit status 1 if they can't be used, if a fallback is shut down before the model that
    falls back on it, or, with --strict, if they say what can't be mapped."""
    parsed = read_and_warn(files, load_settings(data_dir), as_json=as_json)
    models = parsed.models or ()
    problems = outlived(models, datetime.now(UTC).date())
    if as_json:
        told: JsonObject = {"warnings": list[JsonValue](parsed.warnings), "notes": list[JsonValue](parsed.notes)}
        emit({"valid": not problems, "models": [m.name for m in models], "problems": list[JsonValue](problems), **told})
    else:
        line(f"{len(models)} models, {sum(len(m.deployments) for m in models)} deployments, {len(parsed.teams)} teams")
    if problems:
        raise Failed(f"{len(problems)} fallbacks are shut down too early\n" + "\n".join(f"  {cell(one)}" for one in problems))
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


@app.command("drift")
def drift_(files: Files, as_json: Json = False, data_dir: DataDir = None) -> None:
    """Show what was changed by hand since these files were applied: exit status 0 for nothing, 2 for something.

    What was applied is remembered in the data folder of the machine that did it; where nothing is remembered, it is taken to be
    what the files say.
    """
    system = find(data_dir)
    parsed = read_and_warn(files, system.settings)
    applied = applied_before(files, system)
    found = drift(standing(Api.admin(system)), applied, parsed)
    if as_json:
        emit({"drift": found.to_json(), "pending": found.pending, "remembered": applied is not None})
    else:
        for text in render_drift(found):
            line(cell(text))
        note(f"{len(found.found)} changed by hand. `sluice config apply` undoes it." if found.found else "Nothing was changed.")
        if found.pending:
            note(f"{found.pending} changes of the files are not applied yet: see `sluice config plan`.")
    if found.found:
        raise typer.Exit(CHANGES)


@app.command("import-litellm")
def import_(
    file: Annotated[Path, typer.Argument(metavar="FILE", exists=True, dir_okay=False)],
    out: Annotated[Path | None, typer.Option("--out", help="write the sluice.yaml here instead of on stdout")] = None,
    as_json: Json = False,
    data_dir: DataDir = None,
) -> None:
    """Map a LiteLLM config.yaml to a sluice.yaml, and list what can't be mapped, with the reason."""
    try:
        text = file.read_text(encoding="utf-8")
        imported = import_litellm(str(file), text, load_settings(data_dir).secret)
    except (OSError, UnicodeDecodeError) as error:
        raise Failed(f"can't read {file}: {error}") from error
    except ConfigError as error:
        raise _refused(error) from error
    if out is not None:
        try:
            with out.open("x", encoding="utf-8") as written:
                written.write(imported.text)
        except FileExistsError:
            raise Failed(f"{out} is there already; give another name, or remove it") from None
        except OSError as error:
            raise Failed(f"can't write {out}: {error}") from error
    if as_json:
        left_out, notes = list[JsonValue](imported.left_out), list[JsonValue](imported.notes)
        emit({"sluice_yaml": imported.text, "left_out": left_out, "notes": notes})
        return
    if out is None:
        line(imported.text.rstrip("\n"))
    for told in imported.notes:
        note(f"Note: {cell(told)}")
    for told in imported.left_out:
        note(f"Not mapped: {cell(told)}")
    note(f"{len(imported.left_out)} not mapped." + (f" {out} is written." if out else ""))


@app.command("apply")
def apply_(files: Files, as_json: Json = False, data_dir: DataDir = None) -> None:
    """Make the running system as the files say: models exactly so, and the policies and people that they name."""
    system = find(data_dir)
    parsed = read_and_warn(files, system.settings)
    if parsed.secrets and not system.is_local:
        note(
            f"Warning: keys stand literally in the files. They go to {system.data_dir / 'secrets'} on this machine, where the "
            "router must find them; os.environ/NAME leaves them out of it."
        )
    done = apply(Api.admin(system), parsed, system.data_dir)
    remember(files, parsed, system)
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


def remember(files: list[Path], parsed: Parsed, system: System) -> None:
    """Keeps what was applied from these files, for `drift`. It holds no secrets, only their names."""
    path = _memory(files, system)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f"{path.name}.{os.getpid()}.part")
        partial.write_text(parsed.over(Configuration()).model_dump_json(), encoding="utf-8")
        partial.rename(path)
    except OSError as error:
        note(f"Warning: what was applied can't be remembered in {path.parent} ({error.strerror}); `drift` will go by the files.")


def applied_before(files: list[Path], system: System) -> Configuration | None:
    """What was applied from these files, as far as that is remembered here."""
    try:
        return Configuration.model_validate_json(_memory(files, system).read_bytes())
    except (OSError, ValidationError):
        return None


def _memory(files: list[Path], system: System) -> Path:
    """One file for these files and this system."""
    named = "\n".join(["" if system.is_local else system.http, *sorted(str(path.resolve()) for path in files)])
    return system.data_dir / "applied" / f"{hashlib.sha256(named.encode()).hexdigest()[:16]}.json"


def read_files(files: list[Path], lookup: Callable[[str], str | None]) -> Parsed:
    """Raises ConfigError with everything that is wrong, or Failed for a file that can't be read."""
    try:
        return read([(str(path), path.read_text(encoding="utf-8")) for path in files], lookup)
    except (OSError, UnicodeDecodeError) as error:
        raise Failed(f"can't read the files: {error}") from error


def read_and_warn(files: list[Path], settings: Settings, *, as_json: bool = False) -> Parsed:
    """Reads files, and tells on stderr what is doubtful in them. Raises Failed with everything that is wrong."""
    try:
        parsed = read_files(files, settings.secret)
    except ConfigError as error:
        if as_json:
            emit({"valid": False, "models": [], "problems": list[JsonValue](error.problems), "warnings": []})
        raise _refused(error) from error
    for told in parsed.notes:
        note(f"Note: {cell(told)}")
    for warning in parsed.warnings:
        note(f"Warning: {cell(warning)}")
    for told in gone(parsed.models or (), datetime.now(UTC).date()):
        note(f"Warning: {cell(told)}")
    for alias, deployment in unpriced(parsed.models or (), parsed.prices or ()):
        note(f"Warning: {alias}: {deployment} has no price, so what it costs is booked as 0; write it into model_info")
    return parsed


def _refused(error: ConfigError) -> Failed:
    return Failed(f"{len(error.problems)} found\n" + "\n".join(f"  {cell(problem)}" for problem in error.problems))
