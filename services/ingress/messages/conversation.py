"""From the turns of a conversation to the messages of a chat. Pure."""

from collections.abc import Iterable, Sequence

from pydantic import JsonValue
from pydantic_core import to_json

from schemas.anthropic.requests import (
    AssistantTurn,
    Base64Source,
    BlocksSource,
    Cacheable,
    Document,
    Image,
    Prompt,
    RedactedThinking,
    SearchResult,
    SystemTurn,
    Text,
    TextSource,
    Thinking,
    ToolResult,
    ToolUse,
    UserTurn,
)
from schemas.base import JsonObject
from schemas.errors import InvalidRequest

_PDF = "application/pdf"


def chat_messages(asked: Prompt) -> list[JsonObject]:
    """The messages that say the same. Raises InvalidRequest for what a chat can't say."""
    messages = [_system(asked.system)] if asked.system else []
    for index, turn in enumerate(asked.messages):
        match turn:
            case SystemTurn():
                messages.append(_system(turn.content))
            case AssistantTurn():
                messages.append(_assistant(turn))
            case UserTurn():
                messages += _user(turn, f"messages.{index}.content")
    messages[-1] |= cached(asked)
    return messages


def _system(blocks: Iterable[Text]) -> JsonObject:
    return {"role": "system", "content": _content([_text(block.text, block) for block in blocks])}


def _user(turn: UserTurn, where: str) -> list[JsonObject]:
    """Results of tools come first: a chat wants them right behind the calls. What they show beside text is said by the user."""
    results: list[JsonObject] = []
    said: list[JsonObject] = []
    for index, block in enumerate(turn.content):
        if isinstance(block, ToolResult):
            result, shown = _result(block, f"{where}.{index}")
            results.append(result)
            said += shown
        else:
            said += _parts(block, f"{where}.{index}")
    return [*results, {"role": "user", "content": _content(said)}] if said or not results else results


def _result(block: ToolResult, where: str) -> tuple[JsonObject, list[JsonObject]]:
    """The message of a tool, which is a text, and what it shows that only a user may show in a chat."""
    parts = [part for index, one in enumerate(block.content or ()) for part in _parts(one, f"{where}.content.{index}")]
    text = "\n".join(str(part["text"]) for part in parts if part["type"] == "text")
    shown = [part for part in parts if part["type"] != "text"]
    if shown:
        shown.insert(0, {"type": "text", "text": f"From the result of {block.tool_use_id}:"})
    said = f"Error: {text}" if block.is_error else text
    told: JsonObject = {"role": "tool", "tool_call_id": block.tool_use_id, "content": said}
    marks = [part["cache_control"] for part in parts if "cache_control" in part]
    return told | ({"cache_control": marks[-1]} if marks else {}) | cached(block), shown


def _assistant(turn: AssistantTurn) -> JsonObject:
    """Its thinking goes back to who signed it; to others its text is told."""
    texts: list[JsonObject] = []
    calls: list[JsonValue] = []
    thoughts: list[JsonValue] = []
    message: JsonObject = {"role": "assistant", "content": None}
    for block in turn.content:
        match block:
            case Text():
                texts.append(_text(block.text, block))
            case ToolUse():
                function: JsonObject = {"name": block.name, "arguments": to_json(block.input).decode()}
                calls.append({"id": block.id, "type": "function", "function": function})
                message |= cached(block)
            case Thinking():
                message["reasoning_content"] = f"{message.get('reasoning_content', '')}{block.thinking}"
                if block.signature:
                    thoughts.append(block.model_dump())
            case RedactedThinking():
                thoughts.append(block.model_dump())
    if texts or not calls:
        message["content"] = _content(texts)
    if calls:
        message["tool_calls"] = calls
    if thoughts:
        message["thinking_blocks"] = thoughts
    return message


def _content(parts: Sequence[JsonObject]) -> JsonValue:
    """The parts of a message, or the text if they are no more than one."""
    if not parts:
        return ""
    if len(parts) == 1 and parts[0].keys() == {"type", "text"}:
        return parts[0]["text"]
    return [*parts]


def _parts(block: Text | Image | Document | SearchResult, where: str) -> list[JsonObject]:
    match block:
        case Text():
            return [_text(block.text, block)]
        case Image():
            return [_image(block)]
        case SearchResult():
            return [_text("\n".join([block.title, block.source, *(text.text for text in block.content)]), block)]
        case Document():
            return _document(block, where)


def _document(block: Document, where: str) -> list[JsonObject]:
    about = [_text(text) for text in (block.title, block.context) if text]
    match block.source:
        case TextSource(data=text):
            return [*about, _text(text, block)]
        case BlocksSource(content=blocks):
            inner = [part for one in blocks for part in _parts(one, where)]
            return [*about, *inner[:-1], *({**part, **cached(block)} for part in inner[-1:])]
        case Base64Source(media_type=kind, data=data) if kind == _PDF:
            file: JsonObject = {"filename": block.title or "document.pdf", "file_data": f"data:{kind};base64,{data}"}
            context = [_text(block.context)] if block.context else []
            return [*context, {"type": "file", "file": file, **cached(block)}]
        case Base64Source(media_type=kind):
            raise InvalidRequest(f"Documents are text or {_PDF}, not '{kind[:64]}'", param=f"{where}.source.media_type")


def _image(block: Image) -> JsonObject:
    source = block.source
    url = f"data:{source.media_type};base64,{source.data}" if isinstance(source, Base64Source) else source.url
    return {"type": "image_url", "image_url": {"url": url}, **cached(block)}


def _text(text: str, block: Cacheable | None = None) -> JsonObject:
    return {"type": "text", "text": text, **(cached(block) if block else {})}


def cached(block: Cacheable) -> JsonObject:
    """The mark of a place up to which the prompt may be kept, if there is one."""
    return {} if block.cache_control is None else {"cache_control": block.cache_control}
