"""`gates` of a sluice.yaml: what is wrong with them beyond their shape. Pure."""

from collections.abc import Iterator, Sequence
from typing import cast
from zoneinfo import ZoneInfo

from schemas.base import JsonObject
from schemas.gates import Gate, WindowGate


def problems(path: str, written: Sequence[object], gates: Sequence[Gate]) -> Iterator[str]:
    """A rule that is misspelt must not look as if it held, and a place whose clock nobody knows has no hours."""
    for number, (raw, gate) in enumerate(zip(written, gates, strict=True)):
        yield from _unknown(f"{path}[{number}]", raw, gate.model_dump(mode="json"))
        if isinstance(gate, WindowGate) and not _is_known(gate.tz):
            yield f"{path}[{number}].tz: {gate.tz!r} is no time zone; write one such as Europe/Berlin"


def _unknown(path: str, raw: object, known: object) -> Iterator[str]:
    if isinstance(raw, dict) and isinstance(known, dict):
        for member, value in cast("JsonObject", raw).items():
            if member in known:
                yield from _unknown(f"{path}.{member}", value, cast("JsonObject", known)[member])
            else:
                yield f"{path}.{member}: no such member of a gate; check the spelling"


def _is_known(tz: str) -> bool:
    try:
        ZoneInfo(tz)
    except (KeyError, ValueError, OSError):
        return False
    return True
