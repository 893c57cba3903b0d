"""What becomes of a dead letter that is replayed. Pure."""

from dataclasses import dataclass
from typing import Final, Literal

from schemas.control import VirtualKey
from schemas.job import Job
from schemas.policy import EffectivePolicy
from schemas.slip import Stage
from schemas.topics import (
    BATCH_RESULTS,
    BATCHES,
    COMPLETIONS,
    Delay,
    Lane,
    delay_topic,
    door_topic,
    job_topic,
    webhook_topic,
)
from schemas.webhook import WebhookDelivery

Way = Literal["job", "door", "webhook", "completion", "batch", "batch result"]
"""What a record was, by the topic that it came from."""

REPLAY_OF: Final = "replay_of"
"""Under this name a replayed job's metadata has the id of the old one."""

_WAYS: Final[dict[str, Way]] = {
    **{door_topic(lane): "door" for lane in Lane},
    **{job_topic(stage.value, lane): "job" for stage in Stage for lane in Lane},
    **{delay_topic(delay): "job" for delay in Delay},
    **{webhook_topic(delay): "webhook" for delay in (None, *Delay)},
    COMPLETIONS.name: "completion",
    BATCHES.name: "batch",
    BATCH_RESULTS.name: "batch result",
}
_NO_LINE: Final = frozenset({"empty", "invalid_line"})


@dataclass(frozen=True, slots=True)
class Hopeless:
    """It can't be replayed: why, in a sentence."""

    why: str


def way_of(topic: str, reason: str) -> Way | Hopeless:
    """What a record of this topic, put aside for this reason, is replayed as."""
    way = _WAYS.get(topic)
    if way is None:
        return Hopeless(f"records of {topic or 'an unknown topic'} are of no use later")
    if way == "door" and reason in _NO_LINE:
        return Hopeless("it is no line of batch input and would be put aside again: its publisher has to send it anew")
    return way


def why_not_today(job: Job, today: EffectivePolicy, key: VirtualKey | None, now_ms: int) -> str:
    """Why who asked then could not ask for it now, in a sentence; empty if nothing is in the way but limits."""
    if job.caller.key_id and (key is None or key.revoked):
        return "the key that it was asked with is revoked"
    if key is not None and 0 < key.expires_ms <= now_ms:
        return "the key that it was asked with has expired"
    if key is not None and key.held is not None and key.held.requests_per_minute is None:
        return f"the key that it was asked with is paused: `sluice keys resume {key.id}` lifts that"
    if today.identity == "required" and not job.caller.identity:
        return "its caller's policy asks who you are by now, which nobody said then"
    if not today.allows(job.model, now_ms):
        return f"its caller may not use the model `{job.model}` any more"
    if today.lanes is not None and job.lane not in today.lanes:
        return f"its caller may not use the lane `{job.lane.value}` any more"
    return ""


def renewed(job: Job, new_id: str, now_ms: int) -> Job:
    """The job begun anew from the front of its way, with as much time as it had. Not signed yet.

    Nobody waits for it: what answered a connection is kept, to be asked for by its id. Who reads results reads a second one.
    """
    kept = job.reply_to.kind == "inbox"
    metadata = {**job.labels.metadata, REPLAY_OF: job.id}
    return job.model_copy(
        update={
            "id": new_id,
            "slip": job.way,
            "accepted_ms": now_ms,
            "deadline_ms": now_ms + job.deadline_ms - job.accepted_ms,
            "not_before_ms": 0,
            "steps": (),
            "made": (),
            "verdict": None,
            "cache": job.cache.model_copy(update={"key": None, "status": "bypass"}),
            "labels": job.labels.model_copy(update={"metadata": metadata}),
            "detached": kept or job.detached,
            "keep_s": (job.keep_s or job.policy.keep_results_s) if kept else job.keep_s,
            "signature": "",
        }
    )


def first_try(delivery: WebhookDelivery, now_ms: int) -> WebhookDelivery:
    """The delivery as if it had just been asked for: it has all its tries before it again."""
    return delivery.model_copy(update={"attempt": 0, "not_before_ms": 0, "created_ms": now_ms})
