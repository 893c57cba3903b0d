"""What becomes of a dead letter, case by case."""

from decimal import Decimal

import pytest

from schemas.attempt import Attempt
from schemas.control import Hold, VirtualKey
from schemas.job import Caller, Job, JobStatus, Labels, ReplyTo, Step, Verdict
from schemas.policy import EffectivePolicy
from schemas.slip import Stage
from schemas.ticket import ticket_of
from schemas.topics import TOPICS, Lane
from schemas.webhook import WebhookDelivery
from services.portal.policy import standing
from services.portal.ways import Hopeless, Way, first_try, renewed, way_of, why_not_today
from tests.fakes.jobs import NOW_MS, SIGNER, a_job

LATER_MS = NOW_MS + 3_600_000
NEW = "job_019b76daa8007000800000000000002a"

WAYS: list[tuple[str, str, Way | None]] = [
    ("sluice.jobs.batch", "no_token", "door"),
    ("sluice.jobs.interactive", "invalid_token", "door"),
    ("sluice.jobs.batch", "revoked_key", "door"),
    ("sluice.jobs.batch", "empty", None),
    ("sluice.jobs.batch", "invalid_line", None),
    ("sluice.guard.interactive", "slip", "job"),
    ("sluice.cache.batch", "deliveries", "job"),
    ("sluice.router.batch", "deliveries", "job"),
    ("sluice.delay.10m", "dataref", "job"),
    ("sluice.webhooks", "gone", "webhook"),
    ("sluice.webhooks.1m", "gone", "webhook"),
    ("sluice.completions", "unbillable", "completion"),
    ("sluice.batches", "invalid", "batch"),
    ("sluice.batch_results", "invalid", "batch result"),
    ("sluice.replies", "invalid", None),
    ("sluice.cancels", "invalid", None),
    ("sluice.control", "invalid", None),
    ("sluice.dead", "invalid", None),
    ("sluice.results.fraud", "invalid", None),
    ("", "invalid", None),
    ("somebody.elses", "invalid", None),
]


@pytest.mark.parametrize(("topic", "reason", "way"), WAYS)
def test_what_a_letter_is_replayed_as(topic: str, reason: str, way: Way | None) -> None:
    found = way_of(topic, reason)
    assert isinstance(found, Hopeless) if way is None else found == way


def test_nothing_goes_to_a_topic_that_the_portal_does_not_write() -> None:
    for topic in TOPICS:
        for name in topic.names():
            if not isinstance(way_of(name, "deliveries"), Hopeless) and not name.startswith(
                ("sluice.delay.", "sluice.webhooks.")
            ):
                assert "portal" in topic.writers, name


WORN = a_job(
    slip=(Stage.ROUTER,),
    steps=(Step(stage="guard", at_ms=NOW_MS),),
    verdict=Verdict(verdict="redact"),
    not_before_ms=NOW_MS + 5,
    labels=Labels(feature="triage", metadata={"a": "b"}),
    made=(
        Attempt(
            id="att_1", n=1, deployment="d", provider="p", provider_model="m", started_ms=1, latency_ms=1, status="failed",
            cost_usd=Decimal(1),
        ),
    ),
)  # fmt: skip


def again(job: Job) -> Job:
    return renewed(job, NEW, LATER_MS)


def test_a_job_begins_anew_with_as_much_time_as_it_had() -> None:
    new = again(WORN)
    assert (new.id, new.accepted_ms, new.deadline_ms) == (NEW, LATER_MS, LATER_MS + 120_000)
    assert new.slip == new.way == WORN.way
    assert (new.steps, new.made, new.verdict, new.not_before_ms) == ((), (), None, 0)
    assert (new.cache.key, new.cache.status) == (None, "bypass")
    assert (new.body, new.caller, new.policy, new.model, new.lane) == (
        WORN.body,
        WORN.caller,
        WORN.policy,
        WORN.model,
        WORN.lane,
    )


def test_a_job_says_whose_replay_it_is() -> None:
    assert again(WORN).labels == Labels(feature="triage", metadata={"a": "b", "replay_of": WORN.id})


def test_the_old_signature_is_not_good_for_the_new_job() -> None:
    new = again(WORN)
    assert not SIGNER.holds(new)
    assert not SIGNER.holds(new.model_copy(update={"signature": WORN.signature}))
    assert SIGNER.holds(SIGNER.sign(new))


