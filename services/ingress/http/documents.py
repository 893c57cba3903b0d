"""/openapi.json and /asyncapi.json: generated from the schemas, so that they can't lag behind the code."""

import re
from dataclasses import dataclass
from functools import cache

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema
from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response

from schemas.anthropic.models import TokenCount
from schemas.anthropic.requests import MessagesRequest, Prompt
from schemas.base import JsonObject
from schemas.batch import BatchLine, BatchOrder, BatchResult
from schemas.cancel import Cancel
from schemas.completion import Completion
from schemas.job import Job
from schemas.openai.answers import ModelCard, ModelList
from schemas.openai.requests import ChatRequest, CompletionRequest, EmbeddingRequest, ModerationRequest
from schemas.reply import Reply
from schemas.topics import TOPICS, Delay, Lane, Topic
from schemas.webhook import WebhookDelivery
from services.ingress.http.feedback import FeedbackRequest

_VERSION = "0.1.0"
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


_PARAMETERS: dict[str, JsonObject] = {
    "lane": {"enum": [lane.value for lane in Lane]},
    "delay": {"enum": [delay.value for delay in Delay]},
    "team": {"description": "the team's name"},
}


@dataclass(frozen=True, slots=True)
class Operation:
    """An endpoint as the document tells of it."""

    method: str
    path: str
    summary: str
    request: type[BaseModel] | None = None
    answer: type[BaseModel] | None = None
    public: bool = False


OPERATIONS: tuple[Operation, ...] = (
    Operation("post", "/v1/chat/completions", "A chat completion, plain or streamed", ChatRequest),
    Operation("post", "/v1/completions", "A text that goes on, plain or streamed", CompletionRequest),
    Operation("post", "/v1/embeddings", "Embeddings of texts", EmbeddingRequest),
    Operation("post", "/v1/moderations", "Whether texts or images are harmful", ModerationRequest),
    Operation("post", "/v1/messages", "A message, plain or streamed, in Anthropic's words", MessagesRequest),
    Operation("post", "/v1/messages/count_tokens", "About how many tokens a message's prompt has", Prompt, TokenCount),
    Operation("get", "/v1/models", "The models that the key may use", answer=ModelList),
    Operation("get", "/v1/models/{model}", "One model", answer=ModelCard),
    Operation("get", "/v1/jobs", "The team's asynchronous jobs, the youngest first"),
    Operation("get", "/v1/jobs/{id}", "A job: its status, and its result when it has ended"),
    Operation("delete", "/v1/jobs/{id}", "Cancel a job"),
    Operation("get", "/v1/jobs/{id}/events", "A job's events as server-sent events, from behind `Last-Event-ID` on"),
    Operation("post", "/v1/files", "Upload a file (multipart)"),
    Operation("get", "/v1/files", "The team's files"),
    Operation("get", "/v1/files/{id}", "A file"),
    Operation("get", "/v1/files/{id}/content", "What is in a file"),
    Operation("delete", "/v1/files/{id}", "Delete a file"),
    Operation("post", "/v1/batches", "Run the lines of a file in the batch lane"),
    Operation("get", "/v1/batches", "The team's batches"),
    Operation("get", "/v1/batches/{id}", "A batch"),
    Operation("post", "/v1/batches/{id}/cancel", "Cancel a batch"),
    Operation("post", "/v1/responses", "A response: whole, streamed, or in the background"),
    Operation("get", "/v1/responses/{id}", "A response, or its events from behind `starting_after` on"),
    Operation("delete", "/v1/responses/{id}", "Delete a response"),
    Operation("post", "/v1/responses/{id}/cancel", "Cancel a response that runs in the background"),
    Operation("get", "/v1/responses/{id}/input_items", "What a response was asked"),
    Operation("post", "/v1/job_tokens", "A short-lived token for the Kafka door"),
    Operation("post", "/v1/feedback", "What somebody thinks of an answer", FeedbackRequest),
    Operation("get", "/healthz", "Is the process alive", public=True),
    Operation("get", "/readyz", "Is it ready, and if not, why", public=True),
    Operation("get", "/metrics", "Metrics for Prometheus", public=True),
    Operation("get", "/openapi.json", "This document", public=True),
    Operation("get", "/asyncapi.json", "The topics and their messages", public=True),
)
_MESSAGES: tuple[type[BaseModel], ...] = (
    BatchLine,
    BatchResult,
    BatchOrder,
    Job,
    Reply,
    Completion,
    Cancel,
    WebhookDelivery,
)


