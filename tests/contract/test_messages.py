"""Messages are understood by yesterday's and tomorrow's readers."""

import importlib
import json
import pkgutil
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import cast

import pytest
from jsonschema import Draft202012Validator
from jsonschema.protocols import Validator
from pydantic import JsonValue, TypeAdapter

import schemas
from schemas.base import JsonObject, Message
from schemas.control import RESOURCE, Organization
from schemas.publish import FOLDER, MESSAGES, publish, text_of
from schemas.publish import schemas as published
from tests.contract.examples import EXAMPLES, RECORDED

OBJECT: TypeAdapter[JsonObject] = TypeAdapter(JsonObject)
FREE = ("body", "metadata", "actions", "payload", "facts", "wanted", "before", "after", "slos", "since_ms", "tiers", "regions")
"""Members that hold somebody else's names."""

READERS: dict[str, TypeAdapter[Message]] = {message.TYPE: TypeAdapter(cast("type[Message]", message)) for message in MESSAGES} | {
    Organization.TYPE: cast("TypeAdapter[Message]", RESOURCE)
}


def recorded() -> list[Path]:
    return sorted(RECORDED.glob("v*/*/*.json"))


def test_the_published_schemas_are_those_of_todays_models() -> None:
    """If this fails: `python -m schemas.publish`, and look at the difference as your readers will."""
    files = {path.stem: path.read_text() for path in FOLDER.glob("*.json")}
    assert files == {name: text_of(schema) for name, schema in published().items()}


def test_publishing_writes_these_files_and_removes_what_is_no_more(tmp_path: Path) -> None:
    (tmp_path / "io.sluice.old.v1.json").write_text("{}")
    publish(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {path.name for path in FOLDER.iterdir()}


def test_every_message_is_published() -> None:
    for module in pkgutil.walk_packages(schemas.__path__, "schemas."):
        importlib.import_module(module.name)
    types = {message.TYPE for message in subclasses(Message) if message.__module__.startswith("schemas.")}
    assert types == published().keys() == READERS.keys()


def subclasses(message: type[Message]) -> Iterator[type[Message]]:
    for subclass in message.__subclasses__():
        yield subclass
        yield from subclasses(subclass)


def test_every_type_has_a_recording() -> None:
    assert {path.parent.name for path in recorded()} == READERS.keys()


@pytest.mark.parametrize("path", recorded(), ids=lambda path: f"{path.parent.parent.name} {path.stem}")
def test_what_was_recorded_is_read_today_and_loses_nothing(path: Path) -> None:
    written = OBJECT.validate_json(path.read_text())
    read = READERS[path.parent.name].validate_python(written)
    assert missing(written, OBJECT.validate_json(read.model_dump_json())) == []


@pytest.mark.parametrize("path", recorded(), ids=lambda path: f"{path.parent.parent.name} {path.stem}")
def test_members_of_tomorrow_are_ignored_at_every_depth(path: Path) -> None:
    written = OBJECT.validate_json(path.read_text())
    reader = READERS[path.parent.name]
    assert reader.validate_python(with_strangers(written)) == reader.validate_python(written)


SENT_WHOLE = ("io.sluice.reply.v1", "io.sluice.control.v1", "io.sluice.ended.v1")
"""Their kinds are defaults."""

SENT = [
    (name, short) for name, message in EXAMPLES.items() for short in (False, True) if not short or message.TYPE not in SENT_WHOLE
]


@cache
def validators() -> Mapping[str, Validator]:
    """By type. To see that a schema is one takes longer than to see that a message is of it."""
    found = published()
    for schema in found.values():
        Draft202012Validator.check_schema(schema)
    return {name: Draft202012Validator(schema) for name, schema in found.items()}


@pytest.mark.parametrize(("name", "exclude_defaults"), SENT)
def test_todays_messages_are_what_is_published(name: str, exclude_defaults: bool) -> None:
    message = EXAMPLES[name]
    written = OBJECT.validate_json(message.model_dump_json(exclude_defaults=exclude_defaults))
    validators()[message.TYPE].validate(written)
    assert READERS[message.TYPE].validate_python(written) == message


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_message_without_what_it_must_have_is_none(name: str) -> None:
    message = EXAMPLES[name]
    required = [member for member, field in type(message).model_fields.items() if field.is_required()]
    for member in required:
        written = OBJECT.validate_json(message.model_dump_json())
        del written[member]
        with pytest.raises(ValueError, match=member):
            READERS[message.TYPE].validate_python(written)


def missing(written: JsonValue, read: JsonValue, where: str = "") -> list[str]:
    """What of `written` isn't in `read`."""
    match written, read:
        case dict(), dict():
            return [
                line
                for member, value in written.items()
                for line in (missing(value, read[member], f"{where}.{member}") if member in read else [f"{where}.{member}"])
            ]
        case list(), list() if len(written) == len(read):
            return [line for n, value in enumerate(written) for line in missing(value, read[n], f"{where}[{n}]")]
        case _:
            return [] if written == read else [f"{where}: {json.dumps(written)} became {json.dumps(read)}"]


def with_strangers(value: JsonValue) -> JsonValue:
    """The same message with a member that nobody knows yet in each of our objects."""
    match value:
        case dict():
            own: JsonObject = {name: member if name in FREE else with_strangers(member) for name, member in value.items()}
            own["of_tomorrow"] = {"a": [1]}
            return own
        case list():
            return [with_strangers(member) for member in value]
        case _:
            return value
