"""What a caller is told of a provider's error, and that nothing of ours is in it."""

from datetime import UTC, datetime

import pytest

from services.router.providers.failures import Why, content_refused, leads_to, openai_words, refused, retry_after_s, unavailable

NOW = datetime(2026, 11, 21, 8, 0, tzinfo=UTC)
SECRET = "sk-provider-CANARY-1234567890"


def told(status: int, body: str = "", **headers: str) -> tuple[str, int, str | None, str]:
    failure = refused(
        status,
        {name.replace("_", "-"): value for name, value in headers.items()},
        body.encode(),
        "d1",
        (SECRET,),
        NOW,
        openai_words,
    )
    assert failure.http_status == status
    return failure.kind, failure.fault.status, failure.fault.code, failure.fault.owner


ERROR = (
    '{"error": {"message": "too long", "type": "invalid_request_error", "param": "messages", "code": "context_length_exceeded"}}'
)
CASES = [
    (400, ERROR, ("final", 400, "context_length_exceeded", "provider")),
    (404, "", ("final", 404, None, "provider")),
    (413, "", ("final", 413, None, "provider")),
    (422, "", ("final", 422, None, "provider")),
    (401, ERROR, ("denied", 502, "provider_error", "provider")),
    (402, ERROR, ("denied", 502, "provider_error", "provider")),
    (403, ERROR, ("denied", 502, "provider_error", "provider")),
    (418, "", ("final", 502, "provider_error", "provider")),
    (408, "", ("unavailable", 502, "provider_error", "provider")),
    (429, "", ("throttled", 429, "rate_limit_exceeded", "provider")),
    (500, "<html>", ("unavailable", 502, "provider_error", "provider")),
    (503, "", ("unavailable", 502, "provider_error", "provider")),
    (301, "", ("unavailable", 502, "provider_error", "provider")),
]


@pytest.mark.parametrize(("status", "body", "expected"), CASES)
def test_statuses(status: int, body: str, expected: tuple[str, int, str | None, str]) -> None:
    assert told(status, body) == expected


def test_the_providers_own_words_pass_on() -> None:
    fault = refused(400, {}, ERROR.encode(), "d1", (), NOW, openai_words).fault
    assert (fault.message, fault.type, fault.param) == ("too long", "invalid_request_error", "messages")


@pytest.mark.parametrize("status", [400, 401, 404, 429, 500])
@pytest.mark.parametrize("body", ['{"error": {"message": "bad key %s", "code": "%s"}}', '{"error": "%s"}', "%s"])
def test_our_credential_is_not_in_it(status: int, body: str) -> None:
    fault = refused(status, {}, body.replace("%s", SECRET).encode(), "d1", (SECRET,), NOW, openai_words).fault
    assert SECRET not in fault.model_dump_json()


RETRY_AFTER: list[tuple[dict[str, str], float | None]] = [
    ({"retry-after": "7"}, 7.0),
    ({"retry-after": "0.5"}, 0.5),
    ({"retry-after-ms": "250", "retry-after": "1"}, 0.25),
    ({"retry-after": "Sat, 21 Nov 2026 08:00:30 GMT"}, 30.0),
    ({"retry-after": "Sat, 21 Nov 2026 07:00:30 GMT"}, 0.0),
    ({"retry-after": "soon"}, None),
    ({"retry-after": "Sat, 21 Nov 2026 08:00:30"}, None),
    ({"retry-after": "9" * 400}, None),
    ({"retry-after-ms": "nan"}, None),
    ({"retry-after": " "}, None),
    ({}, None),
]


@pytest.mark.parametrize(("headers", "expected"), RETRY_AFTER)
def test_retry_after(headers: dict[str, str], expected: float | None) -> None:
    assert retry_after_s(headers, NOW) == expected


def test_a_throttled_caller_is_told_when_to_come_again() -> None:
    fault = refused(429, {"retry-after": "6.2"}, b"", "d1", (), NOW, openai_words).fault
    assert (fault.retry_after_s, fault.should_retry, fault.type) == (7, True, "requests")


AZURE = "The response was filtered due to the prompt triggering Azure OpenAI's content management policy."
LEADS: list[tuple[int, str, Why | None]] = [
    (400, ERROR, "context"),
    (400, '{"error": {"message": "prompt is too long: 210000 tokens > 200000 maximum"}}', "context"),
    (400, '{"message": "x", "error": "This model\'s maximum context length is 4096 tokens"}', "context"),
    (400, '{"error": {"message": "no", "code": "content_filter"}}', "content"),
    (400, f'{{"error": {{"message": "{AZURE}"}}}}', "content"),
    (400, '{"error": {"message": "messages is missing", "param": "messages"}}', None),
    (413, "", None),
    (415, "", None),
    (422, "", None),
    (404, "", "failed"),
    (401, ERROR, "failed"),
    (429, ERROR, "failed"),
    (500, ERROR, "failed"),
]


@pytest.mark.parametrize(("status", "body", "expected"), LEADS)
def test_why_another_model_may_be_asked(status: int, body: str, expected: Why | None) -> None:
    assert leads_to(refused(status, {}, body.encode(), "d1", (SECRET,), NOW, openai_words)) == expected


def test_what_is_no_status_leads_on_too() -> None:
    assert leads_to(unavailable("d1", "did not answer in time")) == "failed"
    assert leads_to(content_refused("d1")) == "content"
    assert content_refused("d1").billable
