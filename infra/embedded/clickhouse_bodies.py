"""Bodies of requests: read, decompressed, and bounded one by one and all together."""

import asyncio
import sys
import zlib
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Final, Protocol, cast

import lz4.frame
from aiohttp import web

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

from infra.embedded.clickhouse_errors import refusal

MAX_BODY_BYTES: Final = 256 * 2**20
MAX_BODIES_BYTES: Final = 2 * MAX_BODY_BYTES
BODY_TIMEOUT_S: Final = 60


class _Decompressor(Protocol):
    @property
    def eof(self) -> bool: ...
    @property
    def unused_data(self) -> bytes | None: ...
    def decompress(self, data: bytes, max_length: int, /) -> bytes: ...


DECOMPRESSORS: Final[dict[str, Callable[[], _Decompressor]]] = {
    "lz4": lambda: cast(_Decompressor, lz4.frame.LZ4FrameDecompressor()),
    "zstd": zstd.ZstdDecompressor,
    "gzip": lambda: zlib.decompressobj(31),
    "deflate": lambda: zlib.decompressobj(15),
}


class Bodies:
    """Reads bodies of requests, and keeps all of them together within bounds."""

    def __init__(self) -> None:
        self._held_bytes = 0

    @asynccontextmanager
    async def read(self, request: web.Request) -> AsyncGenerator[bytes]:
        """The body, decompressed; empty for a form. Raises EngineError when it is too large, or others are."""
        body = bytearray()
        try:
            if request.content_type != "multipart/form-data":
                await self._collect(request, body)
            yield _decompressed(body, request.headers.get("Content-Encoding", ""))
        finally:
            self._held_bytes -= len(body)

    async def _collect(self, request: web.Request, body: bytearray) -> None:
        try:
            async with asyncio.timeout(BODY_TIMEOUT_S):
                async for chunk in request.content.iter_any():
                    body += chunk
                    self._held_bytes += len(chunk)
                    self._insist_on_bounds(len(body))
        except TimeoutError as error:
            raise refusal(209, "The body did not arrive in time", "SOCKET_TIMEOUT") from error

    def _insist_on_bounds(self, size: int) -> None:
        if size > MAX_BODY_BYTES:
            raise refusal(307, f"The body is larger than {MAX_BODY_BYTES} bytes", "TOO_MANY_BYTES")
        if self._held_bytes > MAX_BODIES_BYTES:
            raise refusal(202, "Too many large bodies at once", "TOO_MANY_SIMULTANEOUS_QUERIES")


def _decompressed(body: bytearray, encoding: str) -> bytes:
    """A body may be several frames, one a block of rows. What is cut off is refused, never taken for the whole."""
    if encoding in ("", "identity"):
        return bytes(body)
    if encoding not in DECOMPRESSORS:
        raise refusal(89, f"Unknown Content-Encoding {encoding}", "UNKNOWN_COMPRESSION_METHOD")
    plain, rest = bytearray(), bytes(body)
    while rest:
        frame = DECOMPRESSORS[encoding]()
        try:
            plain += frame.decompress(rest, MAX_BODY_BYTES + 1 - len(plain))
        except (RuntimeError, zlib.error, zstd.ZstdError) as error:
            raise refusal(271, f"Cannot decompress the body: {error}", "CANNOT_DECOMPRESS") from error
        if len(plain) > MAX_BODY_BYTES:
            raise refusal(307, f"The body is larger than {MAX_BODY_BYTES} bytes", "TOO_MANY_BYTES")
        if not frame.eof:
            raise refusal(271, "Cannot decompress the body: it is cut off", "CANNOT_DECOMPRESS")
        rest = frame.unused_data or b""
    return bytes(plain)
