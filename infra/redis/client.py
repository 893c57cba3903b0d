"""The only module that speaks to Redis: Lua scripts over one connection, pipelined, each with a time-out.

Calls made in one turn of the event loop are written together, and answers are read as they come: a round trip of redis-py's
pool costs far more CPU than a script (measured in docs/decisions/0004). Commands are packed by hiredis, which takes a sixth of
what redis-py takes for 50 arguments.
"""

import asyncio
import hashlib
import logging
import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any, Self, cast

import hiredis
from redis.asyncio.connection import ConnectionPool
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError, RedisError, ResponseError

Value = bytes | int | None | list["Value"]
Argument = str | bytes | int | float

log = logging.getLogger(__name__)

_MAX_BATCH = 512
_RECONNECT_S = 5.0
_LATE_S = 0.02
_MOST_TIMEOUTS = 20
# Full, a replica, or unable to write to its disk: that says nothing about the script, and it passes.
_REFUSALS = ("OOM ", "READONLY ", "MISCONF ")


class RedisUnavailable(Exception):
    """Redis did not answer in time, or at all. What was asked may have happened or not."""


@dataclass(frozen=True, slots=True)
class Script:
    """A Lua script from the file `<name>.lua` beside this module, with what it shares with others before it."""

    name: str
    text: str = field(repr=False)
    sha: str

    @classmethod
    def load(cls, name: str, *shared: str) -> Self:
        folder = files(__package__ or "infra.redis")
        text = "\n".join(folder.joinpath(f"{part}.lua").read_text() for part in (*shared, name))
        return cls(name, text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())


@dataclass(slots=True)
class _Call:
    script: Script
    keys: Sequence[str]
    args: Sequence[Argument]
    done: "asyncio.Future[Value]"
    began: float
    written: float = math.inf
    expiry: asyncio.TimerHandle | None = None
    by_sha: bool = True

    def words(self) -> tuple[Argument, ...]:
        """By EVALSHA, or by EVAL, which also loads the script and passes proxies that refuse SCRIPT LOAD."""
        name, body = ("EVALSHA", self.script.sha) if self.by_sha else ("EVAL", self.script.text)
        return (name, body, len(self.keys), *self.keys, *self.args)


# Its stub knows only commands of one word.
_packed = cast("Callable[[tuple[Argument, ...]], bytes]", hiredis.pack_command)  # pyright: ignore[reportUnknownMemberType]

_PING = Script("ping", "return 1", hashlib.sha1(b"return 1", usedforsecurity=False).hexdigest())


