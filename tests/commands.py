"""`sluice` commands, each in a process of its own that is forked from one which has imported them: a start takes a second of CPU.

    python -m tests.commands

forks for each request that comes over the socket at its stdin, until nobody can send one any more.
"""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

from services.cli import COMMANDS, load, main

_MAX_BYTES = 100_000


async def run(words: Sequence[str], env: Mapping[str, str], timeout_s: float) -> tuple[int, bytes, bytes]:
    """Runs `sluice WORDS…`; its exit status, and what it said on stdout and stderr. Raises TimeoutError; then it is dead."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        reading, writing = os.pipe()
        try:
            request = json.dumps({"words": words, "env": dict(env)}).encode()
            socket.send_fds(_server(), [request], [out.fileno(), err.fileno(), writing])
        finally:
            os.close(writing)
        status = await _status(reading, timeout_s)
        out.seek(0)
        err.seek(0)
        return status, out.read(), err.read()


async def _status(reading: int, timeout_s: float) -> int:
    """What is told at that end of a pipe: first a process, then with what it ended."""
    told = asyncio.StreamReader()
    pipe, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(told), os.fdopen(reading, "rb")
    )
    process = 0
    try:
        async with asyncio.timeout(timeout_s):
            process = int(await told.readline())
            return int(await told.readline())
    except TimeoutError:
        if process:
            os.kill(process, signal.SIGKILL)
        raise
    finally:
        pipe.close()


@cache
def _server() -> socket.socket:
    """Started with the first command; ends with us."""
    ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with its:
        root = Path(__file__).parents[1]
        subprocess.Popen([sys.executable, "-m", __name__], stdin=its.fileno(), cwd=root, start_new_session=True)
    return ours


def _serve(requests: socket.socket) -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        said, (*streams,), *_ = socket.recv_fds(requests, _MAX_BYTES, 3)
        if not said:
            return
        request = json.loads(said)
        words: list[str] = request["words"]
        if words[0] in COMMANDS:
            load(words[0])
        if os.fork() == 0:
            _attend(words, request["env"], *streams)
            return
        for stream in streams:
            os.close(stream)


def _attend(words: list[str], env: dict[str, str], out: int, err: int, telling: int) -> None:
    """Returns in the process that is to be the command, by its end; the other tells of it."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    if process := os.fork():
        try:
            os.write(telling, b"%d\n" % process)
        except BrokenPipeError:
            # Nobody waits for it any more.
            os.kill(process, signal.SIGKILL)
        _, ended = os.waitpid(process, 0)
        os.write(telling, b"%d\n" % os.waitstatus_to_exitcode(ended))
        os._exit(0)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(out, 1)
    os.dup2(err, 2)
    for stream in (out, err, telling):
        os.close(stream)
    os.environ.clear()
    os.environ.update(env)
    time.tzset()
    sys.argv = ["sluice", *words]
    main()


if __name__ == "__main__":
    _serve(socket.socket(fileno=0))
