"""The chain of audit records: whoever changes, removes, moves or adds something is found."""

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from infra.audit import AuditRow, Found, Head, Link, content_flaw, end_of, flaw_of, link, links, truncated

NOW_S = 1_800_000_000


def row(seq: int, prompt: str = "what is asked") -> AuditRow:
    texts = {name: "" for name, field in AuditRow.model_fields.items() if field.annotation is str}
    numbers = {"partition": 2, "seq": seq, "ts": 1, "ended": 2, "expires_at": NOW_S + 60}
    return AuditRow.model_validate(texts | numbers | {"job_id": f"job_{seq}", "salt": f"salt {seq}", "prompt": prompt})


def chain(count: int) -> list[Link]:
    # Offsets may have gaps: what was no record went to the dead letters.
    return list(links(Head(), (row(3 * n) for n in range(count))))


def first_flaw(chain: Sequence[Link]) -> Found | None:
    head = Head()
    for one in chain:
        if (found := flaw_of(head, one)) is not None:
            return found
        head = end_of(one)
    return None


COUNTS = st.integers(min_value=3, max_value=12)


@given(COUNTS)
def test_a_chain_that_nobody_touched_holds(count: int) -> None:
    assert first_flaw(chain(count)) is None


@given(COUNTS, st.data())
def test_a_block_that_is_written_again_gives_the_same_links(count: int, data: st.DataObject) -> None:
    whole, cut = chain(count), data.draw(st.integers(1, count - 1))
    again = list(links(end_of(whole[cut - 1]), (row(3 * n) for n in range(cut, count))))
    assert again == whole[cut:]


@given(COUNTS, st.data())
def test_a_removed_link_is_named(count: int, data: st.DataObject) -> None:
    gone = data.draw(st.integers(0, count - 2))
    kept = chain(count)
    del kept[gone]
    found = first_flaw(kept)
    assert found is not None
    assert (found.flaw, found.n) == ("missing", gone + 2)


@given(COUNTS, st.data())
def test_two_swapped_links_are_named(count: int, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, count - 2))
    moved = chain(count)
    moved[at], moved[at + 1] = moved[at + 1], moved[at]
    found = first_flaw(moved)
    assert found is not None
    assert found.n == at + 2


@given(COUNTS, st.data(), st.sampled_from(["digest", "job_id", "prev_hash", "row_hash", "seq", "expires_at"]))
def test_an_altered_link_is_named(count: int, data: st.DataObject, member: str) -> None:
    at = data.draw(st.integers(0, count - 1))
    altered = chain(count)
    value = getattr(altered[at], member)
    altered[at] = altered[at].model_copy(update={member: value + 1 if isinstance(value, int) else value + "0"})
    found = first_flaw(altered)
    assert found is not None
    assert (found.flaw, found.n) == ("altered", at + 1)


@given(COUNTS, st.data())
def test_an_altered_link_with_its_hash_made_anew_is_found_by_the_next(count: int, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, count - 2))
    forged = chain(count)
    bare = forged[at].model_copy(update={"digest": "forged"})
    forged[at] = bare.model_copy(update={"row_hash": bare.computed()})
    found = first_flaw(forged)
    assert found is not None
    assert (found.flaw, found.n) == ("altered", at + 2)


@given(COUNTS, st.data())
def test_an_inserted_link_is_found(count: int, data: st.DataObject) -> None:
    at = data.draw(st.integers(1, count - 1))
    fuller = chain(count)
    fuller.insert(at, link(end_of(fuller[at - 1]), row(3 * at - 1, "never asked")))
    assert first_flaw(fuller) is not None


@given(st.sampled_from(sorted(AuditRow.model_fields)))
def test_a_row_of_which_any_member_was_altered_is_not_what_was_written(member: str) -> None:
    made = link(Head(), row(0))
    value = getattr(row(0), member)
    altered = row(0).model_copy(update={member: value + 1 if isinstance(value, int) else f"{value}!"})
    assert content_flaw(made, row(0), erased=False, now_s=NOW_S) is None
    found = content_flaw(made, altered, erased=False, now_s=NOW_S)
    assert found is not None
    assert found.flaw == "content altered"


def test_a_row_may_be_gone_when_it_has_expired_or_a_certificate_says_so_and_else_not() -> None:
    made = link(Head(), row(0))
    assert content_flaw(made, None, erased=True, now_s=NOW_S) is None
    assert content_flaw(made, None, erased=False, now_s=NOW_S + 60) is None
    found = content_flaw(made, None, erased=False, now_s=NOW_S)
    assert found is not None
    assert found.flaw == "content missing"


def test_a_chain_whose_end_was_cut_off_or_made_anew_does_not_reach_its_anchor() -> None:
    whole = chain(5)
    head = end_of(whole[-1])
    assert truncated({2: head}, [(2, head)], {(2, 5): head.row_hash}) is None
    cut, anew = truncated({2: end_of(whole[3])}, [(2, head)], {}), truncated({2: head}, [(2, head)], {(2, 5): "another"})
    assert cut is not None
    assert anew is not None
    assert (cut.flaw, cut.n, anew.flaw, anew.n) == ("missing", 5, "altered", 5)
