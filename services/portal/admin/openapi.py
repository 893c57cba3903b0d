"""/admin/v1/openapi.json: made of the operations, so that it can't lag behind them."""

import re
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from typing import Literal, cast

from pydantic import BaseModel, JsonValue
from pydantic.json_schema import models_json_schema

from schemas.base import JsonObject
from services.portal.admin.wire import Endpoints, Operation

_PARAMETER = re.compile(r"{(\w+)(?::path)?}")
_SCHEMAS = "#/components/schemas/"
_IF_MATCH: JsonObject = {
    "name": "If-Match",
    "in": "header",
    "schema": {"type": "string"},
    "description": "the ETag of the version that is to be changed; if another stands, the answer is 412",
}
_ERROR: JsonObject = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "code": {"type": ["string", "null"]},
            },
        },
    },
}


def openapi(prefix: str, operations: Endpoints) -> JsonObject:
    """The OpenAPI 3.1 document of these operations."""
    queries = {one.takes for one in operations if one.takes and not _has_body(one)}
    bodies = {one.takes for one in operations if one.takes and _has_body(one)} | {one.gives for one in operations if one.gives}
    schemas = _Schemas(bodies | queries)
    paths: dict[str, JsonObject] = {}
    for one in operations:
        path = prefix + _PARAMETER.sub(r"{\1}", one.path)
        paths.setdefault(path, {})[one.method.lower()] = _operation(one, schemas)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Sluice: administration",
            "version": version("sluice"),
            "description": (
                "The admin key, an operator's credential or an identity token as bearer. What belongs to a team that "
                "isn't one's own isn't there (404); what one may see but not do is refused (403)."
            ),
        },
        "paths": {**paths},
        "components": {
            "schemas": {**schemas.without(queries - bodies), "Error": _ERROR},
            "securitySchemes": {"credential": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{"credential": []}],
    }


class _Schemas:
    """The schemas of models and of all that they are made of. Two models may have the same name."""

    def __init__(self, models: Iterable[type[BaseModel]]) -> None:
        ordered = sorted(models, key=lambda model: (model.__name__, model.__module__))
        asked: list[tuple[type[BaseModel], Literal["validation"]]] = [(model, "validation") for model in ordered]
        references, schema = models_json_schema(asked, ref_template=f"{_SCHEMAS}{{model}}")
        self._references = {model: cast("JsonObject", found) for (model, _), found in references.items()}
        self._definitions = cast("dict[str, JsonObject]", schema["$defs"])

    def reference(self, model: type[BaseModel]) -> JsonObject:
        """Where the schema of a model stands."""
        return self._references[model]

    def definition(self, model: type[BaseModel]) -> JsonObject:
        """The schema of a model itself."""
        return self._definitions[self._name(model)]

    def without(self, models: Iterable[type[BaseModel]]) -> Mapping[str, JsonObject]:
        """All of them but for these."""
        left_out = {self._name(model) for model in models}
        return {name: schema for name, schema in self._definitions.items() if name not in left_out}

    def _name(self, model: type[BaseModel]) -> str:
        return str(self._references[model]["$ref"]).removeprefix(_SCHEMAS)


def _operation(one: Operation, schemas: _Schemas) -> JsonObject:
    parameters: list[JsonObject] = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in _PARAMETER.findall(one.path)
    ]
    told: JsonObject = {"summary": one.summary, "responses": dict(_responses(one, schemas))}
    if one.takes and _has_body(one):
        told["requestBody"] = {"required": True, "content": _body(one.method, one.takes, schemas)}
    elif one.takes:
        parameters += _query(schemas.definition(one.takes))
    if one.method in ("PUT", "PATCH", "DELETE"):
        parameters.append(_IF_MATCH)
    if parameters:
        told["parameters"] = [*parameters]
    return told


def _body(method: str, model: type[BaseModel], schemas: _Schemas) -> JsonObject:
    """Of a patch every member may be left out."""
    if method != "PATCH":
        return {"application/json": {"schema": schemas.reference(model)}}
    members = {name: value for name, value in schemas.definition(model).items() if name != "required"}
    return {"application/merge-patch+json": {"schema": members}}


def _responses(one: Operation, schemas: _Schemas) -> Iterable[tuple[str, JsonValue]]:
    good: JsonObject = {"description": "OK"}
    if one.gives:
        reference = schemas.reference(one.gives)
        good["content"] = {"application/json": {"schema": _page_of(reference) if one.many else reference}}
    yield str(one.status), good
    yield "default", {"description": "An error", "content": {"application/json": {"schema": {"$ref": f"{_SCHEMAS}Error"}}}}


def _query(schema: JsonObject) -> Iterable[JsonObject]:
    members = cast("dict[str, JsonObject]", schema.get("properties", {}))
    for name, member in members.items():
        yield {"name": name, "in": "query", "schema": member}


def _page_of(reference: JsonObject) -> JsonObject:
    return {
        "type": "object",
        "required": ["object", "data", "has_more", "last_id"],
        "properties": {
            "object": {"const": "list"},
            "data": {"type": "array", "items": reference},
            "has_more": {"type": "boolean"},
            "last_id": {"type": ["string", "null"]},
        },
    }


def _has_body(one: Operation) -> bool:
    return one.method in ("POST", "PUT", "PATCH")
