"""Precision and recall of the guard's detectors by kind, and what a scan costs.

    python -m benchmarks.detectors DATA_FOLDER [SHOW]

DATA_FOLDER holds pii.jsonl.gz, pii_presidio_research.jsonl.gz and secrets.jsonl.gz: JSON lines with `text` and `spans` of
start, end and type. A labelled span is *found* when a finding of its kind covers at least 90 % of it, *exact* when the
offsets agree. A finding is *right* when it overlaps a labelled span of its kind, *other* when it overlaps one of another.
SHOW prints as many misses and wrong findings of each type. The files were looked at while the rules were written, so the
figures say what works, not what to expect elsewhere.
"""

from __future__ import annotations

import gzip
import json
import random
import resource
import string
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TypedDict

from services.guard.detectors import Finding, Scanner

KIND_OF = {
    "CREDIT_CARD": "card",
    "IBAN_CODE": "iban",
    "CRYPTO": "crypto",
    "EMAIL_ADDRESS": "email",
    "PHONE_NUMBER": "phone",
    "IP_ADDRESS": "ip",
    "MAC_ADDRESS": "mac",
    "US_SSN": "us_ssn",
    "BR_CPF": "br_cpf",
    "IN_PAN": "in_pan",
    "IN_AADHAAR": "in_aadhaar",
    "FI_PERSONAL_IDENTITY_CODE": "fi_hetu",
    "NL_BSN": "nl_bsn",
    "PL_PESEL": "pl_pesel",
    "ES_NIF": "es_nif",
    "IT_FISCAL_CODE": "it_codice_fiscale",
    "DE_TAX_ID": "de_idnr",
    "FR_NIR": "fr_nir",
    "UK_NHS": "gb_nhs",
    "AU_ABN": "au_abn",
    "AU_TFN": "au_tfn",
    "SG_NRIC_FIN": "sg_nric",
    "jwt": "jwt",
    "private-key": "private_key",
    "database-url": "connection_url",
}
SECRET_KINDS = frozenset({"api_key", "jwt", "private_key", "connection_url", "password"})
COVERED = 0.9


class Label(TypedDict):
    start: int
    end: int
    type: str


class Row(TypedDict):
    text: str
    spans: list[Label]


def rows(path: Path) -> Iterator[Row]:
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        for line in lines:
            yield json.loads(line)


def overlap(label: Label, finding: Finding) -> int:
    return max(0, min(label["end"], finding.end) - max(label["start"], finding.start))


def agrees(label: Label, finding: Finding, kind_of: dict[str, str]) -> bool:
    kind = kind_of.get(label["type"])
    return finding.kind == kind if kind else finding.kind in SECRET_KINDS


class Tally:
    """Counts by type of label (recall) and by kind of finding (precision)."""

    def __init__(self, kind_of: dict[str, str], show: int) -> None:
        self.kind_of, self.show = kind_of, show
        self.labels, self.found, self.exact = Counter[str](), Counter[str](), Counter[str]()
        self.findings, self.right, self.other = Counter[str](), Counter[str](), Counter[str]()
        self.shown = Counter[str]()

    def label(self, row: Row, label: Label, findings: list[Finding]) -> None:
        name, need = label["type"], COVERED * (label["end"] - label["start"])
        same = [finding for finding in findings if agrees(label, finding, self.kind_of)]
        hit = any(overlap(label, finding) >= need for finding in same)
        self.labels[name] += 1
        self.found[name] += hit
        self.exact[name] += any((f.start, f.end) == (label["start"], label["end"]) for f in same)
        if not hit:
            self._print(f"missed {name}", row["text"], label["start"], label["end"])

    def finding(self, row: Row, finding: Finding) -> None:
        touching = [label for label in row["spans"] if overlap(label, finding)]
        right = any(agrees(label, finding, self.kind_of) for label in touching)
        self.findings[finding.kind] += 1
        self.right[finding.kind] += right
        self.other[finding.kind] += bool(touching) and not right
        if not right:
            self._print(f"wrong {finding.kind}", row["text"], finding.start, finding.end)

    def _print(self, what: str, text: str, start: int, end: int) -> None:
        self.shown[what] += 1
        if self.shown[what] <= self.show:
            print(f"  {what}: {text[max(0, start - 40) : end + 20]!r}")

    def table(self) -> None:
        print(f"{'type':28}{'spans':>7}{'recall':>9}{'exact':>9}")
        for name, count in sorted(self.labels.items()):
            print(f"{name:28}{count:7}{self.found[name] / count:9.3f}{self.exact[name] / count:9.3f}")
        print(f"{'kind':28}{'found':>7}{'precision':>10}{'of another type':>17}")
        for name, count in sorted(self.findings.items()):
            print(f"{name:28}{count:7}{self.right[name] / count:10.3f}{self.other[name]:17}")


