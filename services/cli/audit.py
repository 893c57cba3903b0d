"""`sluice audit`: what was kept of prompts and answers, whether it still is what was written, and how it goes."""

import hashlib
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, TextIO

import typer
from pydantic import JsonValue
from pydantic_core import to_json

from infra.audit import Found, Head
from schemas.base import JsonObject
from services.cli.audit_checks import Report, check_file, check_store
from services.cli.client import Api, DataDir, Json, find
from services.cli.output import Failed, emit, line, listed, moment, note, table, text
from services.cli.sql import ask

app = typer.Typer(help="Prompts and answers as they were kept.", no_args_is_help=True)

_PATH = "/admin/v1/audit"
_POLL_S = 0.5

Job = Annotated[str | None, typer.Option(help="of this job")]
User = Annotated[str | None, typer.Option(help="of this user")]
Key = Annotated[str | None, typer.Option(help="of this key, by its id")]


@app.command()
def show(job: str, as_json: Json = False, data_dir: DataDir = None) -> None:
    """Show what was kept of a job. That you looked is an event."""
    found = list(_records(Api.admin(find(data_dir)), {"job": job}))
    if not found:
        raise Failed(f"Nothing is kept of {job}: its policy doesn't ask for it, it has expired, was erased, or isn't there yet.")
    if as_json:
        emit(found[0])
        return
    row = found[0].get("row")
    kept: JsonObject = row if isinstance(row, dict) else {}
    words = ("prompt", "context", "completion")
    times = {name: moment(kept.get(name)) for name in ("ts", "ended")}
    table(["job", job], [[name, times.get(name) or text(kept, name)] for name in kept if name not in (*words, "salt", "job_id")])
    for name in words:
        if text(kept, name):
            note(f"{name}:")
            line(text(kept, name))


@app.command()
def export(
    job: Job = None,
    user: User = None,
    key: Key = None,
    month: Annotated[str | None, typer.Option(help="of this month (UTC), such as 2026-07")] = None,
    out: Annotated[Path | None, typer.Option(help="file to write  [default: stdout]")] = None,
    data_dir: DataDir = None,
) -> None:
    """Export for an examiner: a JSON line a record, the last line a manifest. `sluice audit verify FILE` checks it offline."""
    given = {"job": job, "user": user, "key": key, "month": month}
    wanted = {name: value for name, value in given.items() if value is not None}
    if len(wanted) != 1:
        raise Failed("Say which: --job, --user, --key or --month.", 2)
    api = Api.admin(find(data_dir))
    if out is None:
        count = _export(api, wanted, sys.stdout)
    else:
        try:
            with out.open("w", encoding="utf-8") as file:
                count = _export(api, wanted, file)
        except OSError as error:
            raise Failed(f"{out} can't be written: {error.strerror}.") from None
    note(f"{count} records.")


@app.command()
def verify(
    file: Annotated[Path | None, typer.Argument(help="an export  [default: the audit log itself]")] = None,
    heads: Annotated[
        list[str] | None, typer.Option("--head", help="PARTITION:N:HASH as it was noted before; may be given often")
    ] = None,
    as_json: Json = False,
    data_dir: DataDir = None,
) -> None:
    """Check that nothing was altered, removed, moved or put in. Exit status 1: something was; the first is named.

    The heads that it tells at the end are worth noting elsewhere: given again by --head, they show whether an end was cut off.
    """
    if file is not None:
        report = check_file(file)
    else:
        url = find(data_dir).address("clickhouse")
        address = url if "://" in url else f"http://{url}"
        report = check_store(
            lambda query: ask(address, query, "JSONEachRow").text, [_head(one) for one in heads or ()], time.time
        )
    _tell(report, as_json)
    if report.found is not None:
        raise typer.Exit(1)


