"""Whether the audit log, or an export of it, is what was written: each link after the other, and each row with its link."""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, cast

from pydantic import BaseModel, ConfigDict, ValidationError

from infra.audit import LINK_COLUMNS, ROW_COLUMNS, AuditRow, Found, Head, Link, content_flaw, end_of, flaw_of, truncated
from services.cli.output import Failed

_AT_ONCE: Final = 500
_ON_ITS_WAY_MS: Final = 900_000

Ask = Callable[[str], str]
"""The rows of a SELECT, as a JSON list of objects."""


@dataclass(slots=True)
class Report:
    """What was checked, and the first thing that is wrong. `gone`: links whose rows have expired or were erased."""

    found: Found | None = None
    links: int = 0
    gone: int = 0
    heads: dict[int, Head] = field(default_factory=dict[int, Head])


class _Anchor(BaseModel):
    model_config = ConfigDict(extra="ignore")

    partition: int
    n: int
    row_hash: str


class _Manifest(BaseModel):
    model_config = ConfigDict(extra="ignore")

    records: int
    sha256: str


class _Exported(BaseModel):
    row: AuditRow
    link: Link | None


def check_store(ask: Ask, noted: Sequence[tuple[int, Head]], clock_s: Callable[[], float]) -> Report:
    """Checks the tables. `noted`: heads that were noted elsewhere."""
    report, now_s = Report(), int(clock_s())
    anchors = [*_anchors(ask), *noted]
    wanted, known = {(partition, head.n) for partition, head in anchors}, dict[tuple[int, int], str]()
    for partition in [int(str(row["partition"])) for row in _rows(ask, "SELECT DISTINCT partition FROM sluice.audit_chain")]:
        head = Head()
        for page in _pages(ask, partition):
            rows = _contents(ask, partition, page)
            missing = [link for link in page if link.seq not in rows and link.expires_at > now_s]
            excused = _erased(ask, missing) | _repeated(ask, partition, missing)
            for link in page:
                row, report.links = rows.get(link.seq), report.links + 1
                report.gone += row is None
                report.found = flaw_of(head, link) or content_flaw(link, row, link.seq in excused, now_s)
                if report.found is not None:
                    return report
                head = end_of(link)
                if (partition, link.n) in wanted:
                    known[partition, link.n] = link.row_hash
        report.heads[partition] = head
    report.found = truncated(report.heads, anchors, known) or _unlinked(ask, now_s)
    return report


def check_file(path: Path) -> Report:
    """Checks an export by itself: that it is whole, and that each record is what its link says. Raises Failed for no export."""
    report, sha256, manifest = Report(), hashlib.sha256(), None
    try:
        with path.open("rb") as file:
            for written in file:
                if manifest is not None:
                    report.found = report.found or Found("inserted", 0, 0, "", "something stands behind the manifest")
                    break
                if written.startswith(b'{"manifest":'):
                    manifest = _Manifest.model_validate(json.loads(written)["manifest"])
                    continue
                sha256.update(written)
                report.links += 1
                if report.found is None:
                    report.found = _record_flaw(_Exported.model_validate_json(written))
    except OSError as error:
        raise Failed(f"{path} can't be read: {error.strerror}.") from None
    except (ValidationError, ValueError):
        raise Failed(f"{path} is no export of `sluice audit export`.") from None
    if manifest is None:
        raise Failed(f"{path} has no manifest at its end: it was cut off, or is no export of `sluice audit export`.")
    if report.found is None and (manifest.sha256, manifest.records) != (sha256.hexdigest(), report.links):
        report.found = Found("missing", 0, 0, "", "the records are not those that the manifest was made of")
    return report


def _record_flaw(one: _Exported) -> Found | None:
    row, link = one.row, one.link
    if link is None:
        return Found("inserted", row.partition, 0, row.job_id, "the record has no link in the chain")
    if link.row_hash != link.computed():
        return Found("altered", link.partition, link.n, link.job_id, "the link's hash is not that of what it says")
    return content_flaw(link, row, erased=False, now_s=0)


def _rows(ask: Ask, query: str) -> Iterator[dict[str, object]]:
    return iter(cast("list[dict[str, object]]", json.loads(ask(query))))


def _pages(ask: Ask, partition: int) -> Iterator[list[Link]]:
    after = -1
    while True:
        query = f"SELECT {LINK_COLUMNS} FROM sluice.audit_chain FINAL WHERE partition = {partition} AND toInt64(seq) > {after}"
        page = [Link.model_validate(row) for row in _rows(ask, f"{query} ORDER BY seq LIMIT {_AT_ONCE}")]
        if not page:
            return
        yield page
        after = page[-1].seq


def _contents(ask: Ask, partition: int, page: Sequence[Link]) -> dict[int, AuditRow]:
    """The rows of links, by offset."""
    jobs = ", ".join(_quoted(link.job_id) for link in page)
    query = f"SELECT {ROW_COLUMNS} FROM sluice.audit_log FINAL WHERE partition = {partition} AND job_id IN ({jobs})"
    return {row.seq: row for row in map(AuditRow.model_validate, _rows(ask, query))}


def _erased(ask: Ask, missing: Sequence[Link]) -> set[int]:
    """Offsets of links whose rows a certificate has erased."""
    if not missing:
        return set()
    jobs = ", ".join(_quoted(link.job_id) for link in missing)
    query = (
        f"SELECT DISTINCT job_id FROM sluice.audit_erased WHERE job_id IN ({jobs}) "
        "AND erasure IN (SELECT substring(resource, 9) FROM sluice.events WHERE action IN ('erasure.asked', 'erasure.done'))"
    )
    gone = {str(row["job_id"]) for row in _rows(ask, query)}
    return {link.seq for link in missing if link.job_id in gone}


def _repeated(ask: Ask, partition: int, missing: Sequence[Link]) -> set[int]:
    """Offsets of links of records that came twice: the first one's row stands."""
    if not missing:
        return set()
    jobs = ", ".join(_quoted(link.job_id) for link in missing)
    query = f"SELECT job_id, min(seq) AS first FROM sluice.audit_chain WHERE partition = {partition} AND job_id IN ({jobs})"
    first = {str(row["job_id"]): int(str(row["first"])) for row in _rows(ask, f"{query} GROUP BY job_id")}
    return {link.seq for link in missing if first.get(link.job_id, link.seq) < link.seq}


def _unlinked(ask: Ask, now_s: int) -> Found | None:
    """A row without a link, but for those that are being written."""
    query = (
        "SELECT job_id, partition FROM sluice.audit_log FINAL "
        "WHERE (partition, seq) NOT IN (SELECT partition, seq FROM sluice.audit_chain) "
        f"AND toUnixTimestamp64Milli(ended) < {now_s * 1000 - _ON_ITS_WAY_MS} LIMIT 1"
    )
    for row in _rows(ask, query):
        return Found("inserted", int(str(row["partition"])), 0, str(row["job_id"]), "the record has no link in the chain")
    return None


def _anchors(ask: Ask) -> list[tuple[int, Head]]:
    told = _rows(ask, "SELECT after FROM sluice.events WHERE action = 'audit.anchored'")
    try:
        anchors = [_Anchor.model_validate_json(str(row["after"])) for row in told]
    except ValidationError:
        raise Failed("An anchor in sluice.events isn't what accounting writes there: it was altered.") from None
    return [(one.partition, Head(n=one.n, row_hash=one.row_hash)) for one in anchors]


def _quoted(text: str) -> str:
    """A string literal of ClickHouse: what stands in the tables may have been put there by anybody."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
