"""An answer as it is kept: by the router until it is published, by the cache until its time is over."""

from typing import ClassVar

from schemas.audit import Heard
from schemas.base import Message
from schemas.completion import Completion
from schemas.reply import Answer, Failed


class Kept(Message):
    """`answer` for a plain job; `stream` holds the events of a stream, as they went out; `failed` for a job that failed.

    `seq` is the number of the stream's last event, and `attempt` that in whose name it went out, for whoever sends it again.
    `heard`: what a stream said, where that is audited.
    """

    TYPE: ClassVar[str] = "io.sluice.kept.v1"

    completion: Completion
    answer: Answer | None = None
    failed: Failed | None = None
    stream: tuple[str, ...] = ()
    seq: int = 0
    attempt: int = 0
    heard: Heard | None = None
