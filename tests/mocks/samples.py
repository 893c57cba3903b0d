"""A value that fits a JSON schema, the same one in each mock that asks here."""

from collections.abc import Mapping

from pydantic import JsonValue

_SAMPLES: Mapping[JsonValue, JsonValue] = {"string": "Paris", "integer": 7, "number": 1.5, "boolean": True}


def sample(schema: JsonValue, root: Mapping[str, JsonValue] | None = None) -> JsonValue:
    """The plainest value that fits, as far as SDKs write schemas: the first of a choice, all members of an object."""
    if not isinstance(schema, dict):
        return None
    root = root or schema
    match schema:
        case {"$ref": str(path)}:
            found: JsonValue = {**root}
            for name in path.removeprefix("#/").split("/"):
                found = found[name] if isinstance(found, dict) else None
            return sample(found, root)
        case {"enum": [first, *_]} | {"const": first}:
            return first
        case {"anyOf": [first, *_]} | {"allOf": [first, *_]}:
            return sample(first, root)
        case {"type": "object", "properties": dict(members)}:
            return {name: sample(member, root) for name, member in members.items()}
        case {"type": "object"}:
            return {}
        case {"type": "array"}:
            return [sample(schema.get("items"), root)]
        case _:
            return _SAMPLES.get(str(schema.get("type")))
