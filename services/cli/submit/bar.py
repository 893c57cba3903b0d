"""The progress bar of `sluice submit`, on stderr."""

from collections.abc import Generator
from contextlib import contextmanager

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from services.cli.output import progress_console
from services.cli.submit.run import Watch


@contextmanager
def progress_bar(lines: int) -> Generator[Watch]:
    """Shows what it is told; nothing where stderr is no terminal."""
    console = progress_console()
    columns = (
        TextColumn("sent {task.fields[sent]}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("answered, {task.fields[failed]} failed"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=False) as progress:
        task = progress.add_task("submit", total=lines, sent=0, failed=0)

        def watch(sent: int, completed: int, failed: int) -> None:
            progress.update(task, completed=completed + failed, sent=sent, failed=failed)

        yield watch
