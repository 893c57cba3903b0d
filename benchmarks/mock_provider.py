"""A very cheap OpenAI-compatible provider with a fault script and a ledger of its own.

As a process: `python -m benchmarks.mock_provider --port 9000 [--latency-ms 200] [--ledger FILE]`.
In a test: `async with MockProvider() as provider: ... provider.base_url, provider.ledger`.

It serves `/v1/chat/completions` (whole and SSE), `/v1/embeddings`, `/v1/moderations`, `/v1/models`; and to whoever tests with
it: `GET /ledger?after=SEQ&limit=N` (a JSON list), `GET /ledger/summary`, `DELETE /ledger`, and `POST /faults`
with `{"gpt-x": ["500", "hang"]}`: the next two requests for `gpt-x` fare as `mock-500` and `mock-hang` would,
and what comes after is answered as ever; `DELETE /faults` ends them early. The header `x-mock-fault: 500` does the
same for one request.
"""

import argparse
import asyncio
import gc
import json
import signal
import uuid
from collections import deque
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import parse_qs

import uvloop
from pydantic import TypeAdapter, ValidationError

from benchmarks.mock_answers import (
    Behaviour,
    ChatRequest,
    EmbeddingRequest,
    ModerationRequest,
    chat_answer,
    chat_body,
    chat_events,
    embeddings_body,
    error_body,
    models_body,
    moderations_body,
    parse_behaviour,
)
from benchmarks.mock_ledger import Entry, Ledger, Outcome
from benchmarks.mock_wire import Connection, Reply, Request, json_reply, refusal, stream_reply

_MAX_SCRIPTED = 10_000
_MODELS = ("mock", "mock-latency-200", "mock-500", "mock-429", "mock-hang", "mock-cut", "mock-garbage")
_IDS = {"chat": "chatcmpl", "embeddings": "emb", "moderations": "modr"}
_FAULTS = TypeAdapter(dict[str, list[str]])


