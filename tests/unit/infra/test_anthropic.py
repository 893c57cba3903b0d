"""Headers and errors for Anthropic's SDKs."""

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra import anthropic
from infra.charging import duration, duration_ms
from infra.faults import error_response
from schemas.errors import RateLimited

AT_MS = 1_795_000_000_500
"""2026-11-18T11:06:40.500Z"""


def test_headers_of_a_chat_are_told_in_anthropics_words() -> None:
    ours = {
        "x-request-id": "job_1",
        "x-sluice-job": "job_1",
        "openai-version": "2020-10-01",
        "x-ratelimit-limit-requests": "60",
        "x-ratelimit-remaining-requests": "59",
        "x-ratelimit-reset-requests": "1m1s",
        "x-ratelimit-reset-tokens": "200ms",
        "retry-after": "3",
    }
    assert anthropic.headers(ours, AT_MS) == {
        "request-id": "job_1",
        "x-sluice-job": "job_1",
        "anthropic-ratelimit-requests-limit": "60",
        "anthropic-ratelimit-requests-remaining": "59",
        "anthropic-ratelimit-requests-reset": "2026-11-18T11:07:42Z",
        "anthropic-ratelimit-tokens-reset": "2026-11-18T11:06:41Z",
        "retry-after": "3",
    }


@given(st.integers(0, 10**9))
def test_a_duration_is_read_as_it_was_written(ms: int) -> None:
    assert 0 <= duration_ms(duration(ms)) - ms < 1000


@pytest.mark.parametrize(("headers", "request_id"), [({"x-request-id": "job_1"}, "job_1"), ({}, r"req_[0-9a-f]{32}")])
def test_an_error_bears_an_id_to_be_asked_about(headers: dict[str, str], request_id: str) -> None:
    answer = error_response(RateLimited("Slow down.", retry_after_s=3).fault(), headers, to_anthropics=True)
    told = json.loads(bytes(answer.body))
    assert re.fullmatch(request_id, told["request_id"])
    assert (answer.status_code, answer.headers["request-id"]) == (429, told["request_id"])
    assert (answer.headers["retry-after"], answer.headers["x-should-retry"]) == ("3", "true")
