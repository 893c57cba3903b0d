"""Redis in this process, for the real Lua scripts: the few commands that they use, over a dictionary, in a test's own time.

Held to the real one by `tests/simulator/test_fake_redis.py`.
"""

import importlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from infra.clock import Clock
from infra.redis.client import Argument, Redis, Script, Value

Hash = dict[bytes, bytes]
Reply = Value | bool


@dataclass(slots=True)
class _Entry:
    value: bytes | Hash | dict[bytes, float]
    expires_ms: float | None = None


@dataclass(slots=True)
class Keyspace:
    """Keys, their values and when they end. Each method is the command of its name, as Redis 6.2 has it."""

    clock: Clock
    _entries: dict[bytes, _Entry] = field(default_factory=dict[bytes, _Entry])

    def time(self) -> Value:
        now_ms = self.clock()
        return [b"%d" % (now_ms // 1000), b"%d" % (now_ms % 1000 * 1000)]

    def exists(self, key: bytes) -> int:
        return int(self._found(key) is not None)

    def delete(self, key: bytes) -> int:
        existed = self.exists(key)
        self._entries.pop(key, None)
        return existed

    def pexpire(self, key: bytes, ms: bytes) -> int:
        entry = self._found(key)
        if entry is None:
            return 0
        entry.expires_ms = self.clock() + int(ms)
        return 1

    def pexpireat(self, key: bytes, unix_ms: bytes) -> int:
        entry = self._found(key)
        if entry is None:
            return 0
        entry.expires_ms = int(unix_ms)
        return 1

    def get(self, key: bytes) -> bytes | None:
        entry = self._found(key)
        return cast("bytes", entry.value) if entry else None

    def mget(self, *keys: bytes) -> Value:
        return [self.get(key) for key in keys]

    def pttl(self, key: bytes) -> int:
        entry = self._found(key)
        if entry is None:
            return -2
        return -1 if entry.expires_ms is None else int(entry.expires_ms - self.clock())

    def set(self, key: bytes, value: bytes, *options: bytes) -> bytes | None:
        if b"NX" in options and self._found(key):
            return None
        ends = self.clock() + int(options[options.index(b"PX") + 1]) if b"PX" in options else None
        self._entries[key] = _Entry(value, ends)
        return b"OK"

    def hget(self, key: bytes, name: bytes) -> bytes | None:
        return self._hash(key).get(name)

    def hmget(self, key: bytes, *names: bytes) -> Value:
        found = self._hash(key)
        return [found.get(name) for name in names]

    def hgetall(self, key: bytes) -> Value:
        return [part for pair in self._hash(key).items() for part in pair]

    def hvals(self, key: bytes) -> Value:
        return list[Value](self._hash(key).values())

    def hexists(self, key: bytes, name: bytes) -> int:
        return int(name in self._hash(key))

    def hset(self, key: bytes, *pairs: bytes) -> int:
        found, new = self._hash(key, make=True), 0
        for name, value in zip(pairs[::2], pairs[1::2], strict=True):
            new += name not in found
            found[name] = value
        return new

    def hdel(self, key: bytes, *names: bytes) -> int:
        found = self._hash(key)
        gone = sum(found.pop(name, None) is not None for name in names)
        if not found:
            self._entries.pop(key, None)
        return gone

    def hsetnx(self, key: bytes, name: bytes, value: bytes) -> int:
        return 0 if name in self._hash(key) else self.hset(key, name, value)

    def hincrby(self, key: bytes, name: bytes, by: bytes) -> int:
        if by != b"%d" % int(by):
            raise ValueError(f"ERR value is not an integer or out of range: {by!r}")
        total = int(self._hash(key).get(name, b"0")) + int(by)
        self.hset(key, name, b"%d" % total)
        return total

    def zadd(self, key: bytes, score: bytes, member: bytes) -> int:
        ranked = self._ranked(key, make=True)
        new = member not in ranked
        ranked[member] = float(score)
        return int(new)

    def zrem(self, key: bytes, member: bytes) -> int:
        return int(self._ranked(key).pop(member, None) is not None)

    def zscore(self, key: bytes, member: bytes) -> bytes | None:
        score = self._ranked(key).get(member)
        return None if score is None else b"%.17g" % score

    def zcard(self, key: bytes) -> int:
        return len(self._ranked(key))

    def zremrangebyscore(self, key: bytes, low: bytes, high: bytes) -> int:
        ranked = self._ranked(key)
        gone = [member for member in ranked if float(low) <= ranked[member] <= float(high)]
        for member in gone:
            del ranked[member]
        return len(gone)

    def zrangebyscore(self, key: bytes, low: bytes, high: bytes, *options: bytes) -> Value:
        ranked, least, most = self._ranked(key), float(low), float(high)
        found = [member for member in self._in_order(key) if least <= ranked[member] <= most]
        return list[Value](found[int(options[1]) : int(options[1]) + int(options[2])] if options else found)

    def zrange(self, key: bytes, start: bytes, stop: bytes, *_: bytes) -> Value:
        """With scores."""
        ranked, members = self._ranked(key), self._in_order(key)[int(float(start)) : int(float(stop)) + 1]
        return [part for member in members for part in (member, b"%.17g" % ranked[member])]

    def zremrangebyrank(self, key: bytes, start: bytes, stop: bytes) -> int:
        ranked, members = self._ranked(key), self._in_order(key)
        gone = members[int(start) : len(members) + int(stop) + 1] if int(stop) < 0 else members[int(start) : int(stop) + 1]
        for member in gone:
            del ranked[member]
        return len(gone)

    def zrevrank(self, key: bytes, member: bytes) -> int | None:
        members = self._in_order(key)[::-1]
        return members.index(member) if member in members else None

    def zrevrange(self, key: bytes, start: bytes, stop: bytes) -> Value:
        return list[Value](self._in_order(key)[::-1][int(start) : int(stop) + 1])

    def _found(self, key: bytes) -> _Entry | None:
        entry = self._entries.get(key)
        if entry is not None and entry.expires_ms is not None and entry.expires_ms <= self.clock():
            del self._entries[key]
            return None
        return entry

    def _hash(self, key: bytes, *, make: bool = False) -> Hash:
        return cast("Hash", self._made(key, {}, make=make))

    def _ranked(self, key: bytes, *, make: bool = False) -> dict[bytes, float]:
        return cast("dict[bytes, float]", self._made(key, {}, make=make))

    def _in_order(self, key: bytes) -> list[bytes]:
        ranked = self._ranked(key)
        return [member for _, member in sorted((score, member) for member, score in ranked.items())]

    def _made(self, key: bytes, empty: Hash, *, make: bool) -> object:
        entry = self._found(key)
        if entry is not None:
            return entry.value
        if make:
            self._entries[key] = _Entry(empty)
        return empty


class LuaRedis(Redis):
    """Runs scripts at once, one after the other, and never fails. `clock`: what its TIME says."""

    def __init__(self, clock: Clock) -> None:
        self.keys = Keyspace(clock)
        self._lua: Any = importlib.import_module("lupa.lua51").LuaRuntime(encoding=None, register_eval=False)
        self._table: Callable[..., object] = self._lua.table
        self._scripts: dict[str, Any] = {}
        # A script says `redis.call`, and its arguments are globals, as in Redis.
        self._enter = self._lua.eval(
            "function(call) redis = {call = call}; return function(keys, argv) KEYS = keys; ARGV = argv end end"
        )(self._call)
        self._lua.execute("cjson = {}")
        self._lua.globals()[b"cjson"][b"decode"] = self._decoded
        self._commands: dict[bytes, Callable[..., Reply]] = {
            name.upper().encode(): getattr(self.keys, {"del": "delete"}.get(name, name)) for name in _COMMANDS
        }

    async def run(self, script: Script, keys: Sequence[str], args: Sequence[Argument] = ()) -> Value:
        return self.now(script, keys, args)

    def now(self, script: Script, keys: Sequence[str], args: Sequence[Argument] = ()) -> Value:
        """What the script gives. The runtime that lupa brings is Lua 5.1, which is Redis' own."""
        if (compiled := self._scripts.get(script.sha)) is None:
            compiled = self._scripts[script.sha] = self._lua.eval(b"function() " + script.text.encode() + b"\nend")
        self._enter(self._table(*map(_text, keys)), self._table(*map(_text, args)))
        return self._given(compiled())

    def _decoded(self, text: bytes) -> object:
        return self._json(json.loads(text))

    def _json(self, value: object) -> object:
        if isinstance(value, list):
            return self._lua.table(*map(self._json, cast("list[object]", value)))
        return value.encode() if isinstance(value, str) else value

    def _call(self, name: bytes, *args: object) -> object:
        reply = self._commands[name](*[arg if isinstance(arg, bytes) else _number(arg) for arg in args])
        if isinstance(reply, list):
            return self._table(*[False if member is None else member for member in reply])
        return False if reply is None else reply

    def _given(self, result: Any) -> Value:
        match result:
            case None | False:
                return None
            case bytes():
                return result
            case int() | float():
                return int(result)
            case _:
                given: list[Value] = []
                while (member := result[len(given) + 1]) is not None:
                    given.append(self._given(member))
                return given


_COMMANDS = (
    *("time", "exists", "del", "pexpire", "pexpireat", "pttl", "get", "mget", "set"),
    *("hget", "hgetall", "hmget", "hvals", "hexists", "hset", "hsetnx", "hdel", "hincrby"),
    *(
        "zadd",
        "zrem",
        "zcard",
        "zscore",
        "zremrangebyrank",
        "zremrangebyscore",
        "zrangebyscore",
        "zrange",
        "zrevrank",
        "zrevrange",
    ),
)


def _text(value: Argument) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode()


def _number(value: object) -> bytes:
    """As Redis writes a number of Lua's: with 17 digits, if it needs them."""
    return b"%.17g" % cast("float", value)
