"""What somebody thinks of an answer: a score, thumbs, a label, a comment."""

from typing import ClassVar, Literal

from pydantic import Field

from schemas.base import Message
from schemas.job import Caller

Thumbs = Literal["up", "down"]


class Feedback(Message):
    """One opinion of the answer to a job. The last one of an author under a name replaces his earlier ones.

    `score` from -1 (bad) to 1 (good); `name` says what is judged (`rating`, `helpfulness`, …).
    """

    TYPE: ClassVar[str] = "io.sluice.feedback.v1"

    id: str
    at_ms: int
    job_id: str
    caller: Caller = Field(description="whose key gave it")
    name: str
    author: str = Field(default="", description="who thinks so, as the application names him")
    score: float | None = Field(default=None, ge=-1, le=1)
    label: str = ""
    comment: str = ""