@app.command()
def erase(
    user: User = None,
    key: Key = None,
    reason: Annotated[str, typer.Option(help="why; it stands in the certificate")] = "",
    yes: Annotated[bool, typer.Option("--yes", help="don't ask")] = False,
    as_json: Json = False,
    data_dir: DataDir = None,
) -> None:
    """Erase what a user, or a key, has asked and been answered, wherever it lies. Sums for billing stay.

    Cut off in the middle, it is simply asked for again.
    """
    if (user is None) == (key is None):
        raise Failed("Say whose: --user or --key.", 2)
    if not yes and not typer.confirm(f"Erase all prompts and answers of {user or key} for good?"):
        raise Failed("Nothing was erased.")
    api = Api.admin(find(data_dir))
    erasure = api.post(f"{_PATH}/erasures", {"user": user, "key": key, "reason": reason})
    told = 0
    while not erasure.get("done_ms"):
        time.sleep(_POLL_S)
        erasure = api.get(f"{_PATH}/erasures/{text(erasure, 'id')}")
        if text(erasure, "failed"):
            raise Failed(f"It stopped ({text(erasure, 'failed')}); the portal's log says why. Ask for it again: it goes on.")
        steps = erasure.get("steps")
        done = steps if isinstance(steps, list) else []
        for step in done[told:]:
            note(f"{step}: done")
        told = len(done)
    if as_json:
        emit(erasure)
        return
    counts, logs = erasure.get("counts"), erasure.get("logs")
    table(["certificate", text(erasure, "id")], list((counts if isinstance(counts, dict) else {}).items()))
    ends = [end for end in logs if isinstance(end, dict)] if isinstance(logs, list) else []
    note("Kafka's logs drop what stood in them by now:")
    table(["topic", "until"], [[text(end, "topic"), moment(end.get("until_ms"))] for end in ends])


@app.command()
def erasures(as_json: Json = False, data_dir: DataDir = None) -> None:
    """List the certificates of erasure."""
    found = listed(Api.admin(find(data_dir)).get(f"{_PATH}/erasures"))
    if as_json:
        emit(list[JsonValue](found))
        return
    names = ["id", "actor", "reason", "jobs"]
    times = [(moment(one.get("asked_ms")), moment(one.get("done_ms")) or "not yet") for one in found]
    rows = [[*when, *(text(one, name) for name in names)] for when, one in zip(times, found, strict=True)]
    table(["asked", "done", *names], rows, right=[5])


def _records(api: Api, wanted: dict[str, str]) -> Iterator[JsonObject]:
    """Page by page: there may be more than memory holds."""
    params = dict(wanted)
    while True:
        answer = api.get(_PATH, **params)
        yield from listed(answer)
        if not answer.get("has_more"):
            return
        params["after"] = text(answer, "last_id")


def _export(api: Api, wanted: dict[str, str], to: TextIO) -> int:
    sha256, count, policies = hashlib.sha256(), 0, set[str]()
    for record in _records(api, wanted):
        written = to_json(record) + b"\n"
        to.write(written.decode())
        sha256.update(written)
        count += 1
        row = record.get("row")
        policies.add(text(row, "policy") if isinstance(row, dict) else "")
    heads = list[JsonValue](listed(api.get(f"{_PATH}/heads")))
    manifest: JsonObject = {
        "of": dict[str, JsonValue](wanted),
        "records": count,
        "sha256": sha256.hexdigest(),
        "policy_versions": list[JsonValue](sorted(policies)),
        "heads": heads,
        "at_ms": int(time.time() * 1000),
    }
    to.write(to_json({"manifest": manifest}).decode() + "\n")
    return count


def _head(words: str) -> tuple[int, Head]:
    try:
        partition, n, row_hash = words.split(":")
        return int(partition), Head(n=int(n), row_hash=row_hash)
    except ValueError:
        raise Failed(f"--head takes PARTITION:N:HASH, not {words!r}.", 2) from None


def _tell(report: Report, as_json: bool) -> None:
    heads = {partition: f"{partition}:{head.n}:{head.row_hash}" for partition, head in sorted(report.heads.items())}
    if as_json:
        found: JsonValue = _plain(report.found) if report.found else None
        emit({"found": found, "links": report.links, "gone": report.gone, "heads": list[JsonValue](heads.values())})
        return
    for head in heads.values():
        line(f"head {head}")
    if report.found is None:
        note(f"{report.links} links hold; the rows of {report.gone} have expired or were erased.")
    else:
        one = report.found
        note(f"{one.flaw}: link {one.n} of partition {one.partition} {one.job_id}: {one.why}")


def _plain(one: Found) -> JsonObject:
    return {"flaw": one.flaw, "partition": one.partition, "n": one.n, "job_id": one.job_id, "why": one.why}
