"""Spans as bytes: OTLP's protobuf, written straight from what is told. The library would make objects of each value on the way.

The numbers of fields are those of opentelemetry/proto/trace/v1/trace.proto. A message is its fields in a row, so bytes of many
spans, put in a row, are a message of many spans.
"""

from collections.abc import Iterable, Mapping
from functools import lru_cache
from struct import Struct
from typing import Final, Literal

from infra.telemetry.genai import ERROR_TYPE, Value

Kind = Literal["server", "client", "consumer", "internal"]

_KINDS: Final[Mapping[Kind, bytes]] = {"internal": b"\x01", "server": b"\x02", "client": b"\x03", "consumer": b"\x05"}
_BYTES: Final = tuple(bytes((number,)) for number in range(128))
_DOUBLE: Final = Struct("<d").pack
_TIMES: Final = Struct("<cQcQ").pack
_SCOPE: Final = b"\x0a\x08\x0a\x06sluice"
_ROOT: Final = b"\x85\x01\x00\x01\x00\x00"
_CHILD: Final = b"\x85\x01\x00\x03\x00\x00"
"""Flags: a parent may have been in another process, and was."""

_SHORT: Final = 64
"""Shorter texts mostly come again, so their bytes are kept."""


def span(
    name: str, kind: Kind, context: str, parent: str, began_ns: int, ended_ns: int, attributes: Mapping[str, Value]
) -> bytes:
    """A span as a field of what `request` puts together. `parent`: the context it was opened in, or empty."""
    tracestate = context[56:]
    fields = [
        b"\x0a\x10",
        bytes.fromhex(context[3:35]),
        b"\x12\x08",
        bytes.fromhex(context[36:52]),
        _field(b"\x1a", tracestate.encode()) if tracestate else b"",
        b"\x22\x08" + bytes.fromhex(parent[36:52]) + _CHILD if parent else _ROOT,
        _text(b"\x2a", name),
        b"\x30",
        _KINDS[kind],
        _TIMES(b"\x39", began_ns, b"\x41", ended_ns),
    ]
    for key, value in attributes.items():
        kept = isinstance(value, str) and len(value) < _SHORT
        fields.append(_kept(key, value) if kept else _attribute(key, value))
    if (error := attributes.get(ERROR_TYPE)) is not None:
        fields.append(_field(b"\x7a", _text(b"\x12", str(error)) + b"\x18\x02"))
    return _field(b"\x12", b"".join(fields))


def resource(attributes: Mapping[str, Value]) -> bytes:
    """Who tells of spans."""
    return _field(b"\x0a", b"".join(_field(b"\x0a", _pair(*told)) for told in attributes.items()))


def request(of: bytes, spans: Iterable[bytes]) -> bytes:
    """An ExportTraceServiceRequest. `of`: their resource."""
    return _field(b"\x0a", of + _field(b"\x12", _SCOPE + b"".join(spans)))


def _attribute(name: str, value: Value) -> bytes:
    return _field(b"\x4a", _pair(name, value))


_kept = lru_cache(maxsize=1024)(_attribute)


def _pair(name: str, value: Value) -> bytes:
    return _key(name) + _field(b"\x12", _any(value))


@lru_cache(maxsize=256)
def _key(name: str) -> bytes:
    return _text(b"\x0a", name)


def _any(value: Value) -> bytes:
    if isinstance(value, str):
        return _text(b"\x0a", value)
    if isinstance(value, bool):
        return b"\x10\x01" if value else b"\x10\x00"
    if isinstance(value, int):
        return b"\x18" + _varint(value & 0xFFFF_FFFF_FFFF_FFFF)
    if isinstance(value, float):
        return b"\x21" + _DOUBLE(value)
    return _field(b"\x2a", b"".join(_field(b"\x0a", _any(one)) for one in value))


def _text(tag: bytes, text: str) -> bytes:
    # Half a surrogate would make the whole request unreadable.
    return _field(tag, text.encode(errors="replace"))


def _field(tag: bytes, content: bytes) -> bytes:
    return tag + _varint(len(content)) + content


def _varint(number: int) -> bytes:
    if number < 128:
        return _BYTES[number]
    found = bytearray()
    while number > 127:
        found.append(number & 127 | 128)
        number >>= 7
    return bytes(found) + _BYTES[number]
