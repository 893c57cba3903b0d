"""The mock of Bedrock is as strict as AWS: it knows a signature from its own arithmetic, and a request from AWS's own model."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from schemas.base import JsonObject
from services.router.providers.aws_credentials import Keys
from services.router.providers.bedrock import sign
from tests.mocks.aws_signature import Refusal, Sent, signature_of, verify
from tests.mocks.bedrock import ACCESS_KEY, REGION, SECRET_KEY
from tests.mocks.bedrock_requests import check

WHEN = "20150830T123600Z"

# AWS's signature version 4 test suite (get-vanilla, post-vanilla) and the example in IAM's user guide (ListUsers).
VECTORS: list[tuple[str, str, str, dict[str, str], str]] = [
    ("GET", "", "service", {}, "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"),
    ("POST", "", "service", {}, "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b"),
    (
        "GET",
        "Action=ListUsers&Version=2010-05-08",
        "iam",
        {"content-type": "application/x-www-form-urlencoded; charset=utf-8", "host": "iam.amazonaws.com"},
        "5d672d79c15b13162d9279b0855cfba6789a8edb4c82c400e06b5924a6f2b5d7",
    ),
]


@pytest.mark.parametrize(("method", "query", "service", "headers", "signature"), VECTORS)
def test_signatures_are_those_of_aws(method: str, query: str, service: str, headers: dict[str, str], signature: str) -> None:
    given = {"host": "example.amazonaws.com", "x-amz-date": WHEN, **headers}
    sent = Sent(method, "/", given, b"", query)
    assert signature_of(sent, sorted(given), SECRET_KEY, WHEN, "us-east-1", service) == signature


def signed(token: str | None = None, model: str = "anthropic.claude-v2:1") -> Sent:
    url = f"https://bedrock-runtime.{REGION}.amazonaws.com/model/{model}/converse"
    headers = sign(url, {"content-type": "application/json"}, b"{}", Keys(ACCESS_KEY, SECRET_KEY, token), REGION)
    return Sent("POST", f"/model/{model}/converse", headers, b"{}")


def refusal(sent: Sent, token: str | None = None, later: timedelta = timedelta(), secret: str = SECRET_KEY) -> str:
    with pytest.raises(Refusal) as caught:
        verify(sent, {ACCESS_KEY: secret}, token, REGION, datetime.now(UTC) + later)
    assert caught.value.status == 403
    return caught.value.name


@pytest.mark.parametrize("model", ["anthropic.claude-v2:1", "arn:aws:bedrock:eu-central-1:1:inference-profile%2Feu.x.y-v1:0"])
@pytest.mark.parametrize("token", [None, "session"])
def test_what_botocore_signs_fits(model: str, token: str | None) -> None:
    verify(signed(token, model), {ACCESS_KEY: SECRET_KEY}, token, REGION, datetime.now(UTC))


def test_whatever_was_changed_on_the_way_is_refused() -> None:
    sent = signed()
    changed = [
        replace(sent, body=b"{ }"),
        replace(sent, path=sent.path + "-stream"),
        replace(sent, headers={**sent.headers, "host": "evil.example"}),
        replace(sent, headers={**sent.headers, "content-type": "text/plain"}),
        replace(sent, headers={**sent.headers, "x-amz-target": "unsigned"}),
    ]
    assert [refusal(one) for one in changed] == ["InvalidSignatureException"] * 5
    assert refusal(sent, secret="another") == "InvalidSignatureException"
    assert refusal(sent, later=timedelta(minutes=6)) == "InvalidSignatureException"
    assert refusal(sent, later=timedelta(minutes=-6)) == "InvalidSignatureException"
    assert refusal(sent, token="expected") == "UnrecognizedClientException"
    assert refusal(replace(sent, headers={})) == "MissingAuthenticationTokenException"


GOOD: JsonObject = {"messages": [{"role": "user", "content": [{"text": "Hi"}]}]}
BAD: list[JsonObject] = [
    {},
    {**GOOD, "temperature": 1},
    {**GOOD, "inferenceConfig": {"maxTokens": "7"}},
    {**GOOD, "inferenceConfig": {"temperature": 1.5}},
    {**GOOD, "serviceTier": {"type": "auto"}},
    {"messages": [{"role": "assistant", "content": [{"text": "Hi"}]}]},
    {"messages": [{"role": "user", "content": [{"text": " "}]}]},
    {"messages": [{"role": "user", "content": [{"text": "a", "cachePoint": {"type": "default"}}]}]},
    {"messages": [{"role": "user", "content": [{"image": {"format": "png", "source": {"bytes": "%%"}}}]}]},
    {"messages": [{"role": "user", "content": [{"toolResult": {"toolUseId": "a", "content": []}}]}]},
    {**GOOD, "toolConfig": {"tools": [{"toolSpec": {"name": "no spaces", "inputSchema": {"json": {}}}}]}},
]


def test_a_good_request_passes() -> None:
    check("Converse", "anthropic.claude-v2:1", GOOD)


@pytest.mark.parametrize("body", BAD)
def test_requests_that_aws_would_refuse_are_refused(body: JsonObject) -> None:
    with pytest.raises(Refusal):
        check("Converse", "anthropic.claude-v2:1", body)
