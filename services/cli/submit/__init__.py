"""`sluice submit`: a file of OpenAI batch lines straight to Kafka, and their results."""

import asyncio
import fcntl
import secrets
import signal
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, BinaryIO

import typer

from infra.files import FileStore
from infra.kafka.broker import Kafka
from schemas.topics import Lane
from services.cli.client import DataDir, Json, System, find
from services.cli.output import Failed, cell, emit, note, quiet
from services.cli.submit.bar import progress_bar
from services.cli.submit.journal import Journal, Progress, Start, parse
from services.cli.submit.lines import BadFile, Batch, check
from services.cli.submit.run import Parts, Run, Watch, offsets
from services.cli.submit.tokens import Tokens, tokens

PATIENCE_S = 25 * 3600.0
"""One hour more than a batch line may take."""

INTERRUPTED = 130


def submit(
    file: Annotated[Path, typer.Argument(metavar="FILE.jsonl", exists=True, dir_okay=False, help="OpenAI batch input")],
    lane: Annotated[Lane, typer.Option(help="interactive work goes first; batch waits for room")] = Lane.BATCH,
    out: Annotated[Path | None, typer.Option(help="results  [default: FILE.results.jsonl]")] = None,
    team: Annotated[str | None, typer.Option(help="whose bill; default: the team of SLUICE_KEY, or the only one")] = None,
    patience: Annotated[float, typer.Option(min=1, help="seconds without any answer after which to give up")] = PATIENCE_S,
    as_json: Json = False,
    data_dir: DataDir = None,
) -> None:
    """Send batch lines straight to Kafka, and wait for their results.

    FILE holds requests of OpenAI's Batch API, one a line, not plain questions. Results are lines of its batch output. After
    Ctrl-C or a crash the same command goes on where it was. Exit status 0: every line has an answer with a status below 400.
    """
    system = find(data_dir)
    batch = _checked(file)
    target = out or file.with_suffix(".results.jsonl")
    if target.resolve() == file.resolve():
        raise Failed("The results would overwrite the file itself: give another --out.")
    quiet()
    job = _Job(system, batch, lane, target, patience)
    began_s = time.monotonic()
    try:
        with _only_one(target), progress_bar(len(batch)) as watch:
            run = asyncio.run(job.run(tokens(system, team), watch))
    except (KeyboardInterrupt, asyncio.CancelledError):
        note("Stopped. The same command goes on where this one was.")
        raise typer.Exit(INTERRUPTED) from None
    _summary(run, len(batch), time.monotonic() - began_s, target, as_json=as_json)


def _summary(run: Run, lines: int, seconds: float, out: Path, *, as_json: bool) -> None:
    if as_json:
        emit(
            {"lines": lines, "completed": run.completed, "failed": run.failed, "seconds": round(seconds, 3), "out": str(out)},
        )
    note(f"{run.completed} completed, {run.failed} failed, in {seconds:.1f} s. Results: {out}")
    if run.failed:
        raise typer.Exit(1)


def _checked(file: Path) -> Batch:
    try:
        return check(file)
    except BadFile as error:
        problems = "\n".join(f"  {cell(problem)}" for problem in error.problems)
        raise Failed(f"{file} can't be sent; nothing was.\n{problems}") from error


class _Job:
    """What this command is to do, once it is known that it can."""

    def __init__(self, system: System, batch: Batch, lane: Lane, out: Path, patience_s: float) -> None:
        self._system, self._batch, self._lane, self._out, self._patience_s = system, batch, lane, out, patience_s
        self._kafka = system.address("kafka")
        self._state = _beside(out, "state")

    async def run(self, token: Tokens, watch: Watch) -> Run:
        """Raises Failed, and CancelledError on SIGTERM as on SIGINT."""
        task = asyncio.current_task()
        assert task is not None
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        kafka = Kafka(self._kafka)
        try:
            await kafka.start()
            former = self._former(token.team)
            journal = Journal(self._state, former) if former else await self._begin(kafka, token.team)
            if former:
                note(f"Going on: {former.count} of {len(self._batch)} lines are sent already.")
            with self._out.open("wb") as out:
                run = await self._go(journal, Parts(kafka, self._files(), token.fresh, out, watch), resumed=former is not None)
            journal.remove()
            return run
        except ConnectionError as error:
            raise Failed(f"{error}. Is Sluice running? `sluice doctor` says more.") from error
        finally:
            await kafka.stop()

    async def _go(self, journal: Journal, parts: Parts, *, resumed: bool) -> Run:
        run = Run(self._batch, journal, parts, self._patience_s)
        try:
            await run.go(resumed)
        finally:
            journal.close()
        return run

    async def _begin(self, kafka: Kafka, team: str) -> Journal:
        results, door = await offsets(kafka, self._lane, team)
        start = Start(
            run=secrets.token_hex(8),
            sha256=self._batch.sha256,
            lines=len(self._batch),
            lane=self._lane.value,
            team=team,
            results=results,
            door=door,
        )
        return Journal.begin(self._state, start)

    def _former(self, team: str) -> Progress | None:
        """How far an interrupted run came. Raises Failed if it was another one."""
        if not self._state.exists():
            return None
        progress = parse(self._state.read_bytes())
        if progress is None:
            return None
        start = progress.start
        if (start.sha256, start.lane, start.team) != (self._batch.sha256, self._lane.value, team):
            raise Failed(
                f"{self._state} belongs to an interrupted run of other lines, or another lane ({start.lane}) or team "
                f"({start.team}). Go on with that, or give another --out, or remove it to begin anew."
            )
        return progress

    def _files(self) -> FileStore:
        return FileStore(self._system.settings.files_dir)


def _beside(out: Path, what: str) -> Path:
    return out.with_name(f"{out.name}.{what}")


@contextmanager
def _only_one(out: Path) -> Generator[None]:
    """Two of us must not write the same results."""
    path = _beside(out, "lock")
    with _opened(path) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Failed(f"Another `sluice submit` writes {out}: wait for it, or give another --out.") from None
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def _opened(path: Path) -> BinaryIO:
    try:
        return path.open("wb")
    except OSError as error:
        raise Failed(f"can't write beside the results: {error}") from error
