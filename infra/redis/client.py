"""The only module that speaks to Redis: Lua scripts, sent in batches, with a time-out.

Calls made in one turn of the event loop travel as one pipeline, since a round trip of redis-py costs far more CPU than a
script (measured in docs/decisions/0004).
"""

import asyncio
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any, Self, cast

from redis.asyncio import Redis as Client
from redis.exceptions import NoScriptError, RedisError

Value = bytes | int | None | list["Value"]
Argument = str | bytes | int | float

_MAX_BATCH = 512
# Full, a replica, or unable to write to its disk: that says nothing about the script, and it passes.
_REFUSALS = ("OOM ", "READONLY ", "MISCONF ")


class RedisUnavailable(Exception):
    """Redis did not answer in time, or at all. What was asked may have happened or not."""


@dataclass(frozen=True, slots=True)
class Script:
    """A Lua script from the file `<name>.lua` beside this module."""

    name: str
    text: str = field(repr=False)
    sha: str

    @classmethod
    def load(cls, name: str) -> Self:
        text = files(__package__ or "infra.redis").joinpath(f"{name}.lua").read_text()
        return cls(name, text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())


@dataclass(slots=True)
class _Call:
    script: Script
    keys: Sequence[str]
    args: Sequence[Argument]
    done: "asyncio.Future[Value]"


class Redis:
    """A connection to Redis. `run` is all there is to it; the typed functions stand in the files beside this one."""

    def __init__(self, url: str, timeout_s: float) -> None:
        self._client = Client.from_url(  # pyright: ignore[reportUnknownMemberType]
            url,
            socket_timeout=timeout_s * 4,
            socket_connect_timeout=timeout_s * 4,
            max_connections=64,
        )
        self._timeout_s = timeout_s
        self._waiting: list[_Call] = []
        self._flushes: set[asyncio.Task[None]] = set()
        self._scheduled = False

    async def run(self, script: Script, keys: Sequence[str], args: Sequence[Argument] = ()) -> Value:
        """The script's result. Raises RedisUnavailable; a script's own error is raised as RedisError."""
        loop = asyncio.get_running_loop()
        call = _Call(script, keys, args, loop.create_future())
        self._waiting.append(call)
        if not self._scheduled:
            self._scheduled = True
            loop.call_soon(self._flush)
        try:
            async with asyncio.timeout(self._timeout_s):
                return await call.done
        except TimeoutError as error:
            raise RedisUnavailable(f"Redis did not answer {script.name} within {self._timeout_s} s") from error

    async def ping(self) -> bool:
        """True if Redis answers in time."""
        try:
            async with asyncio.timeout(self._timeout_s):
                return bool(await cast("Any", self._client).ping())
        except (TimeoutError, RedisError, OSError):
            return False

    async def close(self) -> None:
        for task in self._flushes:
            task.cancel()
        await asyncio.gather(*self._flushes, return_exceptions=True)
        await self._client.aclose()

    def _flush(self) -> None:
        self._scheduled = False
        while self._waiting:
            batch, self._waiting = self._waiting[:_MAX_BATCH], self._waiting[_MAX_BATCH:]
            task = asyncio.create_task(self._send(batch))
            self._flushes.add(task)
            task.add_done_callback(self._flushes.discard)

    async def _send(self, batch: list[_Call]) -> None:
        try:
            results = await self._execute(batch, by_sha=True)
            unknown = [call for call, result in zip(batch, results, strict=True) if isinstance(result, NoScriptError)]
            if unknown:
                again = iter(await self._execute(unknown, by_sha=False))
                results = [next(again) if isinstance(result, NoScriptError) else result for result in results]
        except (RedisError, OSError) as error:
            results = [RedisUnavailable(f"Redis can't be reached: {type(error).__name__}")] * len(batch)
        for call, result in zip(batch, results, strict=True):
            if call.done.done():
                continue
            if isinstance(result, RedisError) and any(refusal in str(result) for refusal in _REFUSALS):
                call.done.set_exception(RedisUnavailable(f"Redis refuses {call.script.name}: {result}"))
            elif isinstance(result, BaseException):
                call.done.set_exception(result)
            else:
                call.done.set_result(cast("Value", result))

    async def _execute(self, batch: list[_Call], *, by_sha: bool) -> list[object]:
        """By EVALSHA, or by EVAL, which also loads the script and passes proxies that refuse SCRIPT LOAD."""
        pipe = cast("Any", self._client.pipeline(transaction=False))
        for call in batch:
            name, body = ("EVALSHA", call.script.sha) if by_sha else ("EVAL", call.script.text)
            pipe.execute_command(name, body, len(call.keys), *call.keys, *call.args)
        return cast("list[object]", await pipe.execute(raise_on_error=False))
