"""What every message of ours has in common."""

from typing import ClassVar

from pydantic import BaseModel, ConfigDict, JsonValue

JsonObject = dict[str, JsonValue]
"""A JSON object whose members belong to somebody else (a provider, a caller) and are passed on as they came."""


class Message(BaseModel):
    """A message of ours on Kafka.

    Readers ignore members they don't know, so that old consumers read new messages in every rolling deploy; within a
    version members are only added, with a default (HOUSE.md 3f). `TYPE` is the CloudEvents `type` of the record.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)

    TYPE: ClassVar[str]


class Part(BaseModel):
    """A part of a message: frozen, lenient to what it doesn't know."""

    model_config = ConfigDict(extra="ignore", frozen=True)
