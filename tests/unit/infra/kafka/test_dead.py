"""Letters: what they say of themselves, and the records they were."""

import pytest

from infra.kafka.dead import offset_of, read_letter
from infra.kafka.log import Outgoing, Partition
from schemas.topics import DEAD
from tests.fakes.log import Record

ORIGIN = "sluice.completions/3@17"
ABOUT = (
    ("sluice_dead_reason", b"unbillable"),
    ("sluice_dead_detail", b"a cost is negative"),
    ("sluice_dead_origin", ORIGIN.encode()),
    ("sluice_dead_stage", b"accounting"),
)
OWN = (("content-type", b"application/json"), ("ce_type", b"io.sluice.completion.v1"))


def record(*headers: tuple[str, bytes | None], key: bytes | None = b"job_1") -> Record:
    return Record(DEAD.name, 0, 12, 5, key, b"{}", headers)


def test_a_letter_says_why_and_where_it_came_from() -> None:
    letter = read_letter(record(*OWN, *ABOUT))
    assert (letter.id, letter.reason, letter.detail, letter.stage) == ("0@12", "unbillable", "a cost is negative", "accounting")
    assert (letter.origin, letter.home) == (ORIGIN, Partition("sluice.completions", 3))
    assert letter.type == "io.sluice.completion.v1"


def test_what_was_written_before_it_was_put_aside_is_not_believed() -> None:
    """Else whoever may publish to the door could have an operator send his record to the books."""
    forged = (("sluice_dead_origin", b"sluice.completions/0@1"), ("sluice_dead_stage", b"accounting"))
    true = (("sluice_dead_origin", b"sluice.jobs.batch/2@5"), ("sluice_dead_stage", b"ingress"))
    letter = read_letter(record(*forged, *OWN, *true))
    assert (letter.home, letter.stage) == (Partition("sluice.jobs.batch", 2), "ingress")


def test_a_letter_goes_home_as_it_was() -> None:
    assert read_letter(record(*OWN, *ABOUT)).renewed() == Outgoing("sluice.completions", b"job_1", b"{}", OWN, 3)


def test_a_record_that_had_no_key_gets_none() -> None:
    assert read_letter(record(*OWN, *ABOUT, key=ORIGIN.encode())).renewed().key is None


def test_a_token_never_comes_out_of_a_letter() -> None:
    tokens = (("authorization", b"Bearer a"), ("Authorization", b"Bearer b"))
    letter = read_letter(record(*tokens, *OWN, *ABOUT))
    assert letter.headers == OWN
    assert letter.renewed().headers == OWN


def test_what_moves_has_its_body_with_it() -> None:
    letter = read_letter(record(*OWN, ("ce_dataref", b"elsewhere"), *ABOUT))
    moved = letter.moved(b"the body", "sluice.jobs.batch", "fraud", ("authorization", b"Bearer new"))
    assert moved == Outgoing("sluice.jobs.batch", b"fraud", b"the body", (*OWN, ("authorization", b"Bearer new")))


@pytest.mark.parametrize("origin", [b"", b"sluice.completions", b"sluice.completions/x@1", b"a b/1@2", b"\xff/1@2"])
def test_a_letter_without_a_home_stays(origin: bytes) -> None:
    letter = read_letter(record(("sluice_dead_origin", origin)))
    assert letter.home is None
    with pytest.raises(ValueError):
        letter.renewed()


def test_there_is_one_partition_as_ids_take_for_granted() -> None:
    assert DEAD.partitions == 1
    assert offset_of("0@12") == 12


@pytest.mark.parametrize("name", ["", "12", "1@12", "0@-1", "0@x", "0@1 ", "0@" + "9" * 19])
def test_what_is_no_id_is_refused(name: str) -> None:
    with pytest.raises(ValueError):
        offset_of(name)
