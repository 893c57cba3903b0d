"""The order to stop working on a job."""

from typing import ClassVar

from schemas.base import Message


class Cancel(Message):
    """Broadcast on `sluice.cancels`: nobody waits for this job any more."""

    TYPE: ClassVar[str] = "io.sluice.cancel.v1"

    job_id: str
    reason: str = "the caller went away"
