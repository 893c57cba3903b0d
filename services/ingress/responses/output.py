"""The output of a response while it grows: messages, reasoning, and calls of functions. Pure."""

from dataclasses import dataclass, field
from typing import Literal

from schemas.base import JsonObject
from services.ingress.chunks import TextKind

ItemStatus = Literal["in_progress", "completed", "incomplete"]


@dataclass(slots=True)
class Content:
    """A part of an item's content."""

    kind: TextKind
    text: str = ""

    @property
    def member(self) -> str:
        """Where the text stands in a part, and in the event that tells it whole."""
        return "refusal" if self.kind == "refusal" else "text"

    @property
    def event(self) -> str:
        """What the events of this part are called."""
        return f"response.{self.kind}"

    def told(self) -> JsonObject:
        told: JsonObject = {"type": self.kind, self.member: self.text}
        return told | {"annotations": [], "logprobs": []} if self.kind == "output_text" else told


@dataclass(slots=True)
class Written:
    """A message, or reasoning: text in parts."""

    id: str
    index: int
    kind: Literal["message", "reasoning"]
    parts: list[Content] = field(default_factory=list[Content])
    status: ItemStatus = "in_progress"

    def told(self) -> JsonObject:
        told: JsonObject = {"id": self.id, "type": self.kind, "status": self.status}
        content: JsonObject = {"content": [part.told() for part in self.parts]}
        return told | ({"role": "assistant"} if self.kind == "message" else {"summary": []}) | content


@dataclass(slots=True)
class Call:
    """A call of one of the caller's functions."""

    id: str
    index: int
    call_id: str
    name: str
    arguments: str = ""
    status: ItemStatus = "in_progress"

    def told(self) -> JsonObject:
        return {
            "id": self.id,
            "type": "function_call",
            "status": self.status,
            "call_id": self.call_id,
            "name": self.name,
            "arguments": self.arguments,
        }


Item = Written | Call
