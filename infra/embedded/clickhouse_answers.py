"""Bodies of answers, compressed as the client asks by enable_http_compression and Accept-Encoding."""

import gzip
import sys
import zlib
from collections.abc import Callable, Mapping
from typing import Final, cast

import lz4.frame

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

WORTH_BYTES: Final = 1024
_FASTEST: Final = 1

COMPRESSORS: Final[Mapping[str, Callable[[bytes], bytes]]] = {
    "zstd": lambda body: zstd.compress(body, _FASTEST),
    "lz4": lambda body: cast(bytes, lz4.frame.compress(body)),  # pyright: ignore[reportUnknownMemberType]
    "gzip": lambda body: gzip.compress(body, _FASTEST),
    "deflate": lambda body: zlib.compress(body, _FASTEST),
}
"""The first that the client takes is used."""


def encoding(wanted: str, accepted: str) -> str:
    """Which encoding an answer gets; empty: none. `wanted`: the parameter enable_http_compression."""
    offers = [offer.strip().partition(";") for offer in accepted.lower().split(",")]
    taken = {name.strip() for name, _, quality in offers if quality.replace(" ", "") not in ("q=0", "q=0.0")}
    return next((name for name in COMPRESSORS if name in taken), "") if wanted in ("1", "true") else ""
