"""The hash chain over audit records. Pure.

Each partition of `sluice.audit` has a chain of its own, in the order of its offsets. A link has the digest of its row, which is
salted with what goes when the row goes: so a row may be erased, and the chain still holds.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict

GENESIS: Final = "0" * 64

Flaw = Literal["altered", "missing", "out of place", "inserted", "content altered", "content missing"]


class AuditRow(BaseModel):
    """A row of `sluice.audit_log` as it is digested; times in unix milliseconds, `expires_at` in seconds."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    job_id: str
    partition: int
    seq: int
    content: str
    salt: str
    organization: str
    team: str
    project: str
    environment: str
    key_id: str
    user: str
    identity: str
    model: str
    deployment: str
    provider: str
    provider_model: str
    model_version: str
    status: str
    error: str
    cache: str
    verdict: str
    policy: str
    price_version: str
    ts: int
    ended: int
    ended_by: str
    trace_id: str
    expires_at: int
    prompt: str
    context: str
    completion: str

    def digest(self) -> str:
        """Changes with any member. Without the salt nobody can tell what it is of."""
        return _sha256(list(self.model_dump().values()))


class Link(BaseModel):
    """A link of a chain: a row of `sluice.audit_chain`."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    partition: int
    seq: int
    n: int
    job_id: str
    expires_at: int
    digest: str
    prev_hash: str
    row_hash: str

    def computed(self) -> str:
        """What the hash has to be."""
        return _sha256([self.prev_hash, self.partition, self.seq, self.n, self.job_id, self.expires_at, self.digest])


ROW_COLUMNS: Final = ", ".join(
    [
        *(name for name in AuditRow.model_fields if name not in ("ts", "ended", "expires_at")),
        "toUnixTimestamp64Milli(audit_log.ts) AS ts",
        "toUnixTimestamp64Milli(audit_log.ended) AS ended",
        "toUnixTimestamp(audit_log.expires_at) AS expires_at",
    ]
)
"""What is selected from sluice.audit_log to have a row as it was digested."""

LINK_COLUMNS: Final = ", ".join(
    [*(name for name in Link.model_fields if name != "expires_at"), "toUnixTimestamp(audit_chain.expires_at) AS expires_at"]
)
"""What is selected from sluice.audit_chain."""


@dataclass(frozen=True, slots=True)
class Head:
    """Where a chain ends: its last link's number, offset and hash."""

    n: int = 0
    seq: int = -1
    row_hash: str = GENESIS


@dataclass(frozen=True, slots=True)
class Found:
    """What is wrong, and where."""

    flaw: Flaw
    partition: int
    n: int
    job_id: str
    why: str


def link(head: Head, row: AuditRow) -> Link:
    """The link behind `head`."""
    bare = Link(
        partition=row.partition,
        seq=row.seq,
        n=head.n + 1,
        job_id=row.job_id,
        expires_at=row.expires_at,
        digest=row.digest(),
        prev_hash=head.row_hash,
        row_hash="",
    )
    return bare.model_copy(update={"row_hash": bare.computed()})


def links(head: Head, rows: Iterable[AuditRow]) -> Iterator[Link]:
    """The links behind `head`, of rows in the order of their offsets: the same whenever they are made."""
    for row in rows:
        made = link(head, row)
        yield made
        head = end_of(made)


def end_of(last: Link) -> Head:
    """The head of a chain that ends with this link."""
    return Head(last.n, last.seq, last.row_hash)


def flaw_of(head: Head, one: Link) -> Found | None:
    """What is wrong with the link behind `head`, or None."""

    def found(flaw: Flaw, why: str) -> Found:
        return Found(flaw, one.partition, one.n, one.job_id, why)

    if one.row_hash != one.computed():
        return found("altered", "the link's hash is not that of what it says")
    if one.n > head.n + 1:
        return found("missing", f"after link {head.n} comes link {one.n}: {one.n - head.n - 1} missing")
    if one.n <= head.n or one.seq <= head.seq:
        return found("out of place", f"link {one.n} (offset {one.seq}) stands behind link {head.n} (offset {head.seq})")
    if one.prev_hash != head.row_hash:
        return found("altered", f"link {head.n} is not the one that link {one.n} was made behind")
    return None


def content_flaw(one: Link, row: AuditRow | None, erased: bool, now_s: int) -> Found | None:
    """What is wrong with the row of a link, or None. `erased`: a certificate says so."""
    if row is None:
        if erased or one.expires_at <= now_s:
            return None
        return Found("content missing", one.partition, one.n, one.job_id, "its row is gone, and neither expired nor erased")
    if row.digest() != one.digest:
        return Found("content altered", one.partition, one.n, one.job_id, "its row is not what was written")
    return None


def truncated(
    heads: Mapping[int, Head], anchors: Sequence[tuple[int, Head]], known: Mapping[tuple[int, int], str]
) -> Found | None:
    """Whether a chain ends before an anchor, or had another link there. `known`: hashes of the links that anchors name."""
    for partition, anchor in anchors:
        if anchor.n > heads.get(partition, Head()).n:
            return Found("missing", partition, anchor.n, "", f"an anchor names link {anchor.n}; the chain ends before it")
        if (there := known.get((partition, anchor.n))) is not None and there != anchor.row_hash:
            return Found("altered", partition, anchor.n, "", "it is not the link that was anchored")
    return None


def _sha256(values: Sequence[str | int]) -> str:
    return hashlib.sha256(json.dumps(values, ensure_ascii=False, separators=(",", ":")).encode()).hexdigest()
