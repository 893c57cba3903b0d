"""What an erasure is: whose, and its certificate. Pure."""

import hashlib
from typing import Final, Literal, Self

from pydantic import BaseModel, Field, model_validator

from schemas.job import Caller
from schemas.topics import TOPICS

_HOLDS_WORDS: Final = frozenset({"BatchLine", "Job", "Reply", "BatchResult", "AuditRecord", "the record as it came"})


class ErasureAsked(BaseModel):
    """Whose: a user (as keys and identity providers name them) or a key."""

    user: str | None = Field(default=None, min_length=1, max_length=512)
    key: str | None = Field(default=None, min_length=1, max_length=128)
    reason: str = Field(default="", max_length=1024)

    @model_validator(mode="after")
    def _is_one(self) -> Self:
        if (self.user is None) == (self.key is None):
            raise ValueError("say either user or key")
        return self

    @property
    def subject(self) -> str:
        """A digest: a certificate must not keep what it says is gone."""
        named = f"key/{self.key}" if self.key else f"user/{self.user}"
        return f"sha256:{hashlib.sha256(named.encode()).hexdigest()}"

    def covers(self, caller: Caller) -> bool:
        """True for what this caller asked."""
        return caller.key_id == self.key if self.key else self.user in (caller.user, caller.identity)

    def condition(self) -> str:
        """The same in SQL, of tables with columns for it."""
        if self.key:
            return f"key_id = {quoted(self.key)}"
        return f"(user = {quoted(self.user or '')} OR identity = {quoted(self.user or '')})"


class LogEnd(BaseModel):
    """Until when a topic may still hold some of it (unix milliseconds)."""

    topic: str
    until_ms: int


class Erasure(BaseModel):
    """A certificate: `counts` by store; `done_ms` 0 while it goes on; `failed`: what stopped it; `logs`: what time erases."""

    id: str
    object: Literal["erasure"] = "erasure"
    subject: str
    actor: str
    reason: str
    asked_ms: int
    done_ms: int = 0
    steps: list[str] = []
    counts: dict[str, int] = {}
    jobs: int = 0
    failed: str = ""
    logs: list[LogEnd] = []

    @property
    def log_until_ms(self) -> int:
        return max((one.until_ms for one in self.logs), default=self.asked_ms)


def log_ends(now_ms: int) -> list[LogEnd]:
    """When Kafka has dropped what stood in its topics by then."""
    return [
        LogEnd(topic=topic.name, until_ms=now_ms + topic.retention_ms)
        for topic in TOPICS
        if topic.payload in _HOLDS_WORDS and topic.retention_ms > 0
    ]


def quoted(text: str) -> str:
    """A string literal of ClickHouse: ALTER takes no parameters."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
