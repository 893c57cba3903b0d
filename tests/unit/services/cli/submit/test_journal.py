"""What a journal remembers, wherever it was cut off."""

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from services.cli.submit.journal import Ack, Journal, Start, parse, ranges

LINES = 40


def start(lines: int = LINES) -> Start:
    return Start(run="r", sha256="s", lines=lines, lane="batch", team="t", results={0: 7}, door={0: 3, 1: 5})


@st.composite
def histories(draw: st.DrawFn) -> list[list[Ack]]:
    """Acknowledgements in the order of one partition, in groups as they were noted."""
    lines = draw(st.lists(st.integers(0, LINES - 1), unique=True))
    partition, offset, groups = draw(st.integers(0, 1)), 5, list[list[Ack]]()
    for line in lines:
        offset += draw(st.integers(1, 3))
        if not groups or draw(st.booleans()):
            groups.append([])
        groups[-1].append(Ack(line, partition, offset))
    return groups


@given(st.lists(st.integers(0, LINES - 1), unique=True), st.integers(0, 3))
def test_ranges_say_the_same(lines: list[int], partition: int) -> None:
    acks = [Ack(line, partition, 100 + place) for place, line in enumerate(lines)]
    entries = list(ranges(acks))
    assert [n for e in entries for n in range(e.first, e.last + 1)] == lines
    assert [e.offset for e in entries][-1:] == [ack.offset for ack in acks][-1:]
    assert len(entries) == sum(1 for a, b in zip([None, *lines], lines, strict=False) if a is None or b != a + 1)


@given(histories(), st.data())
def test_cut_anywhere_it_is_a_beginning_of_the_truth(groups: list[list[Ack]], data: st.DataObject) -> None:
    """Never a line that isn't in the log; and whatever is missing stands at `unknown_from` or later."""
    written = start().model_dump_json() + "\n"
    head = len(written)
    for group in groups:
        written += "".join(f"{entry.model_dump_json()}\n" for entry in ranges(group))
    cut = data.draw(st.integers(0, len(written)))
    progress = parse(written[:cut].encode())
    if progress is None:
        assert cut < head
        return
    true = [ack for group in groups for ack in group]
    known = {ack.line for ack in true if ack.line in progress}
    assert progress.count == len(known) == sum(line in progress for line in range(LINES))
    missing = [ack for ack in true if ack.line not in known]
    assert all(ack.offset >= progress.unknown_from.get(ack.partition, 1 << 60) for ack in missing)
    assert cut < len(written) or not missing


def test_a_torn_end_doesnt_swallow_what_is_written_behind_it(tmp_path: Path) -> None:
    path = tmp_path / "state"
    journal = Journal.begin(path, start())
    journal.add([Ack(0, 0, 10)])
    journal.close()
    path.write_bytes(path.read_bytes() + b'{"first": 1, "la')
    former = parse(path.read_bytes())
    assert former is not None
    again = Journal(path, former)
    again.add([Ack(2, 0, 12)])
    again.close()
    progress = parse(path.read_bytes())
    assert progress is not None
    assert [line for line in range(LINES) if line in progress] == [0, 2]


def test_before_the_first_acknowledgement_every_partition_is_looked_at() -> None:
    progress = parse(f"{start().model_dump_json()}\n".encode())
    assert progress is not None
    assert progress.unknown_from == {0: 3, 1: 5}


def test_no_journal() -> None:
    assert parse(b"") is None
    assert parse(b"{}\n") is None
    assert parse(b"\xff\n") is None


def test_removed_at_the_end(tmp_path: Path) -> None:
    journal = Journal.begin(tmp_path / "state", start())
    journal.remove()
    assert list(tmp_path.iterdir()) == []
