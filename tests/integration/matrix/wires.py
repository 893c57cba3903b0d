"""What reached a provider, read out of its own wire format, so that one check fits all of them."""

import base64
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

Body = Mapping[str, Any]


@dataclass(slots=True)
class Arrived:
    """A request as the provider understood it. `images`: their bytes, or where they lie; `tools`: schemas by name; `calls`: what
    the history says was called; `form`: the schema of the answer; `thinking`: how much is to be thought; `signed`: thoughts of
    before, sent back; `forced`: a tool must be called.
    """

    texts: list[str] = field(default_factory=list[str])
    images: list[bytes | str] = field(default_factory=list[bytes | str])
    tools: dict[str, Body] = field(default_factory=dict[str, Body])
    calls: list[tuple[str, Body]] = field(default_factory=list[tuple[str, Body]])
    results: list[str] = field(default_factory=list[str])
    form: Body | None = None
    thinking: object = None
    signed: list[str] = field(default_factory=list[str])
    forced: bool = False


Reader = Callable[[Body], Arrived]


def openai(body: Body) -> Arrived:
    """OpenAI's, and whoever speaks its API."""
    arrived = Arrived(thinking=_at(body, "reasoning_effort"), forced=_at(body, "tool_choice") not in (None, "auto", "none"))
    for message in _all(body, "messages"):
        content = _at(message, "content")
        parts: list[Any] = [{"type": "text", "text": content}] if isinstance(content, str) else content or []
        texts = [part["text"] for part in parts if part["type"] == "text"]
        (arrived.results if message["role"] == "tool" else arrived.texts).extend(texts)
        arrived.images += [_image(part["image_url"]["url"]) for part in parts if part["type"] == "image_url"]
        calls = [call["function"] for call in _all(message, "tool_calls")]
        arrived.calls += [(call["name"], json.loads(call["arguments"])) for call in calls]
    functions = [tool["function"] for tool in _all(body, "tools")]
    arrived.tools = {function["name"]: function["parameters"] for function in functions}
    arrived.form = _at(body, "response_format", "json_schema", "schema")
    return arrived


def anthropic(body: Body) -> Arrived:
    """Anthropic's Messages."""
    arrived = Arrived(thinking=_at(body, "thinking"), forced=_at(body, "tool_choice", "type") in ("any", "tool"))
    arrived.texts = [block["text"] for block in _all(body, "system")]
    for block in _blocks(body):
        match block["type"]:
            case "text":
                arrived.texts.append(block["text"])
            case "image":
                source = block["source"]
                arrived.images.append(_data(source["data"]) if source["type"] == "base64" else source["url"])
            case "thinking":
                arrived.signed += [block["thinking"]] if block["signature"] else []
            case "tool_use":
                arrived.calls.append((block["name"], block["input"]))
            case "tool_result":
                arrived.results += [part["text"] for part in block["content"]]
            case kind:
                raise AssertionError(kind)
    arrived.tools = {tool["name"]: tool["input_schema"] for tool in _all(body, "tools")}
    arrived.form = _at(body, "output_config", "format", "schema")
    return arrived


def gemini(body: Body) -> Arrived:
    """Google's generateContent."""
    config, mode = _at(body, "generationConfig"), _at(body, "toolConfig", "functionCallingConfig", "mode")
    arrived = Arrived(thinking=_at(config, "thinkingConfig"), form=_at(config, "responseJsonSchema"), forced=mode == "ANY")
    said = (part for content in _all(body, "contents") for part in content["parts"])
    for part in (*_all(body, "systemInstruction", "parts"), *said):
        match [name for name in part if name not in ("thought", "thoughtSignature")]:
            case ["text"]:
                arrived.texts.append(part["text"])
            case ["inlineData"]:
                arrived.images.append(_data(part["inlineData"]["data"]))
            case ["fileData"]:
                arrived.images.append(part["fileData"]["fileUri"])
            case ["functionCall"]:
                arrived.calls.append((part["functionCall"]["name"], part["functionCall"]["args"]))
            case ["functionResponse"]:
                arrived.results += [str(value) for value in part["functionResponse"]["response"].values()]
            case kinds:
                raise AssertionError(kinds)
    functions = [function for tool in _all(body, "tools") for function in tool["functionDeclarations"]]
    arrived.tools = {function["name"]: function["parametersJsonSchema"] for function in functions}
    return arrived


def bedrock(body: Body) -> Arrived:
    """AWS's Converse."""
    arrived = Arrived(thinking=_at(body, "additionalModelRequestFields", "thinking"))
    for block in (*_all(body, "system"), *_blocks(body)):
        ((kind, inner),) = block.items()
        match kind:
            case "text":
                arrived.texts.append(inner)
            case "image":
                arrived.images.append(_data(inner["source"]["bytes"]))
            case "reasoningContent":
                arrived.signed += [inner["reasoningText"]["text"]] if inner["reasoningText"]["signature"] else []
            case "toolUse":
                arrived.calls.append((inner["name"], inner["input"]))
            case "toolResult":
                arrived.results += [part["text"] for part in inner["content"]]
            case _:
                assert kind == "cachePoint"
    specs = [tool["toolSpec"] for tool in _all(body, "toolConfig", "tools") if "toolSpec" in tool]
    arrived.tools = {spec["name"]: spec["inputSchema"]["json"] for spec in specs}
    arrived.forced = bool(_at(body, "toolConfig", "toolChoice"))
    written = _at(body, "outputConfig", "textFormat", "structure", "jsonSchema", "schema")
    # A model that has no such format gives the answer as the input of a tool.
    arrived.form = json.loads(written) if written else arrived.tools.pop("json_answer", None)
    return arrived


def _at(body: Any, *path: str) -> Any:
    """What stands there, or None."""
    for name in path:
        body = body.get(name) if body else None
    return body


def _all(body: Any, *path: str) -> list[Any]:
    return _at(body, *path) or []


def _blocks(body: Body) -> list[Any]:
    return [block for message in _all(body, "messages") for block in message["content"]]


def _image(url: str) -> bytes | str:
    head, _, data = url.partition(";base64,")
    return _data(data) if head.startswith("data:") else url


def _data(text: str) -> bytes:
    return base64.b64decode(text, validate=True)


def leaves(schema: Any) -> set[object]:
    """The values that a schema allows anywhere in it: they show that all of it arrived, whatever its dialect."""
    if isinstance(schema, list):
        return {value for child in cast("list[Any]", schema) for value in leaves(child)}
    if not isinstance(schema, dict):
        return set()
    members = cast("dict[str, Any]", schema)
    return {*members.get("enum", ())}.union(*(leaves(value) for value in members.values()))
