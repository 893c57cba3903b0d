"""A Vault that speaks as much of its HTTP API as hvac needs for logging in, reading and renewing. In a thread, on loopback."""

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Self, cast

from pydantic import JsonValue

from schemas.base import JsonObject

ROLE_ID, SECRET_ID, JWT = "role-1", "secret-id-CANARY", "pod-jwt-CANARY"


@dataclass
class MockVault:
    """`paths`: what is read where. Tokens end when a test takes them out of `tokens`; `asked`: methods and paths, in order."""

    paths: dict[str, JsonObject] = field(default_factory=dict[str, JsonObject])
    tokens: set[str] = field(default_factory=set[str])
    asked: list[str] = field(default_factory=list[str])
    lease_s: int = 60
    token_s: int = 3600
    down: bool = False
    _server: ThreadingHTTPServer | None = None

    @property
    def url(self) -> str:
        assert self._server is not None
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self.answer))
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        assert self._server is not None
        self._server.shutdown()
        self._server.server_close()

    def answer(self, method: str, path: str, token: str | None, body: JsonObject) -> tuple[int, JsonObject]:
        """Status and body for a request."""
        self.asked.append(f"{method} {path}")
        if self.down:
            return 503, {"errors": ["Vault is sealed"]}
        match path:
            case "auth/approle/login":
                return self._logs_in(body == {"role_id": ROLE_ID, "secret_id": SECRET_ID})
            case "auth/kubernetes/login":
                return self._logs_in(body == {"role": ROLE_ID, "jwt": JWT})
            case _ if token not in self.tokens:
                return 403, {"errors": ["permission denied"]}
            case "auth/token/revoke-self":
                self.tokens.discard(token)
                return 204, {}
            case "auth/token/renew-self":
                return 200, {"auth": {"client_token": token, "lease_duration": self.token_s, "renewable": True}}
            case "sys/leases/renew":
                return 200, {"lease_id": body["lease_id"], "lease_duration": self.lease_s, "renewable": True}
            case _ if path in self.paths:
                return 200, self.paths[path]
            case _:
                return 404, {"errors": []}

    def _logs_in(self, right: bool) -> tuple[int, JsonObject]:
        if not right:
            return 400, {"errors": ["invalid role or secret ID"]}
        token = f"hvs.token-CANARY-{len(self.asked)}"
        self.tokens.add(token)
        return 200, {"auth": {"client_token": token, "lease_duration": self.token_s, "renewable": True, "policies": ["default"]}}


def kv(**fields: str) -> JsonObject:
    """What reading a key of KV version 2 gives."""
    inner: dict[str, JsonValue] = {**fields}
    return {"data": {"data": inner, "metadata": {"version": 1}}, "lease_id": "", "lease_duration": 0, "renewable": False}


def dynamic(lease_s: int, **fields: str) -> JsonObject:
    """What reading credentials that are made for the reader gives."""
    inner: dict[str, JsonValue] = {**fields}
    return {"data": inner, "lease_id": "aws/creds/r/CANARY", "lease_duration": lease_s, "renewable": True}


def _handler(answer: Callable[[str, str, str | None, JsonObject], tuple[int, JsonObject]]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def _serve(self) -> None:
            length = int(self.headers.get("content-length") or 0)
            body = cast("JsonObject", json.loads(self.rfile.read(length) or b"{}"))
            status, told = answer(self.command, self.path.removeprefix("/v1/"), self.headers.get("x-vault-token"), body)
            data = json.dumps(told).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = do_PUT = _serve

        def log_message(self, format: str, *args: object) -> None:
            return None

    return Handler