@pytest.mark.parametrize("keep_s", [0, 60])
def test_what_answered_a_connection_is_kept_to_be_asked_for(keep_s: int) -> None:
    new = again(WORN.model_copy(update={"keep_s": keep_s}))
    assert (new.detached, new.keep_s) == (True, keep_s or 86_400)
    assert new.reply_to == WORN.reply_to


@pytest.mark.parametrize("reply_to", [ReplyTo(kind="results"), ReplyTo(kind="batch", partition=2, batch_id="batch_1")])
def test_who_reads_results_reads_another_one(reply_to: ReplyTo) -> None:
    new = again(WORN.model_copy(update={"reply_to": reply_to}))
    assert (new.reply_to, new.detached, new.keep_s) == (reply_to, False, 0)


def test_a_ticket_tells_what_the_job_does() -> None:
    ticket = ticket_of(again(WORN))
    assert (ticket.job_id, ticket.partition, ticket.detached) == (NEW, 5, True)
    assert ticket.caller == Caller.model_validate(WORN.caller.model_dump())
    assert ticket.labels.metadata["replay_of"] == WORN.id


def test_a_webhook_has_all_its_tries_before_it_again() -> None:
    tired = WebhookDelivery(
        id="evt_1", url="https://x.example", team="fraud", payload={}, created_ms=1, attempt=9, not_before_ms=7
    )
    fresh = first_try(tired, NOW_MS)
    assert (fresh.id, fresh.attempt, fresh.not_before_ms, fresh.created_ms) == ("evt_1", 0, 0, NOW_MS)


@pytest.mark.parametrize(
    ("state", "deadline_ms", "status"),
    [
        ("", LATER_MS, JobStatus.QUEUED),
        ("", NOW_MS, JobStatus.EXPIRED),
        ("leased", LATER_MS, JobStatus.IN_PROGRESS),
        ("leased", NOW_MS, JobStatus.IN_PROGRESS),
        ("answered", LATER_MS, JobStatus.IN_PROGRESS),
        ("ending", LATER_MS, JobStatus.IN_PROGRESS),
        ("abandoned", LATER_MS, JobStatus.CANCELLED),
        ("done", LATER_MS, None),
    ],
)
def test_how_a_job_stands_whose_end_is_not_known(state: str, deadline_ms: int, status: JobStatus | None) -> None:
    assert standing(state, deadline_ms, NOW_MS) == status


KEY = VirtualKey(id="key_1", sha256="0" * 64, last4="abcd", team="fraud")
TODAY = EffectivePolicy(version="1")


@pytest.mark.parametrize(
    ("today", "key", "says"),
    [
        (TODAY, KEY, ""),
        (TODAY, KEY.model_copy(update={"expires_ms": NOW_MS + 1}), ""),
        (TODAY, None, "revoked"),
        (TODAY, KEY.model_copy(update={"revoked": True}), "revoked"),
        (TODAY, KEY.model_copy(update={"expires_ms": NOW_MS}), "expired"),
        (TODAY, KEY.model_copy(update={"held": Hold(since_ms=1, reason="x")}), "paused"),
        (TODAY, KEY.model_copy(update={"held": Hold(since_ms=1, reason="x", requests_per_minute=5)}), ""),
        (TODAY.model_copy(update={"identity": "required"}), KEY, "who you are"),
        (TODAY.model_copy(update={"models": ()}), KEY, "the model"),
        (TODAY.model_copy(update={"lanes": (Lane.BATCH,)}), KEY, "the lane"),
    ],
)
def test_a_job_is_begun_anew_only_if_its_caller_could_ask_for_it_now(
    today: EffectivePolicy, key: VirtualKey | None, says: str
) -> None:
    job = a_job(lane=Lane.INTERACTIVE, caller=Caller(organization="default", team="fraud", key_id="key_1"))
    why = why_not_today(job, today, key, NOW_MS)
    assert says in why
    assert bool(why) == bool(says)


def test_who_asked_by_a_token_alone_has_no_key_to_lose() -> None:
    asked = Caller(organization="default", team="fraud", key_id="", identity="okta:ada")
    assert why_not_today(a_job(caller=asked), TODAY.model_copy(update={"identity": "required"}), None, NOW_MS) == ""
