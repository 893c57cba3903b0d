"""The parts of a message: text, images, files, audio, in the shapes of responses and of chats. Pure."""

from pydantic import JsonValue

from schemas.base import JsonObject
from schemas.errors import InvalidRequest

_TEXTS = {"input_text": "text", "output_text": "text", "text": "text", "summary_text": "text", "refusal": "refusal"}
"""Kinds of parts that are text, and the member it stands in."""


def plain_text(content: JsonValue, where: str) -> str:
    """The text of a content that can be nothing else. Raises InvalidRequest."""
    if isinstance(content, str):
        return content
    return "".join(_text_of(part, f"{where}[{index}]") for index, part in enumerate(_parts(content, where)))


def chat_content(content: JsonValue, where: str) -> JsonValue:
    """The content of a user's message: a text if it is one, or else parts. Raises InvalidRequest."""
    if isinstance(content, str):
        return content
    parts = [_chat_part(part, f"{where}[{index}]") for index, part in enumerate(_parts(content, where))]
    if len(parts) == 1 and parts[0]["type"] == "text":
        return parts[0]["text"]
    return [*parts]


def _parts(content: JsonValue, where: str) -> list[JsonObject]:
    if not isinstance(content, list):
        raise InvalidRequest("The content must be a text or a list of parts", param=where)
    parts = [part for part in content if isinstance(part, dict)]
    if len(parts) != len(content):
        raise InvalidRequest("Each part of a content must be an object", param=where)
    return parts


def _text_of(part: JsonObject, where: str) -> str:
    kind = str(part.get("type"))
    text = part.get(_TEXTS[kind]) if kind in _TEXTS else None
    if not isinstance(text, str):
        raise InvalidRequest(f"Only text can stand here, not '{kind[:64]}'", param=f"{where}.type")
    return text


def _chat_part(part: JsonObject, where: str) -> JsonObject:
    match part.get("type"):
        case "input_image":
            return _image(part, where)
        case "input_file":
            return _file(part, where)
        case "input_audio":
            return {"type": "input_audio", "input_audio": part.get("input_audio")}
        case _:
            return {"type": "text", "text": _text_of(part, where)}


def _image(part: JsonObject, where: str) -> JsonObject:
    url = part.get("image_url")
    if not isinstance(url, str):
        raise InvalidRequest("Send the image as `image_url`: an address or a data URL", param=f"{where}.image_url")
    image: JsonObject = {"url": url}
    if isinstance(detail := part.get("detail"), str):
        image["detail"] = detail
    return {"type": "image_url", "image_url": image}


def _file(part: JsonObject, where: str) -> JsonObject:
    data = part.get("file_data")
    if not isinstance(data, str):
        raise InvalidRequest("Send the file as `file_data`: a data URL", param=f"{where}.file_data")
    file: JsonObject = {"file_data": data}
    if isinstance(name := part.get("filename"), str):
        file["filename"] = name
    return {"type": "file", "file": file}
