"""A job: one accepted request on its way."""

from enum import StrEnum
from typing import ClassVar, Literal

from pydantic import Field

from schemas.attempt import Attempt
from schemas.base import JsonObject, Message, Part
from schemas.policy import EffectivePolicy
from schemas.slip import RoutingSlip, Stage, next_topic, without_front
from schemas.topics import Lane


class Api(StrEnum):
    """Which of the public endpoints was asked."""

    CHAT = "chat.completions"
    EMBEDDINGS = "embeddings"
    MODERATIONS = "moderations"


class JobStatus(StrEnum):
    """OpenAI's words for the state of a response or batch; ours for jobs too."""

    QUEUED = "queued"
    IN_PROGRESS = "in_progress"
    COMPLETED = "completed"
    FAILED = "failed"
    INCOMPLETE = "incomplete"
    CANCELLED = "cancelled"
    EXPIRED = "expired"


class Caller(Part):
    """Whose bill it is, from the virtual key, and who asks: `identity`: `<identity provider>:<subject>` of its token."""

    organization: str
    team: str
    project: str = ""
    environment: str = ""
    key_id: str
    user: str = ""
    identity: str = ""


class Labels(Part):
    """Dimensions that the caller gives for chargeback (`x-sluice-metadata`)."""

    feature: str = ""
    segment: str = ""
    metadata: dict[str, str] = Field(default_factory=dict)


class ReplyTo(Part):
    """Where the answer goes: the partition of `sluice.replies` on which the waiting ingress listens; for a job that came
    through the Kafka door `sluice.results.{team}`; for a line of a batch the partition of `sluice.batch_results`; for a shadow
    nowhere."""

    kind: Literal["inbox", "results", "batch", "nowhere"]
    partition: int = 0
    batch_id: str = ""


class Step(Part):
    """When a stage took a job, in unix milliseconds: together, the timeline of the job."""

    stage: str
    at_ms: int


class CacheRequest(Part):
    """What the caller's `cache-control` asks for, and, once the cache has looked, under which key an answer may be kept."""

    read: bool = True
    write: bool = True
    max_age_s: int | None = None
    ttl_s: int | None = None
    key: str | None = None
    status: Literal["miss", "bypass"] = "bypass"


class GuardFinding(Part):
    """How often a kind of thing was found, and what was done about it. Never the text itself."""

    kind: str
    action: str
    count: int


class Verdict(Part):
    """What the guard decided: the sternest action taken, and the findings behind it."""

    verdict: Literal["allow", "flag", "redact", "block"] = "allow"
    findings: tuple[GuardFinding, ...] = ()
    version: str = Field(default="", description="of the rules by which the guard looked")


class Estimate(Part):
    """An upper bound of what a job needs: tokens in and out, and USD in nano-dollars at the dearest deployment it can reach."""

    input_tokens: int
    output_tokens: int
    usd_nano: int = 0


class Job(Message):
    """One accepted request. `body` is what the caller sent, unknown fields included."""

    TYPE: ClassVar[str] = "io.sluice.job.v1"

    id: str
    api: Api
    lane: Lane
    model: str = Field(description="the alias the caller asked for")
    body: JsonObject
    stream: bool = False
    include_usage: bool = Field(default=False, description="the caller asked for usage at the end of the stream")
    caller: Caller
    labels: Labels = Labels()
    policy: EffectivePolicy
    slip: RoutingSlip = Field(description="the stages still to come")
    way: RoutingSlip = Field(description="the slip as admission wrote it")
    accepted_ms: int
    deadline_ms: int
    reply_to: ReplyTo
    custom_id: str = ""
    cache: CacheRequest = CacheRequest()
    verdict: Verdict | None = None
    steps: tuple[Step, ...] = ()
    detached: bool = Field(default=False, description="asynchronous: goes on though nobody is connected")
    keep_s: int = Field(default=0, ge=0, description="how long the end is kept for whoever asks later; 0: not at all")
    not_before_ms: int = Field(default=0, description="no provider is called before")
    webhook: str = Field(default="", description="URL that is told of the end")
    shadow_of: str = Field(default="", description="the job of which this is a copy, made to compare models")
    known_as: Literal["job", "response"] = Field(default="job", description="what the caller calls it, in webhooks")
    made: tuple[Attempt, ...] = Field(default=(), description="provider calls made before it was put off, already priced")
    estimate: Estimate | None = Field(default=None, description="the most it is expected to need, where a limit asks for that")
    fingerprint: str = Field(default="", description="short hash of the body: equal requests have equal ones")
    signature: str = ""

    def next_topic(self) -> str:
        """The topic this job goes to next."""
        return next_topic(self.slip, self.lane)

    def taken(self, stage: Stage, at_ms: int) -> "Job":
        """This job with a further step on its timeline."""
        return self.model_copy(update={"steps": (*self.steps, Step(stage=stage.value, at_ms=at_ms))})

    def past(self, stage: Stage) -> "Job":
        """This job after `stage`: the slip is shorter by its front."""
        return self.model_copy(update={"slip": without_front(self.slip, stage)})

    def at(self, stage: Stage) -> "Job":
        """This job before `stage`, with whatever stood between already done."""
        return self.model_copy(update={"slip": self.slip[self.slip.index(stage) :]})

    def signed_part(self) -> bytes:
        """What admission signs: what a forger would change to be served, or billed, otherwise.

        The slip shrinks on the way, so the whole way is signed and the slip must be an end of it.
        """
        caller = self.caller
        parts = (
            self.id,
            caller.organization,
            caller.team,
            caller.project,
            caller.environment,
            caller.key_id,
            caller.user,
            caller.identity,
            self.model,
            self.policy.version,
            ",".join(self.way),
            str(self.deadline_ms),
        )
        return "\x1f".join(parts).encode()
