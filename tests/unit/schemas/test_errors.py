"""The tree of errors against the table of the conventions, and against its own drawing."""

import re
from collections.abc import Iterator

import pytest

from schemas import errors
from schemas.errors import Fault, Owner, RateLimited, SluiceError, Unavailable

TABLE: list[tuple[str, int, str, str | None, Owner, bool | None]] = [
    ("InvalidRequest", 400, "invalid_request_error", None, "caller", None),
    ("ContextTooLong", 400, "invalid_request_error", "context_length_exceeded", "caller", None),
    ("ContentBlocked", 400, "invalid_request_error", "content_filter", "caller", None),
    ("InvalidKey", 401, "invalid_request_error", "invalid_api_key", "caller", None),
    ("NotAllowed", 403, "permission_error", "model_not_allowed", "caller", None),
    ("KeyPaused", 403, "permission_error", "key_paused", "caller", None),
    ("ModelNotFound", 404, "invalid_request_error", "model_not_found", "caller", None),
    ("NotFound", 404, "invalid_request_error", "not_found", "caller", None),
    ("RequestTimeout", 408, "invalid_request_error", "request_timeout", "caller", None),
    ("Conflict", 409, "invalid_request_error", "conflict", "caller", False),
    ("VersionConflict", 412, "invalid_request_error", "version_conflict", "caller", False),
    ("RequestTooLarge", 413, "invalid_request_error", "request_too_large", "caller", None),
    ("IdempotencyKeyReused", 422, "idempotency_error", "idempotency_key_reused", "caller", None),
    ("RateLimited", 429, "requests", "rate_limit_exceeded", "caller", True),
    ("TokensLimited", 429, "tokens", "rate_limit_exceeded", "caller", True),
    ("TooLarge", 429, "tokens", "rate_limit_exceeded", "caller", False),
    ("BudgetExceeded", 429, "insufficient_quota", "budget_exceeded", "caller", False),
    ("Cancelled", 499, "invalid_request_error", "cancelled", "caller", None),
    ("InternalError", 500, "server_error", "internal_error", "gateway", None),
    ("ProviderError", 502, "api_error", "provider_error", "provider", None),
    ("Overloaded", 503, "server_error", "overloaded", "gateway", True),
    ("Unavailable", 503, "server_error", "unavailable", "gateway", True),
    ("DeadlineExceeded", 504, "server_error", "deadline_exceeded", "gateway", None),
]


def tree(root: type[SluiceError] = SluiceError) -> Iterator[type[SluiceError]]:
    for error in root.__subclasses__():
        if error.__module__ == errors.__name__:
            yield error
            yield from tree(error)


CLASSES = {error.__name__: error for error in tree()}


def test_the_table_has_every_error() -> None:
    assert {row[0] for row in TABLE} == CLASSES.keys()


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row[0])
def test_an_error_is_the_fault_of_the_table(row: tuple[str, int, str, str | None, Owner, bool | None]) -> None:
    name, status, kind, code, owner, should_retry = row
    fault = CLASSES[name]("Why.").fault()
    assert fault == Fault(status=status, type=kind, code=code, message="Why.", owner=owner, should_retry=should_retry)


def test_the_drawing_shows_the_tree() -> None:
    drawn = dict(re.findall(r"[├└]── (\w+) +(\d{3})", errors.__doc__ or ""))
    assert drawn == {error.__name__: str(error.status) for error in CLASSES.values()}
    indented = set(re.findall(r"│   (?:    )?[├└]── (\w+)", errors.__doc__ or ""))
    parents = (errors.InvalidRequest, errors.NotAllowed, errors.RateLimited)
    assert indented == {error.__name__ for parent in parents for error in tree(parent)}


def test_an_instance_says_more() -> None:
    fault = RateLimited("Slow down.", retry_after_s=3).fault()
    assert (fault.retry_after_s, fault.should_retry) == (3, True)
    assert Unavailable("The guard is away.", code="guard_unavailable").fault().code == "guard_unavailable"
    assert errors.InvalidRequest("No.", param="messages[0].role").fault().param == "messages[0].role"
    assert str(RateLimited("Slow down.")) == "Slow down."


@pytest.mark.parametrize("name", CLASSES)
def test_openais_error_object_has_all_its_members(name: str) -> None:
    error = CLASSES[name]("Why.").fault().openai()["error"]
    assert isinstance(error, dict)
    assert error.keys() == {"message", "type", "param", "code"}


ANTHROPICS: dict[int, tuple[int, str]] = {
    400: (400, "invalid_request_error"),
    401: (401, "authentication_error"),
    403: (403, "permission_error"),
    404: (404, "not_found_error"),
    408: (408, "invalid_request_error"),
    409: (409, "invalid_request_error"),
    412: (412, "invalid_request_error"),
    413: (413, "request_too_large"),
    422: (422, "invalid_request_error"),
    429: (429, "rate_limit_error"),
    499: (499, "invalid_request_error"),
    500: (500, "api_error"),
    502: (502, "api_error"),
    503: (529, "overloaded_error"),
    504: (504, "timeout_error"),
}


@pytest.mark.parametrize("name", CLASSES)
def test_anthropics_error_object_says_the_same(name: str) -> None:
    fault = CLASSES[name]("Why.").fault()
    status, kind = ANTHROPICS[fault.status]
    details = {"details": {"error_code": fault.code}} if fault.code else {}
    message = "prompt is too long: Why." if name == "ContextTooLong" else "Why."
    assert fault.anthropic_status == status
    assert fault.anthropic("req_1") == {
        "type": "error",
        "error": {"type": kind, "message": message, **details},
        "request_id": "req_1",
    }


def test_anthropics_error_object_names_the_member_in_its_sentence() -> None:
    def message(text: str) -> object:
        error = errors.InvalidRequest(text, param="tools.0").fault().anthropic("req_1")["error"]
        return error["message"] if isinstance(error, dict) else None

    assert message("It needs a name") == "tools.0: It needs a name"
    assert message("Invalid value for `tools.0`") == "Invalid value for `tools.0`"