class MockProvider:
    """The server. `port=0` picks a free one; `latency_ms` delays each answer whose model names no latency."""

    def __init__(self, port: int = 0, latency_ms: int = 0, ledger: Ledger | None = None) -> None:
        self.ledger = ledger or Ledger()
        self._port = port
        self._latency_ms = latency_ms
        self._scripts: dict[str, deque[str]] = {}
        self._server: asyncio.Server | None = None
        self._connections: set[Connection] = set()
        self._empty = asyncio.Event()
        self._empty.set()
        self._run = uuid.uuid4().hex[:8]

    @property
    def port(self) -> int:
        """The port it listens on, once started."""
        return self._port

    @property
    def base_url(self) -> str:
        """What an SDK takes as `base_url`."""
        return f"http://127.0.0.1:{self._port}/v1"

    @property
    def open_connections(self) -> int:
        """Connections that are open now."""
        return len(self._connections)

    def script(self, model: str, faults: Sequence[str]) -> None:
        """Queue faults for a model, each as in `parse_behaviour` without `mock-`; `ok` is none."""
        self._scripts.setdefault(model, deque(maxlen=_MAX_SCRIPTED)).extend(faults)

    def summary(self) -> dict[str, int | dict[str, int]]:
        """The ledger's totals, and the connections open now (an asker over HTTP counts himself)."""
        return {**self.ledger.summary(), "open_connections": self.open_connections}

    async def start(self) -> None:
        """Listen on loopback; OSError when the port is taken."""
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: Connection(self), "127.0.0.1", self._port, backlog=1024)
        self._port = int(server.sockets[0].getsockname()[1])
        self._server = server

    async def stop(self) -> None:
        """Stop listening and drop every connection; requests that still run end as `client_gone`."""
        if self._server is None:
            return
        self._server.close()
        for connection in tuple(self._connections):
            connection.abort()
        await self._empty.wait()
        await self._server.wait_closed()
        self._server = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        await self.stop()

    def joined(self, connection: Connection) -> None:
        """For `Connection`: it is open."""
        self._connections.add(connection)
        self._empty.clear()

    def left(self, connection: Connection) -> None:
        """For `Connection`: it is gone."""
        self._connections.discard(connection)
        if not self._connections:
            self._empty.set()

    def finished(self, entry: Entry, outcome: Outcome, pieces_sent: int) -> None:
        """For `Connection`: an answer is over. A stream that ended early is billed for the words it sent."""
        if outcome == "client_gone":
            # The first piece of a stream is the role; of a whole body nothing was sent.
            entry.completion_tokens = min(entry.completion_tokens, max(0, pieces_sent - 1))
            if not pieces_sent:
                entry.prompt_tokens = entry.cached_tokens = 0
        self.ledger.close(entry, outcome)

    def reply(self, request: Request) -> Reply:
        """For `Connection`: decide the answer to a request, and open its entry in the ledger."""
        path, _, query = request.target.decode("latin-1").partition("?")
        try:
            match request.method, path.removeprefix("/v1"):
                case b"POST", "/chat/completions":
                    return self._chat(request)
                case b"POST", "/embeddings":
                    return self._embeddings(request)
                case b"POST", "/moderations":
                    return self._moderations(request)
                case b"GET", "/models":
                    return json_reply(200, models_body(_MODELS))
                case method, "/ledger" | "/ledger/summary" | "/faults" as book:
                    return self._books(method, book, query, request.body)
                case _:
                    return json_reply(404, error_body(404, f"nothing at {path}"))
        except ValidationError as error:
            return json_reply(400, error_body(400, str(error)))

    def _chat(self, request: Request) -> Reply:
        chat = ChatRequest.model_validate_json(request.body)
        behaviour = self._behaviour(chat.model, request)
        entry = self._entry("chat", chat.model, chat.user, request)
        entry.stream, entry.status = chat.stream, behaviour.status
        if behaviour.status != 200:
            return refusal(behaviour, entry)
        answer = chat_answer(chat, behaviour, entry.id, int(entry.at))
        half = chat.stream and behaviour.ending != "whole"
        entry.prompt_tokens, entry.cached_tokens = answer.prompt_tokens, answer.cached_tokens
        entry.completion_tokens = len(answer.words) // (2 if half else 1)
        if not chat.stream:
            return json_reply(200, chat_body(answer, behaviour), behaviour, entry)
        include_usage = chat.stream_options is not None and chat.stream_options.include_usage
        return stream_reply(chat_events(answer, behaviour, include_usage), behaviour, entry)

    def _embeddings(self, request: Request) -> Reply:
        wanted = EmbeddingRequest.model_validate_json(request.body)
        behaviour = self._behaviour(wanted.model, request)
        entry = self._entry("embeddings", wanted.model, wanted.user, request)
        entry.status = behaviour.status
        if behaviour.status != 200:
            return refusal(behaviour, entry)
        body, entry.prompt_tokens = embeddings_body(wanted)
        return json_reply(200, b"<html>" if behaviour.ending == "garbage" else body, behaviour, entry)

    def _moderations(self, request: Request) -> Reply:
        wanted = ModerationRequest.model_validate_json(request.body)
        behaviour = self._behaviour(wanted.model, request)
        entry = self._entry("moderations", wanted.model, wanted.user, request)
        entry.status = behaviour.status
        if behaviour.status != 200:
            return refusal(behaviour, entry)
        body, entry.prompt_tokens = moderations_body(wanted, behaviour, entry.id)
        return json_reply(200, body, behaviour, entry)

    def _behaviour(self, model: str, request: Request) -> Behaviour:
        script = self._scripts.get(model)
        fault = request.header(b"x-mock-fault") or (script.popleft() if script else None)
        behaviour = parse_behaviour(f"mock-{fault}" if fault else model)
        if self._latency_ms and not behaviour.latency_ms:
            return replace(behaviour, latency_ms=self._latency_ms)
        return behaviour

    def _entry(self, endpoint: str, model: str, user: str | None, request: Request) -> Entry:
        entry = self.ledger.open(endpoint, model)
        entry.id = f"{_IDS[endpoint]}-{self._run}-{entry.seq}"
        entry.request_id = request.header(b"x-request-id")
        entry.marker = user or entry.request_id
        entry.idempotency_key = request.header(b"idempotency-key")
        entry.key_tail = (request.header(b"authorization") or "")[-4:] or None
        return entry

    def _books(self, method: bytes, book: str, query: str, body: bytes) -> Reply:
        match method, book:
            case b"POST", "/faults":
                for model, faults in _FAULTS.validate_json(body).items():
                    self.script(model, faults)
            case b"DELETE", "/faults":
                self._scripts.clear()
            case b"DELETE", "/ledger":
                self.ledger.reset()
            case b"GET", "/ledger/summary":
                return json_reply(200, json.dumps(self.summary()).encode())
            case b"GET", "/ledger":
                asked = parse_qs(query)
                after, limit = int(asked.get("after", ["0"])[0]), int(asked.get("limit", ["10000"])[0])
                entries = [asdict(entry) for entry in self.ledger.entries(after, limit)]
                return json_reply(200, json.dumps(entries).encode())
            case _:
                return json_reply(405, error_body(405, f"no such method on {book}"))
        return json_reply(200, b"{}")


async def _serve(port: int, latency_ms: int, file: Path | None) -> None:
    # A long ledger would make each full collection a pause of milliseconds in somebody's p99.
    gc.set_threshold(100_000, 50, 1000)
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    with Ledger(file=file) as ledger:
        async with MockProvider(port, latency_ms, ledger) as provider:
            print(f"ready {provider.base_url}", flush=True)
            await stopped.wait()


def main() -> None:
    """Serve until SIGTERM; prints one line `ready BASE_URL`."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.mock_provider", description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="0 picks a free one")
    parser.add_argument("--latency-ms", type=int, default=0, help="wait before each answer")
    parser.add_argument("--ledger", type=Path, default=None, help="append each request as a JSON line")
    asked = parser.parse_args()
    uvloop.run(_serve(asked.port, asked.latency_ms, asked.ledger))


if __name__ == "__main__":
    main()
