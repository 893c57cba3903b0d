"""Which files may be sent, and what is said of those that mayn't."""

import json
from pathlib import Path
from typing import TypedDict, cast

import pytest

from services.cli.submit.lines import MAX_LINE_BYTES, SHOWN_PROBLEMS, BadFile, check


class Cases(TypedDict):
    good: list[str]
    bad: list[tuple[str, str]]


CASES = cast("Cases", json.loads((Path(__file__).parent / "lines.json").read_text()))
GOOD = CASES["good"][0]


def _file(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "f.jsonl"
    path.write_text(text)
    return path


def _problems(path: Path) -> list[str]:
    with pytest.raises(BadFile) as raised:
        check(path)
    return raised.value.problems


@pytest.mark.parametrize("line", CASES["good"])
def test_good(tmp_path: Path, line: str) -> None:
    assert len(check(_file(tmp_path, line))) == 1


@pytest.mark.parametrize(("line", "problem"), CASES["bad"])
def test_bad(tmp_path: Path, line: str, problem: str) -> None:
    [found] = _problems(_file(tmp_path, f"\n{line}\n"))
    assert found.startswith("line 2: ")
    assert problem in found


def test_secrets_of_a_line_are_not_repeated(tmp_path: Path) -> None:
    assert "4111" not in str(_problems(_file(tmp_path, '{"card": "4111 1111 1111 1111"}')))


def test_empty_lines_a_mark_and_windows_ends_do_no_harm(tmp_path: Path) -> None:
    path = tmp_path / "f.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + GOOD.encode() + b"\r\n\r\n")
    batch = check(path)
    assert list(batch.lines()) == [GOOD.encode()]
    assert batch.by_id == {"1": 0}


def test_two_of_one_id(tmp_path: Path) -> None:
    assert _problems(_file(tmp_path, f"{GOOD}\n\n{GOOD}\n")) == [
        "line 3: custom_id '1' stands in line 1 already; each line needs its own"
    ]


def test_too_large_for_kafka(tmp_path: Path) -> None:
    assert "Send it by HTTP" in _problems(_file(tmp_path, "x" * (MAX_LINE_BYTES + 1)))[0]


def test_empty_file(tmp_path: Path) -> None:
    assert "there is no line in it" in _problems(_file(tmp_path, "\n"))[0]


def test_it_stops_to_complain(tmp_path: Path) -> None:
    assert len(_problems(_file(tmp_path, "x\n" * 1000))) == SHOWN_PROBLEMS + 1


def test_another_file_has_another_digest(tmp_path: Path) -> None:
    one = check(_file(tmp_path, GOOD)).sha256
    assert one == check(_file(tmp_path, f"\n{GOOD}\n\n")).sha256
    assert one != check(_file(tmp_path, GOOD.replace('"m"', '"n"'))).sha256
