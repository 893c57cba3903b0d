"""What Google says when it refuses, in OpenAI's codes (google.rpc.Status, ErrorInfo and RetryInfo). Pure."""

import math
import re
from collections.abc import Mapping

from pydantic import TypeAdapter, ValidationError

from schemas.google.answers import ErrorBody, Status
from services.router.providers.failures import Words

_BODY: TypeAdapter[ErrorBody | list[ErrorBody]] = TypeAdapter(ErrorBody | list[ErrorBody])
"""A stream's error may come in a list."""

_BAD_KEY = "API_KEY_INVALID"
_NOT_SERVED = ("location is not supported", "enable billing")
_TOO_LONG = re.compile(r"exceeds the maximum number of (input )?tokens")
_PROJECT = re.compile(r"projects/[^/\s'\"]+")
_STORAGE = "storage.objects"


def google_words(status: int, headers: Mapping[str, str], body: bytes) -> Words:
    """The message; where Google's status misleads, the one that is meant; and how long to wait, which isn't in the headers."""
    error = _error(body)
    if error is None:
        return {}
    # The house's own project is nobody's business.
    words: Words = {"message": _PROJECT.sub("projects/…", error.message)} if error.message else {}
    if status == 400 and _TOO_LONG.search(error.message):
        words["code"] = "context_length_exceeded"
    if meant := _meant(status, error):
        words["status"] = str(meant)
    waits = (_seconds(detail.retry_delay) for detail in error.details if detail.retry_delay)
    if wait := next((seconds for seconds in waits if seconds is not None), None):
        words["retry_after_s"] = str(wait)
    return words


def _error(body: bytes) -> Status | None:
    try:
        given = _BODY.validate_json(body)
    except ValidationError:
        return None
    if isinstance(given, list):
        return given[0].error if given else None
    return given.error


def _meant(status: int, error: Status) -> int | None:
    """A bad key and a country that isn't served come as 400, but no caller can help it. A file of a caller's that Vertex AI may
    not read comes as 403, but that is no fault of our credential.
    """
    if status == 400 and any(detail.reason == _BAD_KEY for detail in error.details):
        return 401
    if status == 400 and any(words in error.message for words in _NOT_SERVED):
        return 403
    return 400 if status == 403 and _STORAGE in error.message else None


def _seconds(given: str) -> float | None:
    """Of a protobuf Duration, such as 7.5s."""
    try:
        seconds = float(given.removesuffix("s"))
    except ValueError:
        return None
    return seconds if math.isfinite(seconds) and seconds > 0 else None
