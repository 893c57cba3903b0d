"""Ids: a prefix that says what it names, and a UUIDv7 (RFC 9562), so that ids sort by time of birth."""

import re
from typing import Literal

IdPrefix = Literal[
    "job",
    "att",
    "team",
    "key",
    "evt",
    "file",
    "batch",
    "resp",
    "prc",
    "org",
    "alert",
    "apr",
    "proj",
    "env",
    "user",
    "op",
    "req",
    "fb",
    "erasure",
]

_TIMESTAMP_HEX_DIGITS = 12
_OF_A_JOB = re.compile(r"(?:job|resp|msg|batch_req|evt)_([0-9a-f]{32})|att_([0-9a-f]{32})_\d+")


def attempt_id(job_id: str, n: int) -> str:
    """The id of the n-th provider call (from 1) of a job: the job's own id and the number."""
    return f"att_{job_id.removeprefix('job_')}_{n}"


def job_id_in(name: str) -> str | None:
    """The job that an id names: its own, or that of its response, message, batch line, event or attempt; None for any other."""
    found = _OF_A_JOB.fullmatch(name)
    return f"job_{found[1] or found[2]}" if found else None


def accepted_ms(job_id: str) -> int:
    """Unix milliseconds at which a job was accepted, read from the UUIDv7 inside its id.

    Raises ValueError when the id holds no UUIDv7.
    """
    digits = job_id.removeprefix("job_").replace("-", "")
    if len(digits) != 32:
        raise ValueError(f"not a job id: {job_id!r}")
    return int(digits[:_TIMESTAMP_HEX_DIGITS], 16)


def uuid7_hex(unix_ms: int, random_74_bits: int) -> str:
    """A UUIDv7 as 32 hex digits from a time and 74 random (or derived) bits."""
    rand_a = (random_74_bits >> 62) & 0xFFF
    rand_b = random_74_bits & ((1 << 62) - 1)
    value = (unix_ms & ((1 << 48) - 1)) << 80 | 0x7 << 76 | rand_a << 64 | 0b10 << 62 | rand_b
    return f"{value:032x}"
