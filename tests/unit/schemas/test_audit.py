"""What is kept of a job for auditors."""

import pytest

from schemas.attempt import Attempt
from schemas.audit import Heard, audit_of, digest
from schemas.base import JsonObject
from schemas.completion import completion_of
from schemas.errors import ContentBlocked
from schemas.job import Api, Job, JobStatus
from schemas.policy import AuditPolicy, DataPolicy, EffectivePolicy, Policy, inherit
from schemas.reply import Answer, Closed, Failed, Served
from tests.fakes.jobs import NOW_MS, a_job

CALL = Attempt(
    id="att_1", n=1, deployment="eu", provider="p", provider_model="m-1", started_ms=NOW_MS, latency_ms=5, status="completed"
)
TOOL: JsonObject = {"role": "tool", "tool_call_id": "c", "content": "retrieved"}
BODY: JsonObject = {"model": "small", "messages": [{"role": "user", "content": "asked"}, TOOL]}
ANSWER = Answer(body='{"model": "m-1-2026", "system_fingerprint": "fp_1", "choices": []}', served=Served())


def job(content: str, **members: object) -> Job:
    policy = EffectivePolicy.model_validate({"version": "1", "audit": {"content": content, "retention_days": 2}})
    return a_job(body=BODY, policy=policy, **members)


def test_all_is_kept_as_it_was() -> None:
    asked = job("full")
    record = audit_of(asked, completion_of(asked, JobStatus.COMPLETED, "router", NOW_MS, attempts=(CALL,)), ANSWER, (), None, "s")
    assert (record.deployment, record.provider_model, record.model_version) == ("eu", "m-1", "m-1-2026 fp_1")
    assert "asked" in record.prompt
    assert "retrieved" in record.context
    assert "asked" not in record.context
    assert record.completion == ANSWER.body
    assert record.expires_ms == NOW_MS + 2 * 86_400_000
    assert record.caller == asked.caller
    assert record.kinds == ()


def test_digests_need_the_salt() -> None:
    asked = job("hashed")
    record = audit_of(asked, completion_of(asked, JobStatus.COMPLETED, "router", NOW_MS), ANSWER, (), None, "s")
    assert record.completion == digest("s", ANSWER.body) != digest("t", ANSWER.body)
    assert "asked" not in record.model_dump_json()
    assert "retrieved" not in record.model_dump_json()


@pytest.mark.parametrize(
    ("stream", "heard", "said"),
    [
        (('{"choices":[{"delta":{"content":"a"}}]}', '{"choices":[{"delta":{"content":"b"}}]}'), None, "ab"),
        ((), Heard(text="long", first='{"model":"m-2"}'), "long"),
        (("not JSON",), None, "not JSON"),
        ((), None, ""),
    ],
)
def test_of_a_stream_the_text_is_kept(stream: tuple[str, ...], heard: Heard | None, said: str) -> None:
    asked = job("full")
    record = audit_of(asked, completion_of(asked, JobStatus.COMPLETED, "router", NOW_MS), Closed(), stream, heard, "s")
    assert record.completion == said


def test_a_refused_job_is_kept_with_its_reason_and_one_to_be_redacted_says_of_what() -> None:
    asked, fault = job("redacted"), ContentBlocked("no", code="content_filter").fault()
    completion = completion_of(asked, JobStatus.FAILED, "guard", NOW_MS, fault=fault)
    record = audit_of(asked, completion, Failed(fault=fault), (), None, "s")
    assert (record.error, record.completion) == ("content_filter", "")
    assert "card" in record.kinds


def test_vectors_are_left_out() -> None:
    asked = job("full", api=Api.EMBEDDINGS)
    record = audit_of(asked, completion_of(asked, JobStatus.COMPLETED, "router", NOW_MS), ANSWER, (), None, "s")
    assert record.completion == ""


def test_the_nearest_level_says_what_is_kept_and_nobody_keeps_words_where_none_may_be_kept() -> None:
    house, team = Policy(audit=AuditPolicy(content="full")), Policy(audit=AuditPolicy(content="redacted", retention_days=7))
    assert inherit((), "1").audited == "none"
    assert inherit((house, team), "1").audit == team.audit
    assert inherit((house, Policy(data=DataPolicy(log=False))), "1").audited == "hashed"
