"""Spans that are sent out."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from infra.telemetry.spans import open_tracing


def test_spans_arrive_with_their_headers() -> None:
    seen: list[tuple[str, str | None, str | None, bytes]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            seen.append((self.path, self.headers["authorization"], self.headers["x-other"], body))
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        url = f"http://127.0.0.1:{server.server_address[1]}/api/public/otel/"
        tracing = open_tracing("test", url, "authorization=Basic cGs6c2s=, x-other=a%20b,")
        with tracing.span("chat fast", ""):
            pass
        tracing.close()
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    [(path, authorization, other, body)] = seen
    assert (path, authorization, other) == ("/api/public/otel/v1/traces", "Basic cGs6c2s=", "a b")
    assert b"chat fast" in body
