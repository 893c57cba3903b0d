"""Record <-> schema."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.kafka.envelope import Poison, by_reference, decode, encode, header, rfc3339
from infra.kafka.log import Outgoing
from schemas.base import Message
from schemas.batch import BatchLine
from schemas.cancel import Cancel
from schemas.completion import completion_of
from schemas.errors import RateLimited
from schemas.job import Job, JobStatus
from schemas.reply import Answer, Closed, Delta, Failed, Opened, Reply, Served
from tests.fakes.jobs import NOW_MS, a_job
from tests.fakes.log import Record

Headers = tuple[tuple[str, bytes | None], ...]


def sent(message: Message, **more: bool) -> Outgoing:
    return encode(
        message, topic="t", key="k", event_id="e", source="guard", now_ms=NOW_MS, traceparent="00-1", subject="j", **more
    )


def read(value: bytes | None, headers: Headers = ()) -> Record:
    return Record("t", 0, 0, value=value, headers=headers)


def test_a_record_is_a_cloud_event_in_binary_mode() -> None:
    record = encode(
        Cancel(job_id="job_1"), topic="t", key="k", event_id="e", source="ingress", now_ms=NOW_MS, expires_ms=NOW_MS + 1500
    )
    assert dict(record.headers) == {
        "content-type": b"application/json",
        "ce_specversion": b"1.0",
        "ce_type": b"io.sluice.cancel.v1",
        "ce_source": b"ingress",
        "ce_id": b"e",
        "ce_time": b"2027-01-15T08:00:00.000Z",
        "ce_expirytime": b"2027-01-15T08:00:01.500Z",
    }
    assert (record.key, record.value, record.partition) == (b"k", b'{"job_id":"job_1"}', None)


@pytest.mark.parametrize("exclude_defaults", [True, False])
def test_a_message_comes_back_as_it_was(exclude_defaults: bool) -> None:
    job = a_job()
    messages: list[Message] = [
        job,
        job.model_copy(update={"stream": True, "custom_id": "a/b", "deadline_ms": 1}),
        completion_of(job, JobStatus.FAILED, "guard", NOW_MS, fault=RateLimited("slow", retry_after_s=3).fault()),
        Cancel(job_id=job.id, reason="late"),
        BatchLine(custom_id="1", method="POST", url="/v1/embeddings", body={"input": ["a"]}),
    ]
    for message in messages:
        record = sent(message, exclude_defaults=exclude_defaults)
        assert decode(read(record.value, record.headers), type(message)) == message


@pytest.mark.parametrize(
    "event",
    [
        Opened(served=Served()),
        Delta(data=('{"a":1}', "ü")),
        Closed(),
        Answer(body='{"a": 1}', served=Served(model="m")),
        Failed(fault=RateLimited("slow").fault()),
    ],
    ids=lambda event: event.kind,
)
def test_an_event_keeps_its_kind(event: Opened | Delta | Closed | Answer | Failed) -> None:
    record = sent(Reply(job_id="job_1", event=event), exclude_defaults=False)
    reply = decode(read(record.value, record.headers), Reply)
    assert isinstance(reply, Reply)
    assert reply.event == event


POISON: dict[str, tuple[bytes | None, Headers, str]] = {
    "no value": (None, (), "empty"),
    "an empty value": (b"", (), "empty"),
    "broken JSON": (b'{"id": ', (), "invalid"),
    "no JSON": (b"\x00\x01\xff", (), "invalid"),
    "not UTF-8": (b'{"id": "\xff"}', (), "invalid"),
    "half a character": (b'{"id": "\\ud800"}', (), "invalid"),
    "another shape": (b"[]", (), "invalid"),
    "members are missing": (b"{}", (), "invalid"),
    "deeper than anybody writes": (b'{"body": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", (), "invalid"),
    "longer than any number": (b'{"accepted_ms": ' + b"9" * 10_000 + b"}", (), "invalid"),
    "another type": (b"{}", (("ce_type", b"io.sluice.reply.v1"),), "unknown_type"),
    "a type of tomorrow": (b"{}", (("ce_type", b"io.sluice.job.v2"),), "unknown_type"),
}


@pytest.mark.parametrize("kind", POISON)
def test_poison_has_a_reason(kind: str) -> None:
    value, headers, reason = POISON[kind]
    poison = decode(read(value, headers), Job)
    assert isinstance(poison, Poison)
    assert poison.reason == reason
    assert poison.detail


def test_an_unreadable_type_is_no_type() -> None:
    record = sent(Cancel(job_id="job_1"))
    for value in (None, b"\xff\xfe"):
        assert decode(read(record.value, (("ce_type", value), ("other", None))), Cancel) == Cancel(job_id="job_1")


def test_a_reason_repeats_nothing_of_what_may_be_secret() -> None:
    value = b'{"id": {"password": 1}, "api": "hunter2", "lane": "hunter2", "accepted_ms": "hunter2", "slip": ["hunter2"]}'
    poison = decode(read(value), Job)
    assert isinstance(poison, Poison)
    assert "accepted_ms" not in poison.detail or "hunter2" not in poison.detail
    assert "hunter2" not in poison.detail


@given(st.binary(max_size=200), st.lists(st.tuples(st.sampled_from(["ce_type", "x"]), st.none() | st.binary(max_size=9))))
def test_nothing_that_is_read_makes_it_fail(value: bytes, headers: list[tuple[str, bytes | None]]) -> None:
    assert isinstance(decode(read(value, tuple(headers)), Job), Poison)


def test_unknown_members_are_ignored() -> None:
    value = b'{"job_id": "job_1", "of_tomorrow": {"a": [1]}}'
    assert decode(read(value), Cancel) == Cancel(job_id="job_1")


def test_a_header_is_its_first_readable_text() -> None:
    headers = [("a", None), ("a", b"1"), ("b", b"\xff"), ("b", b"2")]
    assert (header(headers, "a"), header(headers, "b"), header(headers, "c")) == ("1", "", "")


def test_a_body_elsewhere_leaves_its_place() -> None:
    record = by_reference(sent(Cancel(job_id="job_1")), "f" * 32)
    assert record.value == b""
    assert header(record.headers, "ce_dataref") == "f" * 32


def test_times_are_rfc_3339() -> None:
    assert rfc3339(0) == b"1970-01-01T00:00:00.000Z"
    assert rfc3339(1_700_000_000_123) == b"2023-11-14T22:13:20.123Z"
