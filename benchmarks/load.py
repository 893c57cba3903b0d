"""A load generator that costs little: raw asyncio, keep-alive connections, a few microseconds a request.

It shares the machine with what it measures, so it prints its own CPU too.

    python -m benchmarks.load --url http://127.0.0.1:9000/v1 [--key KEY] [--model mock] [--connections 64]
                              (--requests 10000 | --seconds 10) [--stream] [--repeat] [--words 20] [--json]

Each connection sends its next request when the last one is answered (a closed loop), so a slow system is
asked less: read p99 together with the rate.
"""

import argparse
import asyncio
import json
import random
import re
import time
from array import array
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import cast
from urllib.parse import urlsplit

import httptools
import uvloop

from benchmarks.mock_answers import WORDS

_FIRST_TOKEN = re.compile(rb'"content": ?"[^"]')
_FRAGMENTS = 1024
_WATCH_S = 0.25
Bodies = Callable[[int], bytes]


@dataclass(frozen=True, slots=True)
class Target:
    """Where to send: `url` is the API's base, such as `http://127.0.0.1:9000/v1` (http only)."""

    url: str
    key: str = "none"
    model: str = "mock"


@dataclass(frozen=True, slots=True)
class Plan:
    """How much to send. Ends at `requests` answers or after `seconds`, whichever comes first (one is needed).

    `pause_s` is the wait between an answer and the next request of a connection. A request that takes longer
    than `timeout_s` counts as an error and its connection is opened anew.
    """

    connections: int = 1
    requests: int | None = None
    seconds: float | None = None
    stream: bool = False
    unique: bool = True
    words: int = 20
    pause_s: float = 0.0
    timeout_s: float = 30.0
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Quantiles:
    """Milliseconds."""

    p50: float
    p95: float
    p99: float
    max: float


@dataclass(frozen=True, slots=True)
class Report:
    """What came of a plan. `errors` are requests without a whole answer of status 200, by status or reason."""

    requests: int
    ok: int
    errors: dict[str, int]
    wall_s: float
    rps: float
    latency_ms: Quantiles
    first_token_ms: Quantiles | None
    generator_cpu_us: float


def quantiles(seconds: Sequence[float]) -> Quantiles:
    """Nearest-rank quantiles of durations in seconds; all zero when there are none."""
    if not seconds:
        return Quantiles(0.0, 0.0, 0.0, 0.0)
    ordered = sorted(seconds)
    last = len(ordered) - 1
    p50, p95, p99 = (1000 * ordered[min(last, int(share * len(ordered)))] for share in (0.50, 0.95, 0.99))
    return Quantiles(p50, p95, p99, 1000 * ordered[last])


