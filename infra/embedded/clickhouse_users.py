"""Who asks the embedded ClickHouse, by the ways that ClickHouse's HTTP interface knows, and what he may."""

import base64
import binascii
import hashlib
import hmac
import json
import time
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Final, TypedDict, cast

from infra.clickhouse.access import LIMITS, Grant
from infra.embedded.clickhouse_errors import EngineError, refusal
from infra.secret_files import SERVICE

DEFAULT: Final = "default"
FRESH_S: Final = 0.5
"""An analyst who is revoked may go on for so long after ClickHouse has been told."""

_ALL: Final = "SELECT name, sha256, organization, only, teams FROM sluice.analysts FINAL WHERE sha256 != '' FORMAT JSONEachRow"
_UNKNOWN: Final = frozenset({47, 60, 81})
"""No such column, table or database: there is no analyst before the migrations."""


class _Row(TypedDict):
    name: str
    sha256: str
    organization: str
    only: list[str]
    teams: list[str]


class Users:
    """All users. `ask`: runs a query with all rights, and gives the rows."""

    def __init__(self, ask: Callable[[str], Awaitable[bytes]], password: str = "", *, default: bool = True) -> None:
        """`password`: of the user `sluice`, which has all rights; empty: there is none. `default`: whether the user of that name
        is let in, with all rights and without a password."""
        self._ask = ask
        self._password = password
        self._default = default
        self._grants: dict[str, Grant] = {}
        self._read_at = -FRESH_S
        self._running = Counter[str]()

    async def login(self, query: Mapping[str, str], headers: Mapping[str, str]) -> Grant | None:
        """The analyst who asks; None for a user with all rights. Raises EngineError."""
        name, password = _credentials(query, headers)
        if name == DEFAULT and self._default and not password:
            return None
        if name == SERVICE and self._password and hmac.compare_digest(password.encode(), self._password.encode()):
            return None
        grant = (await self._fresh()).get(name)
        digest = hashlib.sha256(password.encode()).hexdigest()
        if grant is None or not hmac.compare_digest(grant.sha256, digest):
            what = "password is incorrect, or there is no user with such name; `sluice analysts list` shows them"
            raise refusal(516, f"{name[:64]}: Authentication failed: {what}", "AUTHENTICATION_FAILED")
        if role := query.get("role"):
            raise refusal(512, f"Role {role[:64]} should be granted to set", "SET_NON_GRANTED_ROLE")
        return grant

    @asynccontextmanager
    async def within_limits(self, grant: Grant | None) -> AsyncGenerator[None]:
        """An analyst asks a few questions at a time."""
        if grant is None:
            yield
            return
        if self._running[grant.name] >= LIMITS["max_concurrent_queries_for_user"]:
            raise refusal(202, f"Too many simultaneous queries for user {grant.name}", "TOO_MANY_SIMULTANEOUS_QUERIES")
        self._running[grant.name] += 1
        try:
            yield
        finally:
            self._running[grant.name] -= 1

    async def _fresh(self) -> Mapping[str, Grant]:
        if time.monotonic() - self._read_at >= FRESH_S:
            began = time.monotonic()
            try:
                rows = [cast("_Row", json.loads(line)) for line in (await self._ask(_ALL)).splitlines()]
            except EngineError as error:
                if error.code not in _UNKNOWN:
                    raise
                rows = []
            self._grants = {row["name"]: _grant(row) for row in rows}
            self._read_at = began
        return self._grants


def _grant(row: _Row) -> Grant:
    return Grant(row["name"], row["sha256"], row["organization"], tuple(row["only"]), tuple(row["teams"]))


def _credentials(query: Mapping[str, str], headers: Mapping[str, str]) -> tuple[str, str]:
    """Name and password, said in one way only. Raises EngineError."""
    ways = [
        _basic(headers["Authorization"]) if "Authorization" in headers else None,
        _pair(headers, "X-ClickHouse-User", "X-ClickHouse-Key"),
        _pair(query, "user", "password"),
    ]
    said = [way for way in ways if way is not None]
    if len(set(said)) > 1:
        what = "it is not allowed to use several of HTTP Basic, X-ClickHouse HTTP headers and authentication by URL"
        raise refusal(516, f"Invalid authentication: {what}", "AUTHENTICATION_FAILED")
    return said[0] if said else (DEFAULT, "")


def _pair(given: Mapping[str, str], user: str, password: str) -> tuple[str, str] | None:
    return (given.get(user) or DEFAULT, given.get(password, "")) if user in given or password in given else None


def _basic(header: str) -> tuple[str, str]:
    scheme, _, rest = header.partition(" ")
    try:
        plain = base64.b64decode(rest, validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        plain = ""
    if scheme.lower() != "basic" or ":" not in plain:
        raise refusal(516, "Invalid authentication: only HTTP Basic is understood", "AUTHENTICATION_FAILED")
    name, _, password = plain.partition(":")
    return name or DEFAULT, password
