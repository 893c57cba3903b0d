"""What may stand in an input file, and what is said of the rest."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.ingress.batches import lines
from services.ingress.batches.lines import Checker, Plan, Raw, Splitter

URL = "/v1/chat/completions"
GOOD: dict[str, Any] = {"custom_id": "1", "method": "POST", "url": URL, "body": {"model": "small", "messages": []}}


def planned(*texts: bytes | None, endpoint: str = URL) -> Plan:
    checker = Checker(endpoint)
    for number, text in enumerate(texts, 1):
        checker.add(Raw(number, text))
    return checker.end()


def text(**members: object) -> bytes:
    return json.dumps(GOOD | members).encode()


CASES: list[tuple[str, bytes | None, str, str | None]] = [
    ("no JSON", b"{", "invalid_json_line", None),
    ("no object", b"[1]", "invalid_json_line", None),
    (
        "no custom_id",
        json.dumps({k: v for k, v in GOOD.items() if k != "custom_id"}).encode(),
        "missing_required_parameter",
        "custom_id",
    ),
    ("an empty custom_id", text(custom_id=""), "invalid_request", "custom_id"),
    ("a custom_id of kilobytes", text(custom_id="x" * 513), "invalid_request", "custom_id"),
    ("another method", text(method="GET"), "invalid_request", "method"),
    ("another endpoint", text(url="/v1/embeddings"), "mismatched_endpoint", "url"),
    ("no body", text(body=None), "invalid_request", "body"),
    ("a stream", text(body={"model": "small", "stream": True}), "invalid_request", "body.stream"),
    ("too long", None, "line_too_long", None),
]


@pytest.mark.parametrize(("raw", "code", "param"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_a_line_that_cant_be_run_is_told_with_its_number(raw: bytes | None, code: str, param: str | None) -> None:
    plan = planned(text(custom_id="first"), raw)
    assert [(p.code, p.param, p.line) for p in plan.problems] == [(code, param, 2)]


def test_what_is_said_of_a_line_does_not_repeat_its_content() -> None:
    plan = planned(text(method="secret-method"), b'{"secret', text(url="/secret"))
    assert "secret" not in plan.problems.__repr__()


def test_a_custom_id_that_stands_twice_is_told_at_its_second_line() -> None:
    plan = planned(text(), text(custom_id="2"), text())
    assert [(p.code, p.line) for p in plan.problems] == [("duplicate_custom_id", 3)]


def test_a_file_without_lines_is_told() -> None:
    assert [p.code for p in planned().problems] == ["empty_file"]


def test_too_many_lines_are_told_without_reading_them_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "MAX_LINES", 3)
    checker = Checker(URL)
    for n in range(4):
        assert not checker.enough
        checker.add(Raw(n + 1, text(custom_id=str(n))))
    assert checker.enough
    assert [p.code for p in checker.end().problems] == ["too_many_lines"]


def test_no_more_problems_are_told_than_a_person_reads() -> None:
    checker, n = Checker(URL), 0
    while not checker.enough:
        n += 1
        checker.add(Raw(n, b"x"))
    assert len(checker.end().problems) == lines.MAX_PROBLEMS


@pytest.mark.parametrize(("inputs", "refused"), [(["a"] * 25_000, False), (["a"] * 25_001, True)])
def test_embeddings_are_counted_over_all_lines(inputs: list[str], refused: bool) -> None:
    url = "/v1/embeddings"
    both = [text(custom_id=str(n), url=url, body={"model": "m", "input": i}) for n, i in enumerate((inputs, ["a"] * 25_000))]
    plan = planned(*both, endpoint=url)
    assert [p.code for p in plan.problems] == (["too_many_inputs"] if refused else [])


def test_tokens_are_one_input_and_a_text_is_one() -> None:
    url = "/v1/embeddings"
    bodies = [{"model": "m", "input": list(range(60_000))}, {"model": "m", "input": "x" * 60_000}]
    assert planned(*(text(custom_id=str(n), url=url, body=b) for n, b in enumerate(bodies)), endpoint=url).problems == []


def test_the_model_is_named_if_it_is_one() -> None:
    assert planned(text(), text(custom_id="2")).model == "small"
    assert planned(text(), text(custom_id="2", body={"model": "large"})).model is None


def split(data: bytes, cuts: list[int], most: int = 1000) -> list[Raw]:
    splitter, found, start = Splitter(most), list[Raw](), 0
    for cut in sorted({min(cut, len(data)) for cut in cuts} | {len(data)}):
        found += splitter.feed(data[start:cut])
        start = cut
    return [*found, *splitter.end()]


@given(st.lists(st.binary(max_size=20).filter(lambda line: b"\n" not in line)), st.lists(st.integers(0, 200)))
def test_lines_are_the_same_wherever_the_chunks_end(texts: list[bytes], cuts: list[int]) -> None:
    found = split(b"\n".join(texts), cuts)
    stripped = [text.removeprefix(b"\xef\xbb\xbf").strip() for text in texts]
    assert [(raw.number, raw.text) for raw in found] == [(n, text) for n, text in enumerate(stripped, 1) if text]


def test_a_line_without_end_takes_no_memory_and_those_around_it_are_read() -> None:
    splitter = Splitter(0)
    found = list(splitter.feed(b"a\n"))
    for _ in range(1000):
        found += splitter.feed(b"x" * 10_000)
        assert len(splitter._rest) <= lines._ENVELOPE_BYTES  # pyright: ignore[reportPrivateUsage]
    found += splitter.feed(b"\nb\r\n")
    assert [*found, *splitter.end()] == [Raw(1, b"a"), Raw(2, None), Raw(3, b"b")]
