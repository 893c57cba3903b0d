"""A child process that never outlives its parent, with its output in a file.

The children of `sluice up` hold data files and ports, so three things must be true of them:
they die with their parent even when it is killed with -9, Ctrl-C at the terminal reaches only
the parent (which drains before it stops them), and two of a kind never write to one data folder.
"""

import asyncio
import ctypes
import fcntl
import os
import shutil
import signal
import sys
import threading
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

LOG_MAX_BYTES = 5_000_000
LOG_TAIL_LINES = 15
EARLIER_RUN_S = 5.0
_PR_SET_PDEATHSIG = 1
_prctl = ctypes.CDLL(None).prctl if sys.platform == "linux" else None

Condition = Callable[[], Awaitable[bool]]
"""True when a part is ready; answers soon and does not raise."""


class PartFailed(RuntimeError):
    """A part did not start. The message holds the end of its log and what a person can do."""


class Child:
    """One OS process, started once. Standard output and error go to `log`.

    `argv[0]` is a path; `env` replaces the environment, None inherits it; `advice` ends the message of a
    failed start. Call from the main thread: Linux kills a child when the *thread* that started it ends.
    """

    def __init__(
        self,
        name: str,
        argv: Sequence[str | Path],
        *,
        log: Path,
        cwd: Path,
        env: Mapping[str, str] | None = None,
        advice: str = "Read the log above; start again when the cause is gone.",
    ) -> None:
        self.name = name
        self._argv = [str(word) for word in argv]
        self._log = log
        self._cwd = cwd
        self._env = env
        self._advice = advice
        self._process: asyncio.subprocess.Process | None = None

    @property
    def pid(self) -> int:
        """Process id, also after the end. Raises RuntimeError before `start`."""
        return self._started().pid

    @property
    def returncode(self) -> int | None:
        """None while it runs (or was never started), else the exit status; negative for a signal."""
        return None if self._process is None else self._process.returncode

    async def start(self) -> None:
        """Start the process. Raises PartFailed when it cannot be run or one of an earlier run still lives."""
        if threading.current_thread() is not threading.main_thread():
            raise RuntimeError(f"{self.name} must be started from the main thread, or it dies with this one")
        log_fd = await self._own_log()
        try:
            self._process = await asyncio.create_subprocess_exec(
                *self._argv,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log_fd,
                stderr=log_fd,
                cwd=self._cwd,
                env=self._env,
                preexec_fn=_bound_to(os.getpid()),
            )
        except (OSError, ValueError) as error:
            raise PartFailed(f"{self.name} cannot be run: {error}. {self._advice}") from error
        finally:
            os.close(log_fd)

    async def wait_ready(self, condition: Condition, timeout_s: float = 30.0, poll_s: float = 0.02) -> None:
        """Wait until `condition` (which answers soon and does not raise) is true.

        Raises PartFailed when the process ends before that or `timeout_s` passes; the process is left as it is.
        """
        try:
            async with asyncio.timeout(timeout_s):
                while not await condition():
                    if self.returncode is not None:
                        raise self._failure(f"ended with exit status {self.returncode} while starting")
                    await asyncio.sleep(poll_s)
        except TimeoutError:
            raise self._failure(f"was not ready after {timeout_s:g} s") from None

    async def exited(self) -> int:
        """Wait for the end; exit status, negative for a signal."""
        return await self._started().wait()

    async def stop(self, grace_s: float = 10.0) -> None:
        """SIGTERM, then SIGKILL after `grace_s` (or at once if cancelled). Harmless when it never ran or is gone."""
        if self._process is None or self._process.returncode is not None:
            return
        try:
            with suppress(ProcessLookupError):
                self._process.terminate()
            async with asyncio.timeout(grace_s):
                await self._process.wait()
        except TimeoutError:
            self._kill()
            await self._process.wait()
        except asyncio.CancelledError:
            self._kill()
            raise

    def _kill(self) -> None:
        with suppress(ProcessLookupError):
            self._started().kill()

    def _started(self) -> asyncio.subprocess.Process:
        if self._process is None:
            raise RuntimeError(f"{self.name} was not started")
        return self._process

    async def _own_log(self) -> int:
        """The log's descriptor, locked. The child inherits the lock with its output and holds it for life."""
        loop = asyncio.get_running_loop()
        give_up_at = loop.time() + EARLIER_RUN_S
        while (log_fd := hold(self._log)) is None:
            if loop.time() > give_up_at:
                raise PartFailed(
                    f"{self.name} of another run still uses {self._log.parent.parent}. "
                    "Stop that run first, or choose another --data-dir."
                )
            await asyncio.sleep(0.05)
        _shorten(self._log, log_fd)
        return log_fd

    def _failure(self, what: str) -> PartFailed:
        return PartFailed(f"{self.name} {what}. End of {self._log}:\n{tail(self._log)}\n{self._advice}")


async def launch(child: Child, ready: Condition, timeout_s: float = 30.0) -> Child:
    """Start `child` and wait until `ready`; when that fails or is cancelled, no process is left behind."""
    await child.start()
    try:
        await child.wait_ready(ready, timeout_s)
    except BaseException:
        await child.stop(grace_s=0.5)
        raise
    return child


def log_path(data_dir: Path, name: str) -> Path:
    """Where the output of part `name` goes; the folder is made."""
    folder = data_dir / "log"
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{name}.log"


def hold(file: Path) -> int | None:
    """Open `file` for appending and lock it: its descriptor, or None when another process holds it.

    The lock lasts until every copy of the descriptor is closed, and no longer: kill -9 of all holders frees it.
    """
    fd = os.open(file, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        return None
    return fd


def _bound_to(parent: int) -> Callable[[], None]:
    """What the child does between fork and exec. Nothing is imported or looked up there: only one thread lives."""

    def in_child() -> None:
        os.setpgid(0, 0)
        if _prctl is not None:
            _prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
            if os.getppid() != parent:  # it died before prctl took effect
                os._exit(1)

    return in_child


def _shorten(log: Path, log_fd: int) -> None:
    """Move a long log to `.1` by copying: the lock belongs to the file that is open."""
    if os.fstat(log_fd).st_size > LOG_MAX_BYTES:
        shutil.copyfile(log, log.with_suffix(".log.1"))
        os.ftruncate(log_fd, 0)


def tail(path: Path) -> str:
    """The last LOG_TAIL_LINES lines of a log, without Java's stack frames, which would fill them."""
    lines = [line for line in path.read_text(errors="replace").splitlines() if not line.startswith("\tat ")]
    return "\n".join(lines[-LOG_TAIL_LINES:])
