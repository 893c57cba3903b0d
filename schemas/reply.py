"""What comes back to a waiting connection: events of one job, in order.

A plain job gets one `Answer`. A stream gets `Opened`, any number of `Delta`s, then `Closed`. Either may end in `Failed`
instead. `attempt` and `seq` (from 0, without gaps within an attempt) let the reader drop what comes twice and see what
is missing; once bytes of an attempt went out, another attempt's events are not mixed in.
"""

from decimal import Decimal
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from schemas.base import Message, Part
from schemas.completion import CacheStatus
from schemas.errors import Fault
from schemas.job import Verdict


class Served(Part):
    """Who served the job: what the response headers tell."""

    model: str = ""
    deployment: str = ""
    cache: CacheStatus = "bypass"
    verdict: Verdict | None = None
    cost_usd: Decimal | None = None
    provider_ms: float = 0
    age_s: int | None = Field(default=None, description="of a cached answer")


class Opened(Part):
    """A stream has begun."""

    kind: Literal["opened"] = "opened"
    served: Served


class Delta(Part):
    """The next server-sent events of a stream: each the data of one event, as the provider wrote it."""

    kind: Literal["delta"] = "delta"
    data: tuple[str, ...]


class Closed(Part):
    """A stream has ended well; the reader writes the `[DONE]`."""

    kind: Literal["closed"] = "closed"


class Answer(Part):
    """The whole answer: HTTP status and the body's JSON text as the provider wrote it."""

    kind: Literal["answer"] = "answer"
    status: int = 200
    body: str
    served: Served


class Failed(Part):
    """The job has ended with an error; nothing more comes."""

    kind: Literal["failed"] = "failed"
    fault: Fault
    served: Served = Served()


Event = Annotated[Opened | Delta | Closed | Answer | Failed, Field(discriminator="kind")]


class Reply(Message):
    """One event of one job on its way to the connection that waits."""

    TYPE: ClassVar[str] = "io.sluice.reply.v1"

    job_id: str
    attempt: int = 0
    seq: int = 0
    event: Event

    @property
    def is_last(self) -> bool:
        """True if nothing more of this job comes."""
        return self.event.kind in ("closed", "answer", "failed")