def chat_bodies(model: str, plan: Plan) -> Bodies:
    """Bodies by number. Unique ones differ in most words, so that no cache, exact or semantic, helps."""
    draw = random.Random(plan.seed)
    half = max(1, plan.words // 2)
    fragments = [" ".join(draw.choices(WORDS, k=half)) for _ in range(_FRAGMENTS)]
    tail: dict[str, object] = {"stream_options": {"include_usage": True}} if plan.stream else {}
    message = {"role": "user", "content": "@@"}
    shape = json.dumps({"model": model, "messages": [message], "stream": plan.stream, **tail})
    before, after = shape.split("@@")

    def body(number: int) -> bytes:
        if not plan.unique:
            number = 0
        first, second = (
            fragments[number % _FRAGMENTS],
            fragments[(number // _FRAGMENTS + 7 * number) % _FRAGMENTS],
        )
        return f"{before}{first} {number} {second}{after}".encode()

    return body


@dataclass(slots=True)
class _Run:
    """What the connections of one plan share."""

    plan: Plan
    head: bytes
    bodies: Bodies
    ends_at: float
    started: int = 0
    finished: int = 0
    latencies: "array[float]" = field(default_factory=lambda: array("d"))
    first_tokens: "array[float]" = field(default_factory=lambda: array("d"))
    errors: Counter[str] = field(default_factory=Counter)

    def wants_more(self, now: float) -> bool:
        """Whether requests are still to be started."""
        return now < self.ends_at and (self.plan.requests is None or self.started < self.plan.requests)

    def next_request(self, now: float) -> bytes | None:
        """The bytes of the next request, or None when enough were started."""
        if not self.wants_more(now):
            return None
        body = self.bodies(self.started)
        self.started += 1
        return b"%b%d\r\n\r\n%b" % (self.head, len(body), body)

    def failed_to_connect(self) -> None:
        """Counts as a request, so that a dead target ends a plan as well."""
        self.started += 1
        self.finished += 1
        self.errors["no connection"] += 1

    def answered(self, error: str | None, latency_s: float, first_token_s: float | None) -> None:
        """One request is over."""
        self.finished += 1
        if error is None:
            self.latencies.append(latency_s)
            if first_token_s is not None:
                self.first_tokens.append(first_token_s)
        else:
            self.errors[error] += 1


class _Connection(asyncio.Protocol):
    def __init__(self, run: _Run) -> None:
        self._run = run
        self._stream = run.plan.stream
        self._transport = cast("asyncio.Transport", None)
        self._sent_at: float | None = None
        self._first_at: float | None = None
        self._pause: asyncio.TimerHandle | None = None
        self._tail = b""
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._parser = httptools.HttpResponseParser(self)
        self._send()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._pause:
            self._pause.cancel()
        self._over("connection lost")
        if not self.closed.done():
            self.closed.set_result(None)

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self._over("not HTTP")
            self._transport.abort()

    def on_body(self, body: bytes) -> None:
        if not self._stream:
            self._tail = body
            return
        if self._first_at is None and _FIRST_TOKEN.search(body):
            self._first_at = time.perf_counter()
        self._tail = self._tail[-16:] + body

    def on_message_complete(self) -> None:
        status = self._parser.get_status_code()
        whole = self._tail.rstrip().endswith(b"data: [DONE]" if self._stream else b"}")
        self._over(None if status == 200 and whole else str(status) if status != 200 else "not whole")
        if not self._parser.should_keep_alive():
            self._transport.close()
        elif self._run.plan.pause_s:
            self._pause = asyncio.get_running_loop().call_later(self._run.plan.pause_s, self._send)
        else:
            self._send()

    def expire(self, now: float) -> None:
        """Give up on a request that has waited too long."""
        if self._sent_at is not None and now - self._sent_at > self._run.plan.timeout_s:
            self._over("timeout")
            self._transport.abort()

    def _send(self) -> None:
        now = time.perf_counter()
        request = self._run.next_request(now)
        if request is None:
            self._transport.close()
            return
        self._sent_at, self._first_at, self._tail = now, None, b""
        self._transport.write(request)

    def _over(self, error: str | None) -> None:
        if self._sent_at is not None:
            first = self._first_at - self._sent_at if self._first_at is not None else None
            self._run.answered(error, time.perf_counter() - self._sent_at, first)
            self._sent_at = None


async def _keep_connected(run: _Run, host: str, port: int, live: "set[_Connection]") -> None:
    loop = asyncio.get_running_loop()
    while run.wants_more(time.perf_counter()):
        connection = _Connection(run)
        try:
            await loop.create_connection(lambda c=connection: c, host, port)
        except OSError:
            run.failed_to_connect()
            await asyncio.sleep(_WATCH_S)
            continue
        live.add(connection)
        await connection.closed
        live.discard(connection)


async def _watch(live: "set[_Connection]") -> None:
    while True:
        await asyncio.sleep(_WATCH_S)
        now = time.perf_counter()
        for connection in tuple(live):
            connection.expire(now)


async def measure(target: Target, plan: Plan) -> Report:
    """Carry out a plan against a chat endpoint. ValueError when the plan has no end."""
    if plan.requests is None and plan.seconds is None:
        raise ValueError("a plan needs requests or seconds")
    parts = urlsplit(target.url)
    host, port = parts.hostname or "127.0.0.1", parts.port or 80
    head = (
        f"POST {parts.path}/chat/completions HTTP/1.1\r\nhost: {host}:{port}\r\n"
        "content-type: application/json\r\n"
        f"authorization: Bearer {target.key}\r\naccept: */*\r\nuser-agent: sluice-bench\r\ncontent-length: "
    ).encode()
    cpu, begun = time.process_time(), time.perf_counter()
    ends_at = begun + plan.seconds if plan.seconds is not None else float("inf")
    run = _Run(plan, head, chat_bodies(target.model, plan), ends_at)
    live: set[_Connection] = set()
    watcher = asyncio.create_task(_watch(live))
    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(plan.connections):
                group.create_task(_keep_connected(run, host, port, live))
    finally:
        watcher.cancel()
    return _report(run, time.perf_counter() - begun, time.process_time() - cpu)


def _report(run: _Run, wall_s: float, cpu_s: float) -> Report:
    ok = len(run.latencies)
    return Report(
        requests=run.finished,
        ok=ok,
        errors=dict(run.errors),
        wall_s=wall_s,
        rps=ok / wall_s,
        latency_ms=quantiles(run.latencies),
        first_token_ms=quantiles(run.first_tokens) if run.plan.stream else None,
        generator_cpu_us=1e6 * cpu_s / max(1, run.finished),
    )


def describe(report: Report) -> str:
    """A report in lines for a person."""
    lines = [
        f"{report.ok} of {report.requests} ok in {report.wall_s:.2f} s: {report.rps:.0f} requests/s",
        f"latency ms      {_line(report.latency_ms)}",
    ]
    if report.first_token_ms is not None:
        lines.append(f"first token ms  {_line(report.first_token_ms)}")
    lines.append(f"errors          {report.errors or 'none'}")
    lines.append(f"generator CPU   {report.generator_cpu_us:.1f} us a request")
    return "\n".join(lines)


def _line(q: Quantiles) -> str:
    return f"p50 {q.p50:.3f}  p95 {q.p95:.3f}  p99 {q.p99:.3f}  max {q.max:.3f}"


def main() -> None:
    """Run one plan and print its report; exit 1 when any request failed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.load")
    parser.add_argument("--url", required=True, help="base of the API, such as http://127.0.0.1:9000/v1")
    parser.add_argument("--key", default="none")
    parser.add_argument("--model", default="mock")
    parser.add_argument("--connections", type=int, default=1)
    parser.add_argument("--requests", type=int, default=None)
    parser.add_argument("--seconds", type=float, default=None)
    parser.add_argument("--pause", type=float, default=0.0, help="seconds between answer and next request")
    parser.add_argument("--timeout", type=float, default=30.0)
    parser.add_argument("--words", type=int, default=20, help="words in a prompt")
    parser.add_argument("--seed", type=int, default=0, help="another seed, other prompts")
    parser.add_argument("--stream", action="store_true")
    parser.add_argument("--repeat", action="store_true", help="the same prompt every time")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    if asked.requests is None and asked.seconds is None:
        asked.requests = 1000
    plan = Plan(
        connections=asked.connections,
        requests=asked.requests,
        seconds=asked.seconds,
        stream=asked.stream,
        unique=not asked.repeat,
        words=asked.words,
        pause_s=asked.pause,
        timeout_s=asked.timeout,
        seed=asked.seed,
    )
    report = uvloop.run(measure(Target(asked.url, asked.key, asked.model), plan))
    print(json.dumps(asdict(report)) if asked.json else describe(report))
    raise SystemExit(1 if report.errors else 0)


if __name__ == "__main__":
    main()
