"""GET /metrics: open, unless a key is set."""

from typing import Any, cast

import pytest
from starlette.requests import Request

from infra.runtime import Runtime
from infra.settings import Settings
from schemas.errors import InvalidKey


class _Platform:
    def __init__(self, key: str) -> None:
        self.settings = Settings.model_validate({"metrics_key": key})


def asks(given: str | None) -> Request:
    headers = [(b"authorization", given.encode())] if given is not None else []
    return Request({"type": "http", "method": "GET", "path": "/metrics", "headers": headers})


def runtime(key: str) -> Any:
    return Runtime(cast("Any", _Platform(key)), (), cast("Any", None))


@pytest.mark.parametrize("given", [None, "", "Bearer ", "Bearer wrong", "secret", "Basic secret"])
async def test_where_a_key_is_set_nobody_else_gets_metrics(given: str | None) -> None:
    with pytest.raises(InvalidKey):
        await runtime("secret")._metrics(asks(given))


@pytest.mark.parametrize(("key", "given"), [("", None), ("", "Bearer anything"), ("secret", "Bearer secret")])
async def test_who_may_gets_them(key: str, given: str | None) -> None:
    assert b"sluice_jobs_admitted_total" in (await runtime(key)._metrics(asks(given))).body
