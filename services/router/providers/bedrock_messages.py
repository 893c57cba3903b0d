"""From the messages of a chat to Converse's: system blocks, and turns of blocks. Pure."""

import re
from collections.abc import Iterable, Iterator

from pydantic import JsonValue

from schemas.base import JsonObject
from services.router.providers.bedrock_models import Traits
from services.router.providers.chat import (
    DATA_URL,
    JSON_ONLY,
    Chat,
    ChatMessage,
    ContentPart,
    FileData,
    ToolCall,
    answered_call,
    arguments,
    only_text,
    refusal,
    untakeable,
)
from services.router.providers.claude import signed

_IMAGES = {"image/png": "png", "image/jpeg": "jpeg", "image/jpg": "jpeg", "image/gif": "gif", "image/webp": "webp"}
_DOCUMENTS = {
    "application/pdf": "pdf",
    "text/csv": "csv",
    "application/msword": "doc",
    "application/vnd.openxmlformats-officedocument.wordprocessingml.document": "docx",
    "application/vnd.ms-excel": "xls",
    "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet": "xlsx",
    "text/html": "html",
    "text/plain": "txt",
    "text/markdown": "md",
}
_NOT_IN_IDS = re.compile(r"[^a-zA-Z0-9_.:-]")
_NOT_IN_TITLES = re.compile(r"[^a-zA-Z0-9()\[\]-]+")


def system_blocks(chat: Chat, traits: Traits) -> list[JsonObject]:
    """All that isn't said by user, assistant or tool, wherever it stands."""
    blocks: list[JsonObject] = []
    for index, message in enumerate(chat.messages):
        if message.role in ("system", "developer"):
            blocks += marked(message.cache_control, _blocks(message, traits, f"messages[{index}]", texts_only=True), traits)
    if chat.response_format and chat.response_format.type == "json_object":
        blocks.append({"text": JSON_ONLY})
    return blocks


def turns_of(chat: Chat, traits: Traits) -> list[JsonObject]:
    """The messages. Bedrock wants user and assistant by turns: what one side says in a row is one message."""
    turns: list[tuple[str, list[JsonObject]]] = []
    for index, message in enumerate(chat.messages):
        if message.role in ("system", "developer"):
            continue
        side = "assistant" if message.role == "assistant" else "user"
        blocks = _said(message, traits, f"messages[{index}]")
        if turns and turns[-1][0] == side:
            turns[-1][1].extend(blocks)
        elif blocks:
            turns.append((side, blocks))
    if turns and turns[-1][0] == "assistant" and isinstance(text := turns[-1][1][-1].get("text"), str):
        # What it is to go on with must not end in white space.
        turns[-1][1][-1] = {"text": text.rstrip()}
    return [{"role": side, "content": [*blocks]} for side, blocks in turns]


def _said(message: ChatMessage, traits: Traits, where: str) -> list[JsonObject]:
    match message.role:
        case "tool":
            return _result(message, traits, where)
        case "assistant":
            thoughts = _thoughts(message) if traits.claude else ()
            calls = (_call(call, f"{where}.tool_calls[{number}]") for number, call in enumerate(message.tool_calls))
            return marked(message.cache_control, (*thoughts, *_blocks(message, traits, where), *calls), traits)
        case _:
            return marked(message.cache_control, _blocks(message, traits, where), traits)


def _thoughts(message: ChatMessage) -> Iterator[JsonObject]:
    for block in signed(message.thinking_blocks):
        if block["type"] == "thinking":
            yield {"reasoningContent": {"reasoningText": {"text": block["thinking"], "signature": block["signature"]}}}
        else:
            yield {"reasoningContent": {"redactedContent": block["data"]}}


def _call(call: ToolCall, where: str) -> JsonObject:
    return {"toolUse": {"toolUseId": _id(call.id), "name": call.function.name, "input": arguments(call, where)}}


def _result(message: ChatMessage, traits: Traits, where: str) -> list[JsonObject]:
    call_id = _id(answered_call(message, where))
    blocks = _blocks(message, traits, where)
    content: list[JsonValue] = [block for block in blocks if "cachePoint" not in block]
    result: JsonObject = {"toolUseId": call_id, "content": content or [{"text": "(empty)"}]}
    # A cache point stands beside a result, never in it.
    marks = [part.cache_control for part in message.content if part.cache_control]
    return marked(message.cache_control or (marks[-1] if marks else None), [{"toolResult": result}], traits)


def _blocks(message: ChatMessage, traits: Traits, where: str, *, texts_only: bool = False) -> list[JsonObject]:
    """The content, with a cache point after each part that is to be cached."""
    blocks: list[JsonObject] = []
    for index, part in enumerate(message.content):
        place = f"{where}.content[{index}]"
        if texts_only:
            only_text(message, part, place)
        if (block := _block(part, place)) is not None:
            blocks += marked(part.cache_control, [block], traits)
    return blocks


def _block(part: ContentPart, place: str) -> JsonObject | None:
    """None for a blank text."""
    match part:
        case ContentPart(type="text", text=str(text)) | ContentPart(type="refusal", refusal=str(text)):
            return {"text": text} if text.strip() else None
        case ContentPart(type="image_url", image_url=image) if image is not None:
            return {"image": _image(image.url, f"{place}.image_url.url")}
        case ContentPart(type="file", file=file) if file is not None:
            return {"document": _document(file, f"{place}.file.file_data")}
        case _:
            raise untakeable(part, place)


def _image(url: str, where: str) -> JsonObject:
    found = DATA_URL.fullmatch(url)
    if found is None:
        raise refusal(
            f"'{where}': the model that is to answer can't fetch images: send it as a data URL (data:image/png;base64,…).", where
        )
    if (kind := _IMAGES.get(found[1])) is None:
        raise refusal(f"'{where}' must be a PNG, JPEG, GIF or WebP image.", where)
    return {"format": kind, "source": {"bytes": found[2]}}


def _document(file: FileData, where: str) -> JsonObject:
    found = DATA_URL.fullmatch(file.file_data or "")
    if found is None or (kind := _DOCUMENTS.get(found[1])) is None:
        kinds = ", ".join(_DOCUMENTS.values())
        raise refusal(f"'{where}' must be a data URL with base64, of one of: {kinds}.", where)
    name = file.filename or ""
    title = _NOT_IN_TITLES.sub(" ", name.rpartition(".")[0] or name).strip()
    return {"format": kind, "name": title[:200] or "document", "source": {"bytes": found[2]}}


def marked(control: JsonObject | None, blocks: Iterable[JsonObject], traits: Traits) -> list[JsonObject]:
    """The blocks, with a cache point after them if they are to be cached and the model can."""
    found = [*blocks]
    if not control or not found or traits.caches == "nothing":
        return found
    ttl = control.get("ttl") if traits.caches == "hours" else None
    return [*found, {"cachePoint": {"type": "default", "ttl": ttl} if ttl else {"type": "default"}}]


def _id(given: str) -> str:
    """Others name calls as they like; Bedrock doesn't take every character."""
    return _NOT_IN_IDS.sub("_", given)[:64]
