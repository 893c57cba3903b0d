"""The tree of errors: each says its HTTP status, OpenAI's type and code, whether a retry helps, and a sentence for a person.

SluiceError
├── InvalidRequest             400  bad JSON, wrong type; `param` names the field
│   ├── ContextTooLong         400  context_length_exceeded
│   ├── ContentBlocked         400  content_filter
│   ├── Conflict               409  conflict                 (what was to be changed stands otherwise by now)
│   ├── RequestTooLarge        413  request_too_large
│   ├── ModelNotFound          404  model_not_found
│   ├── NotFound               404  not_found
│   ├── VersionConflict        412  version_conflict         (somebody else has changed it since)
│   └── RequestTimeout         408  request_timeout          (the body came too slowly)
├── InvalidKey                 401  invalid_api_key
├── NotAllowed                 403  model_not_allowed, or what is not yours
│   └── KeyPaused              403  key_paused               (until somebody resumes it)
├── IdempotencyKeyReused       422  idempotency_key_reused
├── RateLimited                429  rate_limit_exceeded      retry after
│   └── TokensLimited          429  (type: tokens)
│       └── TooLarge           429  more than a whole period allows, no retry
├── BudgetExceeded             429  budget_exceeded          no retry
├── ProviderError              502  provider_error, or the provider's own status and words
├── Overloaded                 503  overloaded               retry after
├── Unavailable                503  a part of ours is away   retry after
├── Cancelled                  499  cancelled                (nobody is left to read it)
├── DeadlineExceeded           504  deadline_exceeded
└── InternalError              500  internal_error

Statuses, types and codes are those of CONVENTIONS.md, section "Errors". A `Fault` is the same thing as data: it travels
in replies and completions, and is mapped to HTTP in one place.
"""

from collections.abc import Mapping
from typing import ClassVar, Literal

from pydantic import JsonValue

from schemas.anthropic.answers import ERROR_STATUS, ErrorType
from schemas.base import Part

Owner = Literal["caller", "provider", "gateway"]

_ANTHROPIC: Mapping[int, ErrorType] = {status: kind for kind, status in ERROR_STATUS.items()}
_TOO_LONG = "prompt is too long"
"""Anthropic's own words, by which Claude Code knows that it has to shorten a conversation."""


class Fault(Part):
    """An error as data. `owner` says whose it is; `retry_after_s` and `should_retry` become headers."""

    status: int
    type: str
    code: str | None = None
    message: str
    param: str | None = None
    retry_after_s: int | None = None
    should_retry: bool | None = None
    owner: Owner = "caller"

    def openai(self) -> dict[str, JsonValue]:
        """OpenAI's error object: all four members are required by its schema."""
        return {
            "error": {"message": self.message, "type": self.type, "param": self.param, "code": self.code},
        }

    @property
    def anthropic_status(self) -> int:
        """The status by which Anthropic's SDKs know it."""
        return ERROR_STATUS["overloaded_error"] if self.status == Overloaded.status else self.status

    def anthropic(self, request_id: str) -> dict[str, JsonValue]:
        """Anthropic's error object. It has no place for `param`, so the message names it."""
        named = f"{self.param}: {self.message}" if self.param and self.param not in self.message else self.message
        if self.code == ContextTooLong.code and _TOO_LONG not in named.lower():
            named = f"{_TOO_LONG}: {named}"
        kind = _ANTHROPIC.get(self.anthropic_status, "api_error" if self.status >= 500 else "invalid_request_error")
        error: dict[str, JsonValue] = {"type": kind, "message": named}
        if self.code:
            error["details"] = {"error_code": self.code}
        return {"type": "error", "error": error, "request_id": request_id}


class SluiceError(Exception):
    """The root. Subclasses fix status, type, code and owner; an instance adds the sentence, and HTTP headers."""

    status: ClassVar[int] = 500
    type: ClassVar[str] = "server_error"
    code: ClassVar[str | None] = "internal_error"
    owner: ClassVar[Owner] = "gateway"
    should_retry: ClassVar[bool | None] = None

    def __init__(
        self,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        retry_after_s: int | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.retry_after_s = retry_after_s
        self.headers = headers or {}
        self._code = code

    def fault(self) -> Fault:
        return Fault(
            status=self.status,
            type=self.type,
            code=self._code or self.code,
            message=self.message,
            param=self.param,
            retry_after_s=self.retry_after_s,
            should_retry=self.should_retry,
            owner=self.owner,
        )


class InvalidRequest(SluiceError):
    status, type, code, owner = 400, "invalid_request_error", None, "caller"


class ContextTooLong(InvalidRequest):
    code = "context_length_exceeded"


class ContentBlocked(InvalidRequest):
    code = "content_filter"


class RequestTooLarge(InvalidRequest):
    status, code = 413, "request_too_large"


class ModelNotFound(InvalidRequest):
    status, code = 404, "model_not_found"


class NotFound(InvalidRequest):
    status, code = 404, "not_found"


class Conflict(InvalidRequest):
    """What was to be changed stands otherwise by now. Asked again, it stands there still."""

    status, code, should_retry = 409, "conflict", False


class VersionConflict(InvalidRequest):
    """Who changes a resource says which version he saw, and another stands."""

    status, code, should_retry = 412, "version_conflict", False


class RequestTimeout(InvalidRequest):
    status, code = 408, "request_timeout"


class InvalidKey(SluiceError):
    status, type, code, owner = 401, "invalid_request_error", "invalid_api_key", "caller"


class NotAllowed(SluiceError):
    status, type, code, owner = 403, "permission_error", "model_not_allowed", "caller"


class KeyPaused(NotAllowed):
    """The key runs away, and is held until somebody resumes it."""

    code = "key_paused"


class IdempotencyKeyReused(SluiceError):
    status, type, code, owner = 422, "idempotency_error", "idempotency_key_reused", "caller"


class RateLimited(SluiceError):
    """Too many requests or tokens in a minute. `type` is OpenAI's: what ran out."""

    status, type, code, owner, should_retry = 429, "requests", "rate_limit_exceeded", "caller", True


class TokensLimited(RateLimited):
    """Too many tokens."""

    type = "tokens"


class TooLarge(TokensLimited):
    """One request alone has more tokens than a whole period allows: no retry helps."""

    should_retry = False


class BudgetExceeded(SluiceError):
    """A retry before the period ends is refused again, so SDKs are told not to."""

    status, type, code, owner, should_retry = 429, "insufficient_quota", "budget_exceeded", "caller", False


class ProviderError(SluiceError):
    """The provider failed, or answered what is no answer."""

    status, type, code, owner = 502, "api_error", "provider_error", "provider"


class Overloaded(SluiceError):
    status, type, code, owner, should_retry = 503, "server_error", "overloaded", "gateway", True


class Unavailable(SluiceError):
    """A part of ours (Redis, Kafka, the guard) is away; `code` says which."""

    status, type, code, owner, should_retry = 503, "server_error", "unavailable", "gateway", True


class Cancelled(SluiceError):
    status, type, code, owner = 499, "invalid_request_error", "cancelled", "caller"


class DeadlineExceeded(SluiceError):
    status, type, code, owner = 504, "server_error", "deadline_exceeded", "gateway"


class InternalError(SluiceError):
    status, type, code, owner = 500, "server_error", "internal_error", "gateway"