def measure(path: Path, scanner: Scanner, kind_of: dict[str, str], show: int) -> None:
    """Print the tables of one file. An empty `kind_of`: every label is a secret, of whatever service."""
    print(f"\n{path.name}")
    tally = Tally(kind_of, show)
    for row in rows(path):
        findings = scanner.scan(row["text"])
        for label in row["spans"]:
            if not kind_of or label["type"] in kind_of:
                tally.label(row, label, findings)
        for finding in findings:
            tally.finding(row, finding)
    tally.table()


PROSE = (
    "Please read the minutes of our meeting and write a summary for the board. We talked about the move to the new office, "
    "the three candidates for the post, and why the release slipped by two weeks; nobody could say what it will cost. "
)
PERSONAL = "Her card is 4111 1111 1111 1111, mail a.jones@mail.example, phone +44 20 7496 0151. "
# Inputs made to be slow: what each repeats is a near miss, or a hit, of many rules.
HOSTILE = {
    "prose": PROSE,
    "prose, Chinese": "请阅读我们会议的记录，并为董事会写一份摘要。",
    "personal": PERSONAL,
    "single digits": "4 ",
    "digits": "4",
    "fours": "4111 ",
    "nine digits": "bsn tfn sin ssn nhs 123456782 ",
    "iban heads": "GB24",
    "iban heads, apart": "GB24 ",
    "iban heads, spaced": "GB24 OGMF 3062 7511 3173 2",
    "hex": "0f3a9c7b5d",
    "base64": "aGVsbG8gd29ybGQ/",
    "key heads": "sk-",
    "jwt heads": "eyJhbGciOiJIUzI1NiJ9.",
    "pem heads": "-----BEGIN RSA PRIVATE KEY-----\n",
    "at signs": "a@b.",
    "assignments": "api_key = password: token=",
    "phones": "call +1 415 555 01",
    "colons": "fe80:1:",
    "url heads": "https://a:b",
    "zero width": "4\u200b1",
}


def hostile() -> Iterator[tuple[str, str]]:
    """(name, a million characters)."""
    for name, piece in HOSTILE.items():
        yield name, (piece * (1_000_000 // len(piece) + 1))[:1_000_000]
    # Text without a pattern makes the automaton meet new states.
    chance = random.Random(1)
    for name, alphabet in (("random digits, spaces", "0123456789 -."), ("random printable", string.printable)):
        yield name, "".join(chance.choices(alphabet, k=1_000_000))


def timed(scanner: Scanner, text: str, times: int) -> float:
    """Seconds a scan, the best of three rounds."""
    best = float("inf")
    for _ in range(3):
        begin = time.perf_counter()
        for _ in range(times):
            scanner.scan(text)
        best = min(best, (time.perf_counter() - begin) / times)
    return best


def speed(scanner: Scanner) -> None:
    plain = (PROSE * 9)[:850]
    personal = (PROSE * 9)[: 850 - len(PERSONAL)] + PERSONAL
    accents = plain.replace("e", "é")
    print(
        f"\nan 850-character prompt: {timed(scanner, plain, 2000) * 1e6:.1f} µs without findings, "
        f"{timed(scanner, personal, 500) * 1e6:.1f} µs with three, {timed(scanner, accents, 1000) * 1e6:.1f} µs not ASCII"
    )
    print(f"{'1,000,000 characters of':28}{'ms':>8}{'ms for half':>13}{'findings':>10}")
    for name, text in hostile():
        whole, half = timed(scanner, text, 1), timed(scanner, text[:500_000], 1)
        print(f"{name:28}{whole * 1e3:8.1f}{half * 1e3:13.1f}{len(scanner.scan(text)):10}")
    print(f"peak memory of this process {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB")


def main() -> None:
    folder, show = Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0
    scanner = Scanner(None)
    measure(folder / "pii.jsonl.gz", scanner, KIND_OF, show)
    measure(folder / "pii_presidio_research.jsonl.gz", scanner, KIND_OF, show)
    measure(folder / "secrets.jsonl.gz", scanner, {}, show)
    speed(scanner)


if __name__ == "__main__":
    main()
