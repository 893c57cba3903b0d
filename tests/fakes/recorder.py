"""A provider that remembers exactly what reached it: each request's headers and body."""

import json
import threading
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

ANSWER: Mapping[str, object] = {
    "id": "chatcmpl-recorded",
    "object": "chat.completion",
    "created": 1_700_000_000,
    "model": "recorded",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "noted"}, "logprobs": None, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 5, "completion_tokens": 1, "total_tokens": 6},
    "a_member_of_tomorrow": {"deep": [1, None, "ü"]},
}


@dataclass(frozen=True, slots=True)
class Seen:
    """One request; header names in lower case."""

    headers: Mapping[str, str]
    body: dict[str, Any]


class Recorder:
    """What was seen, oldest first. `answers`: what to say, instead of ANSWER, to the `user` of a request; a list is a stream."""

    def __init__(self, base_url: str) -> None:
        self.base_url = base_url
        self.seen: list[Seen] = []
        self.answers: dict[str, Mapping[str, object] | Sequence[Mapping[str, object]]] = {}

    def with_user(self, user: str) -> list[Seen]:
        """Requests whose body has this `user`."""
        return [seen for seen in self.seen if seen.body.get("user") == user]


@contextmanager
def recording() -> Generator[Recorder]:
    """Serves every chat request, on a thread."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            headers = {name.lower(): value for name, value in self.headers.items()}
            recorder.seen.append(Seen(headers, json.loads(body)))
            said = recorder.answers.get(recorder.seen[-1].body.get("user", ""), ANSWER)
            whole = isinstance(said, Mapping)
            answer = json.dumps(said).encode() if whole else b"".join(map(_event, said)) + b"data: [DONE]\n\n"
            self.send_response(200)
            self.send_header("content-type", "application/json" if whole else "text/event-stream")
            self.send_header("content-length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, format: str, *args: object) -> None:
            return

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        recorder = Recorder(f"http://127.0.0.1:{server.server_address[1]}/v1")
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield recorder
        server.shutdown()


def _event(chunk: Mapping[str, object]) -> bytes:
    return b"data: %s\n\n" % json.dumps(chunk).encode()
