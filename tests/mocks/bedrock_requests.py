"""What Bedrock takes: AWS's own model of its API (botocore's data), and the rules that only the service knows."""

import base64
import binascii
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import pairwise
from typing import Protocol, cast

from botocore.loaders import Loader
from botocore.model import ServiceModel
from botocore.validate import ParamValidator

from schemas.base import JsonObject
from tests.mocks.aws_signature import Refusal


class _Shape(Protocol):
    """A shape of the model; `metadata` holds its constraints. Only structures have members, only lists a member."""

    type_name: str
    is_document_type: bool
    metadata: Mapping[str, object]
    members: "Mapping[str, _Shape]"
    member: "_Shape"


class _Report(Protocol):
    def has_errors(self) -> bool: ...
    def generate_report(self) -> str: ...


class _Validator(Protocol):
    def validate(self, params: JsonObject, shape: _Shape) -> _Report: ...


class _Operation(Protocol):
    input_shape: _Shape


class _Model(Protocol):
    def operation_model(self, operation_name: str) -> _Operation: ...


class _Loader(Protocol):
    def load_service_model(self, service_name: str, type_name: str) -> Mapping[str, object]: ...


def check(operation: str, model: str, body: JsonObject) -> None:
    """Raises Refusal unless AWS's model of the API allows this request, and Bedrock's own rules do."""
    shape = _model().operation_model(operation).input_shape
    report = cast("_Validator", ParamValidator()).validate({**body, "modelId": model}, shape)
    if report.has_errors():
        raise invalid(report.generate_report())
    for problem in (*_beyond(shape, body, ""), *_unwritten(body)):
        raise invalid(problem)


def invalid(message: str) -> Refusal:
    return Refusal(400, "ValidationException", message)


@lru_cache(maxsize=1)
def _model() -> _Model:
    return cast("_Model", ServiceModel(cast("_Loader", Loader()).load_service_model("bedrock-runtime", "service-2")))


def _beyond(shape: _Shape, value: object, at: str) -> Iterator[str]:
    """What botocore leaves to the server: enums, patterns, lengths, blobs in base64."""
    match shape.type_name, value:
        case "structure", dict() if not shape.is_document_type:
            for name, inner in cast("JsonObject", value).items():
                yield from _beyond(shape.members[name], inner, f"{at}.{name}")
        case "list", list():
            for index, inner in enumerate(cast("list[object]", value)):
                yield from _beyond(shape.member, inner, f"{at}[{index}]")
        case "string", str() if not _fits(value, shape.metadata):
            yield f"{at}: '{value}' fails to satisfy its constraint"
        case "blob", str() if not _is_base64(value):
            yield f"{at} is no base64"
        case "float" | "integer", int() | float() if value > cast("float", shape.metadata.get("max", value)):
            yield f"{at}: {value} is too much"
        case _:
            pass


def _fits(text: str, constraint: Mapping[str, object]) -> bool:
    known = text in cast("Sequence[str]", constraint.get("enum", [text]))
    short = len(text) <= cast("int", constraint.get("max", len(text)))
    return known and short and re.fullmatch(str(constraint.get("pattern", ".*")), text, re.DOTALL) is not None


def _is_base64(text: str) -> bool:
    try:
        return bool(base64.b64decode(text, validate=True))
    except binascii.Error:
        return False


def _unwritten(body: JsonObject) -> Iterator[str]:
    messages = cast("list[JsonObject]", body.get("messages") or [])
    roles = [message["role"] for message in messages]
    if roles[:1] != ["user"]:
        yield "A conversation must start with a user message. Try again with a conversation that starts with a user message."
    if any(a == b for a, b in pairwise(roles)):
        yield "roles must alternate between user and assistant"
    blocks = [block for message in messages for block in cast("list[JsonObject]", message["content"])]
    if any(isinstance(text := block.get("text"), str) and not text.strip() for block in blocks):
        yield "The text field in the ContentBlock object is blank. Add text to the text field, and try again."
    if any("toolUse" in block or "toolResult" in block for block in blocks) and "toolConfig" not in body:
        yield "The toolConfig field must be defined when using toolUse and toolResult content blocks."
    yield from _unanswered(messages)


def _unanswered(messages: Sequence[JsonObject]) -> Iterator[str]:
    """The results of all calls of a turn must follow in the next one, and no others."""
    called: set[str] = set()
    for message in messages:
        blocks = cast("list[JsonObject]", message["content"])
        results = {str(cast("JsonObject", block["toolResult"])["toolUseId"]) for block in blocks if "toolResult" in block}
        if results != called:
            yield "The number of toolResult blocks must be that of the toolUse blocks of the previous turn."
        called = {str(cast("JsonObject", block["toolUse"])["toolUseId"]) for block in blocks if "toolUse" in block}
