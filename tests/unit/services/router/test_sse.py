"""Bytes to events, wherever the bytes are cut."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.router.sse import EventSplitter, LineTooLong

CASES: list[tuple[bytes, list[str]]] = [
    (b"data: a\n\ndata: b\n\n", ["a", "b"]),
    (b"data:a\n\n", ["a"]),
    (b"data:  a\n\n", [" a"]),
    (b"data: a\r\n\r\ndata: b\r\n\r\n", ["a", "b"]),
    (b"data: a\r\rdata: b\r\r", ["a", "b"]),
    (b": keep-alive\n\ndata: a\n\n", ["a"]),
    (b"event: x\nid: 7\ndata: a\nretry: 3\n\n", ["a"]),
    (b"data: a\ndata: b\n\n", ["a\nb"]),
    (b"data\n\n", [""]),
    (b"\n\n\n\ndata: a\n\n\n\n", ["a"]),
    (b"data: a", ["a"]),
    (b"data: [DONE]\n", ["[DONE]"]),
    (b"", []),
    ("data: déjà 😀\n\n".encode(), ["déjà 😀"]),
]


def split(pieces: list[bytes], most_bytes: int = 1000) -> list[str]:
    splitter = EventSplitter(most_bytes)
    events = [event for piece in pieces for event in splitter.feed(piece)]
    return events + splitter.close()


@pytest.mark.parametrize(("data", "events"), CASES)
def test_cases(data: bytes, events: list[str]) -> None:
    assert split([data]) == events
    assert split([data[i : i + 1] for i in range(len(data))]) == events


@given(
    st.lists(st.text(st.characters(exclude_characters="\r\n", exclude_categories=["Cs"]), max_size=30), max_size=8),
    st.sampled_from(["\n", "\r\n", "\r"]),
    st.lists(st.integers(0, 400), max_size=12),
)
def test_any_cut_gives_the_same_events(texts: list[str], newline: str, cuts: list[int]) -> None:
    data = "".join(f": note{newline}data: {text}{newline}{newline}" for text in texts).encode()
    places = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    pieces = [data[a:b] for a, b in pairwise(places)]
    assert split(pieces, 10_000) == texts


def test_an_event_without_an_end_is_refused() -> None:
    splitter = EventSplitter(100)
    for _ in range(11):
        assert splitter.feed(b"data: 123") == []
    with pytest.raises(LineTooLong):
        splitter.feed(b"data: 123")


def test_what_is_no_text_is_refused() -> None:
    with pytest.raises(UnicodeDecodeError):
        EventSplitter(100).feed(b"data: \xff\xfe\n\n")
