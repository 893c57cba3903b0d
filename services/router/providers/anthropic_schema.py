"""JSON Schemas as Anthropic's structured outputs take them: a narrower set than OpenAI's. Pure.

What it can't enforce (bounds, lengths, patterns) is told to the model in the description instead, as Anthropic's own SDK does.
"""

from pydantic import JsonValue
from pydantic_core import to_json

from schemas.base import JsonObject

_PLAIN = frozenset({"type", "enum", "const", "$ref", "description", "title", "required", "default", "additionalProperties"})
_MANY = frozenset({"properties", "$defs", "definitions"})
_LISTS = {"anyOf": "anyOf", "oneOf": "anyOf", "allOf": "allOf"}
_FORMATS = frozenset(
    {"date-time", "time", "date", "duration", "email", "hostname", "uri", "ipv4", "ipv6", "uuid"},
)


def narrowed(schema: JsonObject) -> JsonObject:
    """The schema without what Anthropic refuses. Objects are closed: open ones aren't taken."""
    kept: JsonObject = {}
    told: list[str] = []
    for name, value in schema.items():
        if name in _PLAIN or (name == "format" and value in _FORMATS) or (name == "minItems" and value in (0, 1)):
            kept[name] = value
        elif name in _MANY and isinstance(value, dict):
            kept[name] = {key: _narrowed(child) for key, child in value.items()}
        elif name in _LISTS and isinstance(value, list):
            kept[_LISTS[name]] = [_narrowed(child) for child in value]
        elif name == "items":
            kept[name] = _narrowed(value)
        elif not name.startswith("$"):
            told.append(f"{name}: {to_json(value).decode()}")
    if schema.get("type") == "object" or "properties" in schema:
        kept["additionalProperties"] = False
    if told:
        said = schema.get("description")
        kept["description"] = "\n\n".join([*([said] if isinstance(said, str) else []), "{" + ", ".join(told) + "}"])
    return kept


def _narrowed(value: JsonValue) -> JsonValue:
    return narrowed(value) if isinstance(value, dict) else value
