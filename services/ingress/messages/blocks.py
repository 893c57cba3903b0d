"""The content of a message while it grows: thinking, texts, and uses of tools. Pure."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field

from pydantic import JsonValue
from pydantic_core import from_json

from schemas.base import JsonObject


@dataclass(slots=True)
class Block(ABC):
    """A block, and the pieces it came in, of which `said` were told. `whole`: nothing of it is missing, should another begin."""

    pieces: list[str] = field(default_factory=list[str])
    said: int = 0
    begun: bool = False

    @property
    def text(self) -> str:
        return "".join(self.pieces)

    @property
    def whole(self) -> bool:
        return True

    @abstractmethod
    def told(self, *, empty: bool = False) -> JsonObject:
        """The block as of now; `empty`: as it begins."""

    @abstractmethod
    def delta(self, piece: str) -> JsonObject: ...

    def ending(self) -> JsonObject | None:
        """A last delta, when all of its pieces are told."""
        return None


@dataclass(slots=True)
class Written(Block):
    """A text."""

    def told(self, *, empty: bool = False) -> JsonObject:
        return {"type": "text", "text": "" if empty else self.text}

    def delta(self, piece: str) -> JsonObject:
        return {"type": "text_delta", "text": piece}


@dataclass(slots=True)
class Thinking(Block):
    """Thinking. When it is `over`, signed by its provider or not, nothing is added to it."""

    signature: str = ""
    over: bool = False

    def told(self, *, empty: bool = False) -> JsonObject:
        told = ("", "") if empty else (self.text, self.signature)
        return {"type": "thinking", "thinking": told[0], "signature": told[1]}

    def delta(self, piece: str) -> JsonObject:
        return {"type": "thinking_delta", "thinking": piece}

    def ending(self) -> JsonObject | None:
        return {"type": "signature_delta", "signature": self.signature} if self.signature else None


@dataclass(slots=True)
class Redacted(Block):
    """Thinking that only its provider can read. It comes in one piece."""

    data: str = ""

    def told(self, *, empty: bool = False) -> JsonObject:
        return {"type": "redacted_thinking", "data": self.data}

    def delta(self, piece: str) -> JsonObject:
        raise NotImplementedError


@dataclass(slots=True)
class Use(Block):
    """A use of one of the caller's tools; its text is the JSON of the input."""

    id: str = ""
    name: str = ""

    @property
    def whole(self) -> bool:
        try:
            from_json(self.text)
        except ValueError:
            return False
        return True

    def told(self, *, empty: bool = False) -> JsonObject:
        return {"type": "tool_use", "id": self.id, "name": self.name, "input": {} if empty else _input(self.text)}

    def delta(self, piece: str) -> JsonObject:
        return {"type": "input_json_delta", "partial_json": piece}


def _input(text: str) -> JsonObject:
    """As Anthropic's SDKs read it: what was cut off is left out. What is no object is told as Anthropic's guide to tools does."""
    try:
        found: JsonValue = from_json(text, allow_partial=True) if text else {}
    except ValueError:
        found = None
    return found if isinstance(found, dict) else {"INVALID_JSON": text}
