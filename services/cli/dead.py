"""`sluice dead`: what could not be handled, and what to do about it."""

import json
from typing import Annotated

import typer
from pydantic import JsonValue

from schemas.base import JsonObject
from services.cli.client import Api, DataDir, Json, find
from services.cli.output import Failed, cell, emit, line, listed, moment, note, table, text

app = typer.Typer(add_completion=False, no_args_is_help=True, help="Dead letters: what could not be handled.")

LetterId = Annotated[str, typer.Argument(metavar="LETTER", help="its id, such as 0@12, or its origin, TOPIC/PARTITION@OFFSET")]

_PATH = "/admin/v1/dead"


@app.command("list")
def list_(
    reason: Annotated[str | None, typer.Option(help="only those put aside for this reason, such as invalid_token")] = None,
    stage: Annotated[str | None, typer.Option(help="only those that this stage put aside")] = None,
    limit: Annotated[int, typer.Option(min=1, max=100, help="how many")] = 20,
    after: Annotated[str | None, typer.Option(help="only those older than this one: the last of the page before")] = None,
    as_json: Json = False,
    data_dir: DataDir = None,
) -> None:
    """List the dead letters, the youngest first."""
    given = {"reason": reason, "stage": stage, "after": after}
    params = {name: value for name, value in given.items() if value is not None}
    answer = Api.admin(find(data_dir)).get(_PATH, limit=str(limit), **params)
    letters = listed(answer)
    if as_json:
        emit(list[JsonValue](letters))
    else:
        members = ["id", "reason", "stage", "origin", "became"]
        rows = [[moment(letter.get("at_ms")), *(text(letter, member) for member in members)] for letter in letters]
        table(["when", *members[:-1], "replayed as"], rows)
    if answer.get("has_more"):
        note(f"There may be more: --after {text(answer, 'last_id')}")


@app.command()
def show(letter: LetterId, as_json: Json = False, data_dir: DataDir = None) -> None:
    """Show a dead letter with its headers and all that stands in it. Tokens were taken off."""
    opened = Api.admin(find(data_dir)).get(f"{_PATH}/{letter}")
    if as_json:
        emit(opened)
        return
    about, headers = opened.get("letter"), opened.get("headers")
    if isinstance(about, dict):
        rows = [(name, text(about, name)) for name in ("reason", "detail", "stage", "origin", "became")]
        table(["id", text(about, "id")], [("when", moment(about.get("at_ms"))), *(row for row in rows if row[1])])
    if isinstance(headers, dict) and headers:
        table(["header", ""], [(name, text(headers, name)) for name in headers])
    value = opened.get("value")
    note("The body:" if isinstance(value, str) else "The body is gone.")
    if isinstance(value, str):
        line(_readable(value))


@app.command()
def replay(
    letters: Annotated[list[str] | None, typer.Option("--id", metavar="LETTER", help="this one; may be given often")] = None,
    reason: Annotated[str | None, typer.Option(help="all that were put aside for this reason")] = None,
    everything: Annotated[bool, typer.Option("--all", help="all that were not replayed yet")] = False,
    team: Annotated[str | None, typer.Option(help="who pays for records of the Kafka door, which have lost their token")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="say what would be done")] = False,
    force: Annotated[bool, typer.Option("--force", help="also what was replayed before")] = False,
    as_json: Json = False,
    data_dir: DataDir = None,
) -> None:
    """Replay dead letters. A job becomes a new one; a record of the Kafka door, a completion, a webhook goes back to its topic.

    Exit status 1: a letter that was named by --id was left alone.
    """
    if bool(letters) + (reason is not None) + everything != 1:
        raise Failed("Say which: --id LETTER (as often as you like), --reason REASON, or --all.", 2)
    body: JsonObject = {"all": everything, "reason": reason, "team": team, "dry_run": dry_run, "force": force}
    if letters:
        body["ids"] = list[JsonValue](letters)
    results = _replay(Api.admin(find(data_dir)), body)
    done = [result for result in results if text(result, "result") != "left"]
    if as_json:
        emit(list[JsonValue](results))
    else:
        members = ["id", "origin", "result"]
        rows = [[*(text(r, member) for member in members), text(r, "became") or text(r, "why")] for r in results]
        table([*members, ""], rows)
    note(f"{len(done)} {'would be ' if dry_run else ''}replayed, {len(results) - len(done)} left.")
    if letters and len(done) < len(results):
        raise typer.Exit(1)


def _replay(api: Api, body: JsonObject) -> list[JsonObject]:
    """All of them, however many calls that takes. What is put aside meanwhile is younger, and is left for another time."""
    results: list[JsonObject] = []
    while True:
        answer = api.post(f"{_PATH}/replay", body)
        results += listed(answer)
        if not answer.get("has_more"):
            return results
        body = body | {"after": answer.get("last_id")}


def _readable(value: str) -> str:
    """JSON with line breaks; anything else as it is, without what could move the cursor."""
    try:
        return cell(json.dumps(json.loads(value), indent=2, ensure_ascii=False))
    except (ValueError, RecursionError):
        return cell(value)
