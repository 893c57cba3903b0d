"""The parts of a message: text, images, audio and files, as Gemini takes them. Pure."""

import mimetypes
from collections.abc import Iterator
from dataclasses import dataclass

from pydantic import JsonValue

from schemas.base import JsonObject
from services.router.providers.chat import refusal

_AUDIO = {"wav": "audio/wav", "mp3": "audio/mp3", "aac": "audio/aac", "flac": "audio/flac", "ogg": "audio/ogg"}


@dataclass(frozen=True, slots=True)
class Dialect:
    """What differs between models and doors.

    `generation`: 2.5 of gemini-2.5-pro. `fetches`: how addresses begin from which Google itself fetches images and files.
    """

    generation: float
    fetches: tuple[str, ...] = ()


def texts(content: JsonValue, where: str) -> list[JsonObject]:
    """A content that can be nothing but text. Raises ProviderFailure."""
    found = list(parts(content, where, Dialect(0)))
    if any("text" not in part for part in found):
        raise refusal("Only text can stand here.", where)
    return found


def parts(content: JsonValue, where: str, dialect: Dialect) -> Iterator[JsonObject]:
    """All that a content says; empty texts, which Google refuses, are left out. Raises ProviderFailure."""
    if isinstance(content, str):
        content = [{"type": "text", "text": content}]
    if content is None:
        return
    if not isinstance(content, list):
        raise refusal("The content must be a text or a list of parts.", where)
    for index, part in enumerate(content):
        at = f"{where}[{index}]"
        if not isinstance(part, dict):
            raise refusal("Each part of a content must be an object.", at)
        found = _part(part, at, dialect)
        if found.get("text") != "":
            yield found


def _part(part: JsonObject, where: str, dialect: Dialect) -> JsonObject:
    match part:
        case {"type": "text", "text": str(text)} | {"type": "refusal", "refusal": str(text)}:
            return {"text": text}
        case {"type": "image_url", "image_url": {"url": str(url)}}:
            return _media(url, f"{where}.image_url.url", dialect)
        case {"type": "input_audio", "input_audio": {"data": str(data), "format": str(form)}}:
            if form not in _AUDIO:
                raise refusal(f"The format must be one of {', '.join(_AUDIO)}.", f"{where}.input_audio.format")
            return {"inlineData": {"mimeType": _AUDIO[form], "data": data}}
        case {"type": "file", "file": {"file_data": str(url)}}:
            return _media(url, f"{where}.file.file_data", dialect)
        case {"type": "file", "file": {"file_id": str(url)}}:
            return _media(url, f"{where}.file.file_id", dialect)
        case _:
            kind = str(part.get("type"))[:64]
            raise refusal(f"A part of type '{kind}' can't be sent to Gemini, or is malformed.", f"{where}.type")


def _media(url: str, where: str, dialect: Dialect) -> JsonObject:
    if url.startswith("data:"):
        return _inline(url, where)
    if not url.startswith(dialect.fetches):
        known = "".join(f" or an address that begins with {start}" for start in dialect.fetches)
        raise refusal(f"This provider fetches nothing from there: send a data URL (data:image/png;base64,…){known}.", where)
    mime_type, _ = mimetypes.guess_type(url.partition("?")[0], strict=False)
    if mime_type is None:
        raise refusal("What this is can't be told from its name: it must end as .png, .jpg, .pdf or the like.", where)
    return {"fileData": {"mimeType": mime_type, "fileUri": url}}


def _inline(url: str, where: str) -> JsonObject:
    head, comma, data = url.removeprefix("data:").partition(",")
    mime_type, *options = head.split(";")
    if not comma or not mime_type or "base64" not in options:
        raise refusal("A data URL must name its type and be in base64: data:image/png;base64,…", where)
    return {"inlineData": {"mimeType": mime_type, "data": data}}
