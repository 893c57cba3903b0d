"""A stub of the servers that commands speak to, on loopback, and a data folder that names it."""

import json
import threading
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import pytest
from typer.testing import CliRunner, Result

from services.cli import app

Invoke = Callable[..., Result]


class Seen(NamedTuple):
    """A request as it came."""

    method: str
    path: str
    query: str
    body: str
    authorization: str
    if_match: str


@dataclass
class Stub:
    """Answers by method and path: status, body (text as it is, else JSON), headers."""

    url: str = ""
    answers: dict[tuple[str, str], tuple[int, object, dict[str, str]]] = field(default_factory=dict)
    seen: list[Seen] = field(default_factory=list)

    def on(self, method: str, path: str, status: int, body: object, **headers: str) -> None:
        self.answers[method, path] = (status, body, {name.replace("_", "-"): value for name, value in headers.items()})

    def bodies(self, method: str) -> list[object]:
        return [json.loads(seen.body) for seen in self.seen if seen.method == method]


@pytest.fixture
def stub() -> Generator[Stub]:
    stub = Stub()

    class Handler(BaseHTTPRequestHandler):
        def do(self) -> None:
            parts = urlsplit(self.path)
            body = self.rfile.read(int(self.headers.get("content-length") or 0)).decode()
            told = (self.headers.get(name) or "" for name in ("authorization", "if-match"))
            stub.seen.append(Seen(self.command, parts.path, parts.query, body, *told))
            status, answer, headers = stub.answers.get((self.command, parts.path), (404, {}, {}))
            data = (answer if isinstance(answer, str) else json.dumps(answer)).encode()
            self.send_response(status)
            for name, value in {**headers, "content-length": str(len(data))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do

        def log_message(self, format: str, *args: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    stub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield stub
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def data_dir(tmp_path: Path, stub: Stub, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a running system, whose servers are the stub; nothing of the environment leads elsewhere."""
    for name in ("DATA_DIR", "URL", "ADMIN_KEY", "KEY", "KAFKA", "REDIS", "CLICKHOUSE"):
        monkeypatch.delenv(f"SLUICE_{name}", raising=False)
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "endpoints.json").write_text(json.dumps({"http": stub.url, "clickhouse": stub.url, "pids": {}}))
    (folder / "admin.key").write_text("sk-admin\n")
    (folder / "admin.key").chmod(0o600)
    return folder


@pytest.fixture
def invoke(data_dir: Path) -> Invoke:
    """Runs `sluice --data-dir DATA_DIR …`; stdout and stderr apart."""
    return lambda *words: CliRunner().invoke(app, ["--data-dir", str(data_dir), *words])
