"""The running system as a command sees it: where its parts are, and its admin API."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Self
from urllib.parse import urlsplit

import httpx
import typer
from pydantic import TypeAdapter, ValidationError

from infra.secret_files import SERVICE, password_file
from infra.settings import Settings
from schemas.base import JsonObject
from services.cli import endpoints
from services.cli.output import Failed, listed

DataDir = Annotated[Path | None, typer.Option("--data-dir", help="folder of the running system  [default: .sluice]")]
Json = Annotated[bool, typer.Option("--json", help="data as JSON")]

TIMEOUT_S = 30.0
_LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
_OBJECT: TypeAdapter[JsonObject] = TypeAdapter(JsonObject)


@dataclass(frozen=True, slots=True)
class System:
    """Addresses as they are known; empty where they are not. `pids` are process ids of this machine."""

    settings: Settings
    http: str
    kafka: str
    redis: str
    clickhouse: str
    pids: dict[str, int]
    is_local: bool

    @property
    def data_dir(self) -> Path:
        return self.settings.data_dir

    def address(self, part: str) -> str:
        """Where a part is. Raises Failed that says how to name it."""
        found = {"http": self.http, "kafka": self.kafka, "clickhouse": self.clickhouse}[part]
        if found:
            return found
        missing = "SLUICE_URL and SLUICE_ADMIN_KEY" if part == "http" else f"SLUICE_{part.upper()}"
        raise Failed(f"No running Sluice found in {self.data_dir}: start it with `sluice up`, or set {missing}.")

    def admin_key(self) -> str:
        """The key of the admin API. Raises Failed."""
        key = self.settings.admin_key.get_secret_value()
        # Where SLUICE_URL is set, SLUICE_ADMIN_KEY belongs to it, and to no other system.
        if key and self.settings.url.rstrip("/") in ("", self.http):
            return key
        path = self.data_dir / "admin.key"
        try:
            return path.read_text().strip()
        except FileNotFoundError:
            raise Failed(f"There is no admin key in {path}: start Sluice with `sluice up`, or set SLUICE_ADMIN_KEY.") from None
        except PermissionError:
            raise Failed(f"{path} belongs to somebody else: ask for a key, or set SLUICE_ADMIN_KEY.") from None


def find(data_dir: Path | None) -> System:
    """The system that a command is meant for.

    What was said on the command line (`--data-dir`) goes before the environment (SLUICE_URL and others), and that before
    the folder `.sluice`.
    """
    settings = load_settings(data_dir)
    here = endpoints.read(settings.data_dir)
    known = here or endpoints.Endpoints()
    given = (settings.url, settings.kafka, settings.redis, settings.clickhouse)
    running = (known.http, known.kafka, known.redis, _with_password(known.clickhouse, settings.data_dir))
    first, second = (running, given) if data_dir is not None and here else (given, running)
    http, kafka, redis, clickhouse = (a or b for a, b in zip(first, second, strict=True))
    is_local = http == known.http and here is not None
    return System(settings, http.rstrip("/"), kafka, redis, clickhouse, known.pids if is_local else {}, is_local)


def _with_password(clickhouse: str, data_dir: Path) -> str:
    """The embedded ClickHouse is asked as the user who may do all, by whoever may read its password."""
    path = password_file(data_dir)
    if "@" in clickhouse or "://" not in clickhouse or not os.access(path, os.R_OK):
        return clickhouse
    return clickhouse.replace("://", f"://{SERVICE}:{path.read_text().strip()}@", 1)


def load_settings(data_dir: Path | None) -> Settings:
    """The settings of this process. Raises Failed that names the variable."""
    try:
        settings = Settings()
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise Failed(f"SLUICE_{str(first['loc'][0]).upper()}: {first['msg']}") from None
    if data_dir is None:
        return settings
    return settings.model_copy(update={"data_dir": data_dir})


class Api:
    """Calls of the HTTP API with one key."""

    def __init__(self, base_url: str, key: str) -> None:
        self._base_url = base_url
        self._http = open_http(base_url, {"authorization": f"Bearer {key}"})

    @classmethod
    def admin(cls, system: System) -> Self:
        """With the admin key."""
        return cls(system.address("http"), system.admin_key())

    def get(self, path: str, **params: str) -> JsonObject:
        return self._call("GET", path, params=params)

    def post(self, path: str, body: JsonObject) -> JsonObject:
        return self._call("POST", path, body=body)

    def all(self, path: str, **params: str) -> list[JsonObject]:
        """All of a list, page by page."""
        found: list[JsonObject] = []
        while True:
            answer = self.get(path, **params)
            found += listed(answer)
            after = answer.get("last_id")
            if not answer.get("has_more") or not isinstance(after, str):
                return found
            params["after"] = after

    def put(self, path: str, body: JsonObject, version: int | None = None) -> JsonObject:
        return self._call("PUT", path, body=body, version=version)

    def patch(self, path: str, body: JsonObject, version: int | None = None) -> JsonObject:
        """A merge patch; `version`: only if this one still stands."""
        return self._call("PATCH", path, body=body, version=version)

    def delete(self, path: str, version: int | None = None, **params: str) -> JsonObject:
        return self._call("DELETE", path, params=params, version=version)

    def _call(
        self,
        method: str,
        path: str,
        *,
        params: dict[str, str] | None = None,
        body: JsonObject | None = None,
        version: int | None = None,
    ) -> JsonObject:
        """The JSON object that was answered. Raises Failed with the server's own words if it refuses."""
        headers = {} if version is None else {"if-match": f'"{version}"'}
        try:
            response = self._http.request(method, path, params=params, json=body, headers=headers)
        except httpx.TransportError as error:
            raise Failed(f"Sluice at {self._base_url} doesn't answer ({describe(error)}). `sluice doctor` says more.") from error
        try:
            answer = _OBJECT.validate_json(response.content)
        except ValidationError:
            raise Failed(
                f"{response.request.url} answered {response.status_code} and no JSON object: is that a Sluice? See SLUICE_URL."
            ) from None
        if response.is_error:
            raise Failed(_message(answer) or f"{method} {path} was refused with status {response.status_code}")
        return answer


def open_http(base_url: str, headers: dict[str, str]) -> httpx.Client:
    """An HTTP client. A proxy of the environment has no business between us and this machine. Raises Failed."""
    try:
        is_loopback = urlsplit(base_url).hostname in _LOOPBACK
        return httpx.Client(base_url=base_url, headers=headers, timeout=TIMEOUT_S, trust_env=not is_loopback)
    except (ValueError, httpx.InvalidURL):
        # It may hold a password.
        raise Failed("That is no URL. See SLUICE_URL and SLUICE_CLICKHOUSE: such as http://127.0.0.1:8123.") from None


def describe(error: Exception) -> str:
    """An error in a few words."""
    return str(error) or type(error).__name__


def _message(answer: JsonObject) -> str:
    error = answer.get("error")
    message = error.get("message") if isinstance(error, dict) else None
    return message if isinstance(message, str) else ""
