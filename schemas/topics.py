"""Every topic, once, in the order a job travels: name, key, partitions, retention, payload, who writes it, who reads it.

Topics are created from this list, the AsyncAPI document is generated from it, and a test compares it with what the code
reads and writes. Retention of job topics is longer than the longest deadline and never by size.
"""

from dataclasses import dataclass
from enum import StrEnum

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS


class Lane(StrEnum):
    """Priority class of traffic."""

    INTERACTIVE = "interactive"
    BATCH = "batch"


class Delay(StrEnum):
    """Fixed waits. What waits longer hops between them; since all waits of a topic are equal, its head is always due first."""

    SHORT = "5s"
    MEDIUM = "1m"
    LONG = "10m"

    @property
    def ms(self) -> int:
        return {"5s": 5_000, "1m": 60_000, "10m": 600_000}[self.value]


@dataclass(frozen=True, slots=True)
class Topic:
    """A topic. In `name`, `{lane}`, `{delay}` and `{team}` stand for one topic each; `public` ones are contracts."""

    name: str
    key: str
    partitions: int
    retention_ms: int
    payload: str
    writers: tuple[str, ...]
    readers: tuple[str, ...]
    what: str
    compacted: bool = False
    public: bool = False

    def names(self) -> tuple[str, ...]:
        """The concrete names; empty for a topic a team."""
        if "{team}" in self.name:
            return ()
        if "{lane}" in self.name:
            return tuple(self.name.format(lane=lane.value) for lane in Lane)
        if "{delay}" in self.name:
            return tuple(self.name.format(delay=delay.value) for delay in Delay)
        return (self.name,)


JOBS = Topic(
    name="sluice.jobs.{lane}",
    key="team",
    partitions=8,
    retention_ms=7 * DAY_MS,
    payload="BatchLine",
    writers=("batch teams", "portal"),
    readers=("ingress",),
    what="the Kafka door: one line of OpenAI's batch input a record, header `authorization: Bearer <job token>`",
    public=True,
)
GUARD = Topic(
    name="sluice.guard.{lane}",
    key="team shard",
    partitions=8,
    retention_ms=3 * DAY_MS,
    payload="Job",
    writers=("ingress", "portal"),
    readers=("guard",),
    what="jobs to be looked at",
)
CACHE = Topic(
    name="sluice.cache.{lane}",
    key="team shard",
    partitions=8,
    retention_ms=3 * DAY_MS,
    payload="Job",
    writers=("ingress", "guard", "portal"),
    readers=("cache",),
    what="jobs that may have been answered before",
)
ROUTER = Topic(
    name="sluice.router.{lane}",
    key="team shard",
    partitions=8,
    retention_ms=3 * DAY_MS,
    payload="Job",
    writers=("ingress", "guard", "cache", "portal"),
    readers=("router",),
    what="jobs to be sent out",
)
DELAY = Topic(
    name="sluice.delay.{delay}",
    key="team",
    partitions=4,
    retention_ms=3 * DAY_MS,
    payload="Job",
    writers=("ingress", "guard", "cache", "router"),
    readers=("router",),
    what="jobs that may not be sent out yet; after the wait they go on to the next stage on their slip",
)
REPLIES = Topic(
    name="sluice.replies",
    key="job",
    partitions=32,
    retention_ms=HOUR_MS,
    payload="Reply",
    writers=("ingress", "guard", "cache", "router"),
    readers=("ingress",),
    what="reply events; the partition is the address of the ingress instance that waits",
)
RESULTS = Topic(
    name="sluice.results.{team}",
    key="custom_id",
    partitions=1,
    retention_ms=7 * DAY_MS,
    payload="BatchResult",
    writers=("ingress", "guard", "cache", "router"),
    readers=("batch teams",),
    what="answers for who published to the Kafka door: one line of OpenAI's batch output a record",
    public=True,
)
BATCHES = Topic(
    name="sluice.batches",
    key="batch",
    partitions=4,
    retention_ms=3 * DAY_MS,
    payload="BatchOrder",
    writers=("ingress", "portal"),
    readers=("ingress",),
    what="batches of /v1/batches: each is one record, worked on until its last line has ended",
)
BATCH_RESULTS = Topic(
    name="sluice.batch_results",
    key="batch",
    partitions=8,
    retention_ms=3 * DAY_MS,
    payload="BatchResult",
    writers=("ingress", "guard", "cache", "router", "portal"),
    readers=("ingress",),
    what="ends of the lines of those batches, from which the output files are made",
)
WEBHOOKS = Topic(
    name="sluice.webhooks",
    key="event",
    partitions=4,
    retention_ms=3 * DAY_MS,
    payload="WebhookDelivery",
    writers=("ingress", "guard", "cache", "router", "portal"),
    readers=("ingress",),
    what="webhooks to be sent now",
)
WEBHOOK_RETRIES = Topic(
    name="sluice.webhooks.{delay}",
    key="event",
    partitions=4,
    retention_ms=3 * DAY_MS,
    payload="WebhookDelivery",
    writers=("ingress",),
    readers=("ingress",),
    what="webhooks that failed, to be sent again after the wait",
)
COMPLETIONS = Topic(
    name="sluice.completions",
    key="job",
    partitions=4,
    retention_ms=7 * DAY_MS,
    payload="Completion",
    writers=("ingress", "guard", "cache", "router", "portal"),
    readers=("accounting", "cache"),
    what="the terminal fact of every job",
    public=True,
)
CANCELS = Topic(
    name="sluice.cancels",
    key="job",
    partitions=1,
    retention_ms=HOUR_MS,
    payload="Cancel",
    writers=("ingress", "portal"),
    readers=("router",),
    what="broadcast: stop working on this",
)
CONTROL = Topic(
    name="sluice.control",
    key="resource",
    partitions=1,
    retention_ms=-1,
    payload="Resource",
    writers=("portal",),
    readers=("ingress", "router", "accounting", "portal"),
    what="teams, keys, policies and models; every service holds it as a table in memory",
    compacted=True,
)
EVENTS = Topic(
    name="sluice.events",
    key="resource",
    partitions=1,
    retention_ms=30 * DAY_MS,
    payload="AdminEvent",
    writers=("portal", "accounting"),
    readers=("accounting",),
    what="acts that change no resource (those that do are on the control topic): who, what, why",
)
ALERTS = Topic(
    name="sluice.alerts",
    key="team",
    partitions=1,
    retention_ms=7 * DAY_MS,
    payload="Alert",
    writers=("router", "accounting", "portal"),
    readers=("portal",),
    what="budget burn, anomalies, provider health",
)
FEEDBACK = Topic(
    name="sluice.feedback",
    key="job",
    partitions=1,
    retention_ms=7 * DAY_MS,
    payload="Feedback",
    writers=("ingress",),
    readers=("accounting",),
    what="what people think of answers",
)
DEAD = Topic(
    name="sluice.dead",
    key="job",
    partitions=1,
    retention_ms=30 * DAY_MS,
    payload="the record as it came",
    writers=("ingress", "guard", "cache", "router", "accounting", "portal"),
    readers=("portal", "operators"),
    what="what could not be handled, with the reason in the headers",
)

