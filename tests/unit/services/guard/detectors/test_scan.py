"""What the detectors find and leave alone; properties that hold for any text."""

from __future__ import annotations

import json
import re
import string
from pathlib import Path
from typing import TypedDict, cast

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.guard.detectors import KINDS, Finding, Scanner, redact
from services.guard.detectors.fold import fold
from services.guard.detectors.scan import DETECTORS


class Cases(TypedDict):
    found: list[tuple[str, str, list[str]]]
    nothing: list[str]


def _cases() -> Cases:
    # "¦" keeps made-up keys from looking real to the secret scanners of code hosts.
    text = (Path(__file__).parent / "cases.json").read_text(encoding="utf-8")
    return cast(Cases, json.loads(text.replace("¦", "")))


CASES = _cases()
SCANNER = Scanner()
# Lone surrogates and NULs included, and pieces that come near to being something.
ANY = st.text(st.characters(exclude_categories=()))
PIECES = st.sampled_from([text for _, text, _ in CASES["found"]] + CASES["nothing"])
NUMBERS = st.text(string.digits + " -.:+()/@\u200b４", min_size=5)
MIXED = st.lists(st.one_of(ANY, PIECES, NUMBERS), max_size=6).map("".join)


@pytest.mark.parametrize(("kind", "text", "values"), CASES["found"])
def test_finds(kind: str, text: str, values: list[str]) -> None:
    found = [(f.kind, text[f.start : f.end]) for f in SCANNER.scan(text)]
    assert found == [(kind, value) for value in values]


@pytest.mark.parametrize("text", CASES["nothing"])
def test_leaves_alone(text: str) -> None:
    assert [(f.kind, text[f.start : f.end]) for f in SCANNER.scan(text)] == []


def test_every_kind_is_in_the_cases_or_needs_none() -> None:
    covered = {kind for kind, _, values in CASES["found"] if values}
    by_checksum_alone = {"ca_sin", "dk_cpr", "mx_curp", "no_fodselsnummer", "za_id"}
    assert covered == KINDS - by_checksum_alone


def test_only_the_kinds_asked_for() -> None:
    text = "anna@example.org pays with 4111 1111 1111 1111"
    assert [f.kind for f in Scanner({"email"}).scan(text)] == ["email"]
    assert Scanner(()).scan(text) == []


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(ValueError, match="shoe_size"):
        Scanner({"email", "shoe_size"})


def test_the_longer_names_what_overlaps() -> None:
    text = "mysql://app:kR9tYv2LxQ@db.example.org/x"
    assert SCANNER.scan(text) == [Finding("connection_url", 0, len(text))]


def test_redact_names_the_kind() -> None:
    text = "Mail anna@example.org, card 4111 1111 1111 1111."
    assert redact(text, SCANNER.scan(text)) == "Mail [EMAIL], card [CARD]."


@given(MIXED)
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_findings_are_sorted_within_the_text_and_never_overlap(text: str) -> None:
    findings = SCANNER.scan(text)
    edges = [edge for finding in findings for edge in (finding.start, finding.end)]
    assert edges == sorted(edges)
    assert all(0 <= f.start < f.end <= len(text) and f.kind in KINDS for f in findings)


@given(MIXED)
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_redact_leaves_the_rest_untouched(text: str) -> None:
    findings = SCANNER.scan(text)
    rest = iter(_outside(text, findings))
    redacted = redact(text, findings)
    for finding in findings:
        before = next(rest) + f"[{finding.kind.upper()}]"
        assert redacted.startswith(before)
        redacted = redacted[len(before) :]
    assert redacted == next(rest)


def _outside(text: str, findings: list[Finding]) -> list[str]:
    starts = [0, *(finding.end for finding in findings)]
    ends = [*(finding.start for finding in findings), len(text)]
    return [text[start:end] for start, end in zip(starts, ends, strict=True)]


@pytest.mark.parametrize("pattern", sorted({detector.pattern for detector in DETECTORS}))
def test_whatever_matches_a_pattern_never_raises(pattern: str) -> None:
    @given(st.from_regex(re.compile(pattern, re.ASCII)))
    @settings(
        max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much], database=None
    )
    def check(text: str) -> None:
        SCANNER.scan(text)

    check()


@given(ANY)
@settings(max_examples=200, deadline=None)
def test_folding_keeps_a_byte_for_each_visible_character(text: str) -> None:
    folded = fold(text)
    for at in range(len(folded.data)):
        start, end = folded.original(at, at + 1)
        assert end == start + 1
        if text[start].isascii():
            assert folded.data[at] == ord(text[start])
    if folded.kept is None:
        assert len(folded.data) == len(text)


@given(st.lists(st.sampled_from(["\u200b", "\u00ad", "\ufe0f", "\u0336", "\u2060"]), min_size=15, max_size=15))
def test_invisible_characters_hide_no_card(invisible: list[str]) -> None:
    card = "".join(digit + mark for digit, mark in zip("4111111111111111", [*invisible, ""], strict=True))
    assert SCANNER.scan(f"é {card}!") == [Finding("card", 2, 2 + len(card))]