class Redis:
    """A connection to Redis. `run` is all there is to it; the typed functions stand in the files beside this one."""

    def __init__(self, url: str, timeout_s: float) -> None:
        self._pool = ConnectionPool.from_url(  # pyright: ignore[reportUnknownMemberType]
            url, socket_connect_timeout=timeout_s * 4, retry=Retry(NoBackoff(), 0)
        )
        self._timeout_s = timeout_s
        self._silent = False
        self._heard = -math.inf
        self._waiting: deque[_Call] = deque()
        self._sent: deque[_Call] = deque()
        self._work = asyncio.Event()
        self._connection: Any = None
        self._reader: asyncio.Task[None] | None = None
        self._writer: asyncio.Task[None] | None = None
        self._closing: set[asyncio.Task[None]] = set()

    async def run(self, script: Script, keys: Sequence[str], args: Sequence[Argument] = ()) -> Value:
        """The script's result. Raises RedisUnavailable; a script's own error is raised as RedisError."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        self._refuse_if_stalled(now)
        if self._writer is None:
            self._writer = asyncio.create_task(self._write())
        call = _Call(script, keys, args, loop.create_future(), now)
        self._waiting.append(call)
        self._work.set()
        self._expect(call, now)
        try:
            return await call.done
        finally:
            if call.expiry is not None:
                call.expiry.cancel()

    async def ping(self) -> bool:
        """True if Redis answers in time."""
        try:
            return await self.run(_PING, ()) == 1
        except (RedisUnavailable, RedisError):
            return False

    async def close(self) -> None:
        for task in (self._writer, self._reader):
            if task is not None:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
        self._lose(RedisUnavailable("the connection to Redis is closed"))
        await asyncio.gather(*self._closing, return_exceptions=True)

    def _expect(self, call: _Call, now: float) -> None:
        due = now + self._timeout_s
        call.expiry = asyncio.get_running_loop().call_at(due, self._expire, call, due)

    def _expire(self, call: _Call, due: float) -> None:
        if call.done.done():
            return
        now = asyncio.get_running_loop().time()
        if self._may_be_us(call, now, due) and now - call.began < _MOST_TIMEOUTS * self._timeout_s:
            self._expect(call, now)
            return
        self._silent = True
        call.done.set_exception(RedisUnavailable(f"Redis did not answer {call.script.name} within {self._timeout_s} s"))

    def _may_be_us(self, call: _Call, now: float, due: float) -> bool:
        """True while we explain the wait: our loop is late, the call is not written yet, or answers before its own are coming."""
        heard_lately = now - max(call.written, self._heard) < self._timeout_s
        return self._connection is not None and (now - due > _LATE_S or heard_lately)

    def _refuse_if_stalled(self, now: float) -> None:
        """While Redis hangs, the oldest call asks whether it is back; nobody else waits for his time-out."""
        if not self._silent:
            return
        waited_s = now - self._sent[0].began if self._sent else 0.0
        if waited_s > _RECONNECT_S:
            self._lose(RedisUnavailable("Redis hangs"))
        elif waited_s > 2 * self._timeout_s:
            raise RedisUnavailable(f"Redis has not answered for {waited_s:.1f} s")

    async def _write(self) -> None:
        while True:
            await self._work.wait()
            self._work.clear()
            try:
                while batch := self._batch():
                    connection = await self._connected()
                    now = asyncio.get_running_loop().time()
                    for call in batch:
                        call.written = now
                    self._sent.extend(batch)
                    await connection.send_packed_command([_packed(call.words()) for call in batch], check_health=False)
            except (RedisError, OSError) as error:
                self._lose(RedisUnavailable(f"Redis can't be reached: {type(error).__name__}"))

    def _batch(self) -> list[_Call]:
        batch: list[_Call] = []
        while self._waiting and len(batch) < _MAX_BATCH:
            call = self._waiting.popleft()
            if not call.done.done():
                batch.append(call)
        return batch

    async def _connected(self) -> Any:
        if self._connection is None:
            connection = self._pool.make_connection()
            await connection.connect()
            self._connection = connection
            self._reader = asyncio.create_task(self._read(connection))
        return self._connection

    async def _read(self, connection: Any) -> None:
        while True:
            answer: object
            try:
                answer = await connection.read_response(timeout=math.inf, disconnect_on_error=False)
            except ResponseError as error:
                answer = error
            except (RedisError, OSError) as error:
                if connection is self._connection:
                    self._lose(RedisUnavailable(f"Redis is gone: {type(error).__name__}"))
                return
            self._settle(self._sent.popleft(), answer)

    def _settle(self, call: _Call, answer: object) -> None:
        self._silent, self._heard = False, asyncio.get_running_loop().time()
        if call.done.done():
            return
        if isinstance(answer, NoScriptError) and call.by_sha:
            call.by_sha = False
            self._waiting.append(call)
            self._work.set()
        elif isinstance(answer, RedisError) and any(refusal in str(answer) for refusal in _REFUSALS):
            call.done.set_exception(RedisUnavailable(f"Redis refuses {call.script.name}: {answer}"))
        elif isinstance(answer, RedisError):
            call.done.set_exception(answer)
        else:
            call.done.set_result(cast("Value", answer))

    def _lose(self, why: RedisUnavailable) -> None:
        """Gives up the connection and every call on it: whether they happened is unknown. The next call connects anew."""
        connection, self._connection = self._connection, None
        self._silent = False
        if connection is not None:
            log.info("%s", why)
            closing = asyncio.create_task(connection.disconnect(nowait=True))
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)
        reader, self._reader = self._reader, None
        if reader is not None and reader is not asyncio.current_task():
            reader.cancel()
        lost = [*self._sent, *self._waiting]
        self._sent.clear()
        self._waiting.clear()
        for call in lost:
            if not call.done.done():
                call.done.set_exception(why)