async def openapi_json(_: HttpRequest) -> Response:
    return JSONResponse(openapi())


async def asyncapi_json(_: HttpRequest) -> Response:
    return JSONResponse(asyncapi())


@cache
def openapi() -> JsonObject:
    """The OpenAPI 3.1 document of the public HTTP interface."""
    models = sorted({m for o in OPERATIONS for m in (o.request, o.answer) if m}, key=lambda model: model.__name__)
    paths: dict[str, JsonObject] = {}
    for operation in OPERATIONS:
        paths.setdefault(operation.path, {})[operation.method] = _operation(operation)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Sluice", "version": _VERSION, "description": "An event-driven LLM gateway"},
        "paths": {**paths},
        "components": {
            "schemas": {**_definitions(models), "Error": _ERROR},
            "securitySchemes": {"virtualKey": {"type": "http", "scheme": "bearer"}},
        },
    }


@cache
def asyncapi() -> JsonObject:
    """The AsyncAPI 3 document, from the one list of topics."""
    return {
        "asyncapi": "3.0.0",
        "info": {"title": "Sluice", "version": _VERSION},
        "defaultContentType": "application/json",
        "channels": {_channel_id(topic): _channel(topic) for topic in TOPICS},
        "operations": {
            f"{'receive' if topic.name == 'sluice.jobs.{lane}' else 'send'}_{_channel_id(topic)}": {
                "action": "receive" if topic.name == "sluice.jobs.{lane}" else "send",
                "channel": {"$ref": f"#/channels/{_channel_id(topic)}"},
            }
            for topic in TOPICS
            if topic.public
        },
        "components": {
            "messages": {model.__name__: {"payload": {"$ref": f"#/components/schemas/{model.__name__}"}} for model in _MESSAGES},
            "schemas": _definitions(_MESSAGES),
        },
    }


def _operation(operation: Operation) -> JsonObject:
    answer: JsonObject = {"description": "OK"}
    if operation.answer:
        answer["content"] = _content(f"#/components/schemas/{operation.answer.__name__}")
    told: JsonObject = {
        "summary": operation.summary,
        "responses": {
            "200": answer,
            "default": {"description": "An error", "content": _content("#/components/schemas/Error")},
        },
    }
    if named := re.search(r"{(\w+)}", operation.path):
        told["parameters"] = [{"name": named[1], "in": "path", "required": True, "schema": {"type": "string"}}]
    if operation.request:
        told["requestBody"] = {"required": True, "content": _content(f"#/components/schemas/{operation.request.__name__}")}
    if not operation.public:
        told["security"] = [{"virtualKey": []}]
    return told


def _content(reference: str) -> JsonObject:
    return {"application/json": {"schema": {"$ref": reference}}}


def _definitions(models: "tuple[type[BaseModel], ...] | list[type[BaseModel]]") -> JsonObject:
    _, schema = models_json_schema([(model, "validation") for model in models], ref_template="#/components/schemas/{model}")
    return schema["$defs"]


def _channel_id(topic: Topic) -> str:
    return topic.name.removeprefix("sluice.").replace(".", "_").replace("{", "").replace("}", "")


def _channel(topic: Topic) -> JsonObject:
    known = {model.__name__ for model in _MESSAGES}
    channel: JsonObject = {
        "address": topic.name,
        "description": (
            f"{topic.what}. Key: {topic.key}. Written by {', '.join(topic.writers)}; read by {', '.join(topic.readers)}."
        ),
        "bindings": {
            "kafka": {
                "partitions": topic.partitions,
                "topicConfiguration": {
                    "retention.ms": topic.retention_ms,
                    "cleanup.policy": ["compact" if topic.compacted else "delete"],
                },
            },
        },
    }
    if topic.payload in known:
        channel["messages"] = {topic.payload: {"$ref": f"#/components/messages/{topic.payload}"}}
    parameters = [name for name in _PARAMETERS if f"{{{name}}}" in topic.name]
    if parameters:
        channel["parameters"] = {name: _PARAMETERS[name] for name in parameters}
    return channel