AUDIT_DRAFTS = Topic(
    name="sluice.audit_drafts",
    key="job",
    partitions=4,
    retention_ms=3 * DAY_MS,
    payload="AuditRecord",
    writers=("ingress", "guard", "cache", "router"),
    readers=("guard",),
    what="audit records of policies that want them redacted, before they are",
)
AUDIT = Topic(
    name="sluice.audit",
    key="job",
    partitions=4,
    retention_ms=3 * DAY_MS,
    payload="AuditRecord",
    writers=("ingress", "guard", "cache", "router"),
    readers=("accounting",),
    what="what is kept for auditors of jobs whose policy asks for it",
)

TOPICS: tuple[Topic, ...] = (
    JOBS,
    GUARD,
    CACHE,
    ROUTER,
    DELAY,
    REPLIES,
    RESULTS,
    BATCHES,
    BATCH_RESULTS,
    WEBHOOKS,
    WEBHOOK_RETRIES,
    COMPLETIONS,
    CANCELS,
    CONTROL,
    EVENTS,
    ALERTS,
    FEEDBACK,
    DEAD,
    AUDIT_DRAFTS,
    AUDIT,
)


def job_topic(stage: str, lane: Lane) -> str:
    """The topic of a stage's lane."""
    return f"sluice.{stage}.{lane.value}"


def delay_topic(delay: Delay) -> str:
    """The topic in which a job waits for so long."""
    return f"sluice.delay.{delay.value}"


def webhook_topic(delay: Delay | None) -> str:
    """The topic of webhooks that are sent after this wait; None: now."""
    return f"sluice.webhooks.{delay.value}" if delay else "sluice.webhooks"


def door_topic(lane: Lane) -> str:
    """The public topic on which batch teams publish."""
    return f"sluice.jobs.{lane.value}"


def results_topic(team: str) -> str:
    """The public topic on which a team reads its answers."""
    return f"sluice.results.{team}"
