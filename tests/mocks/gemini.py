"""Gemini, as Google AI Studio and as Vertex AI serve it, with the place where Vertex's access tokens come from.

In a test: `async with MockGemini() as google: ... google.base_url` (Gemini API), `google.host` (Vertex AI), `google.account()`
(a service account's JSON). Models behave as the mock provider's do, by their names: `mock-gemini-2.5-429-retry-7`; one named
`blocked` or `toolong` won't; those from gemini-3 on sign their calls. It calls the first tool there is (two, if the user says
"both"), fills in a schema, tells what picture it sees, says what tools have said, and else words that depend on the prompt.
`asked`: bodies that it has taken.
"""

import json
import re
import uuid
from functools import cache
from typing import cast
from urllib.parse import parse_qs

from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import RSAKey
from pydantic import ValidationError
from pydantic_core import to_json

from benchmarks.mock_answers import Behaviour, parse_behaviour, vector
from benchmarks.mock_provider import MockProvider
from benchmarks.mock_wire import Reply, Request, json_reply, stream_reply
from schemas.base import JsonObject
from tests.mocks import gemini_wire as wire

ACCOUNT = "sluice@acme.iam.gserviceaccount.com"
PROJECT = "acme"
KEY = "AIza-CANARY-gemini-key"

_AUDIENCE = "https://oauth2.googleapis.com/token"
_SCOPE = "https://www.googleapis.com/auth/cloud-platform"
_GRANT = "urn:ietf:params:oauth:grant-type:jwt-bearer"
_AI_STUDIO = re.compile(r"/v1beta/models/([^/:]+):(\w+)")
_VERTEX = re.compile(r"/v1/projects/([^/]+)/locations/([\w-]+)/publishers/google/models/([^/:]+):(\w+)")
_GENERATION = re.compile(r"gemini-(\d+)")
_STATUS = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    429: "RESOURCE_EXHAUSTED",
    500: "INTERNAL",
    503: "UNAVAILABLE",
}
_BLOCKED: JsonObject = {"promptFeedback": {"blockReason": "PROHIBITED_CONTENT"}, "usageMetadata": {"promptTokenCount": 3}}


@cache
def account_key() -> RSAKey:
    """The service account's, made once a process: that takes a tenth of a second."""
    return RSAKey.generate_key(2048)


class MockGemini(MockProvider):
    """The server. `tokens`: those that Vertex takes; a test ends one by taking it out. `token_calls`: for one."""

    def __init__(self, port: int = 0, token_life_s: int = 3600) -> None:
        super().__init__(port)
        self.tokens: set[str] = set()
        self.token_calls = 0
        self.token_life_s = token_life_s
        self.asked: list[JsonObject] = []

    @property
    def host(self) -> str:
        """What takes the place of Vertex AI's."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def base_url(self) -> str:
        """What takes the place of generativelanguage.googleapis.com/v1beta."""
        return f"{self.host}/v1beta"

    def account(self, key: RSAKey | None = None) -> str:
        """The JSON of the service account, with this key instead of its own if one is given."""
        pem = (key or account_key()).as_pem(private=True).decode()
        told = {"type": "service_account", "project_id": PROJECT, "client_email": ACCOUNT, "private_key_id": "1"}
        return json.dumps({**told, "private_key": pem, "token_uri": f"{self.host}/token"})

    def reply(self, request: Request) -> Reply:
        """For `Connection`: decides what is answered."""
        path, _, query = request.target.decode().partition("?")
        if path == "/token":
            return self._token(request)
        if found := _AI_STUDIO.fullmatch(path):
            if request.header(b"x-goog-api-key") != KEY or "key" in parse_qs(query):
                return _error(400, "API key not valid. Please pass a valid API key.", reason="API_KEY_INVALID")
            return self._asked(request, found[1], found[2], query, vertex=False)
        if found := _VERTEX.fullmatch(path):
            if (request.header(b"authorization") or "").removeprefix("Bearer ") not in self.tokens:
                return _error(401, "Request had invalid authentication credentials.")
            if found[1] != PROJECT:
                return _error(403, f"Permission denied on resource project {found[1]}.")
            return self._asked(request, found[3], found[4], query, vertex=True)
        return super().reply(request)

    def _token(self, request: Request) -> Reply:
        """RFC 7523: an assertion that the account has signed, for a token."""
        self.token_calls += 1
        form = parse_qs(request.body.decode())
        try:
            token = jwt.decode(form["assertion"][0], account_key(), algorithms=["RS256"])
            jwt.JWTClaimsRegistry(
                iss={"essential": True, "value": ACCOUNT},
                aud={"essential": True, "value": _AUDIENCE},
                scope={"essential": True, "value": _SCOPE},
                exp={"essential": True},
            ).validate(token.claims)
            if form["grant_type"] != [_GRANT]:
                raise ValueError("another grant")
        except (JoseError, ValueError, KeyError):
            return json_reply(400, b'{"error": "invalid_grant", "error_description": "Invalid JWT Signature."}')
        access = f"ya29.CANARY-{uuid.uuid4().hex}"
        self.tokens.add(access)
        return json_reply(200, to_json({"access_token": access, "expires_in": self.token_life_s, "token_type": "Bearer"}))

    def _asked(self, request: Request, model: str, method: str, query: str, *, vertex: bool) -> Reply:
        behaviour = self._behaviour(model, request)
        if behaviour.status != 200:
            return _error(behaviour.status, f"fault {behaviour.status} as asked", retry_s=behaviour.retry_after_s)
        try:
            self.asked.append(cast("JsonObject", json.loads(request.body)))
            match method, vertex:
                case "generateContent", _:
                    return self._whole(request, model, behaviour)
                case "streamGenerateContent", _ if parse_qs(query).get("alt") == ["sse"]:
                    return self._stream(request, model, behaviour)
                case "batchEmbedContents", False:
                    return _embedded(wire.BatchEmbedRequest.model_validate_json(request.body))
                case "predict", True:
                    return _predicted(wire.PredictRequest.model_validate_json(request.body), model)
                case _:
                    return _error(404, f"Method {method} not found.")
        except ValidationError as error:
            return _error(400, wire.complaint(error))

    def _whole(self, request: Request, model: str, behaviour: Behaviour) -> Reply:
        asked, parts, finish = _said(request, model)
        if refused := _refused(asked, model):
            return refused
        if _is_blocked(model):
            return json_reply(200, to_json(_BLOCKED))
        entry = self._entry("chat", model, None, request)
        counted = wire.usage(asked, parts)
        body = to_json(wire.answer(asked, wire.joined(parts), finish, model, counted))
        return json_reply(200, b"<html>" if behaviour.ending == "garbage" else body, behaviour, entry)

    def _stream(self, request: Request, model: str, behaviour: Behaviour) -> Reply:
        asked, parts, finish = _said(request, model)
        if refused := _refused(asked, model):
            return refused
        entry = self._entry("chat", model, None, request)
        entry.stream = True
        said = [_BLOCKED] if _is_blocked(model) else wire.events(asked, parts, finish, model)
        events = [b"data: %b\r\n\r\n" % to_json(event) for event in said]
        if behaviour.ending != "whole":
            events = events[: max(1, len(events) // 2)]
        if behaviour.ending == "error":
            events.append(b"data: %b\r\n\r\n" % _error_body(503, "The model is overloaded."))
        return stream_reply(events, behaviour, entry)


def _said(request: Request, model: str) -> tuple[wire.GenerateRequest, list[JsonObject], str]:
    asked = wire.GenerateRequest.model_validate_json(request.body)
    parts, finish = wire.said(asked, parse_behaviour(model).words, signs=_signs(model))
    return asked, parts, finish


def _is_blocked(model: str) -> bool:
    """True if the filter shall stop the prompt of such a model."""
    return "blocked" in model


def _signs(model: str) -> bool:
    found = _GENERATION.search(model)
    return found is not None and int(found[1]) >= 3


def _refused(asked: wire.GenerateRequest, model: str) -> Reply | None:
    """What Google refuses though its form is right."""
    if _signs(model) and (name := wire.unsigned_call(asked)):
        return _error(400, f"Function call `{name}` is missing a thought_signature in functionCall parts.")
    if "toolong" in model:
        return _error(400, "The input token count (1200293) exceeds the maximum number of tokens allowed (1048576).")
    return None


def _embedded(asked: wire.BatchEmbedRequest) -> Reply:
    texts = [("".join(part.text or "" for part in one.content.parts), one.output_dimensionality) for one in asked.requests]
    return json_reply(200, to_json({"embeddings": [{"values": vector(text, size)} for text, size in texts]}))


def _predicted(asked: wire.PredictRequest, model: str) -> Reply:
    if "gemini" in model and len(asked.instances) > 1:
        return _error(400, "Only one instance can be sent to this model.")
    size = asked.parameters.output_dimensionality
    predictions = [
        {
            "embeddings": {
                "values": vector(one.content, size),
                "statistics": {"truncated": False, "token_count": len(one.content.split())},
            }
        }
        for one in asked.instances
    ]
    return json_reply(200, to_json({"predictions": predictions, "metadata": {"billableCharacterCount": 9}}))


def _error(status: int, message: str, *, reason: str = "", retry_s: int | None = None) -> Reply:
    return json_reply(status, _error_body(status, message, reason=reason, retry_s=retry_s))


def _error_body(status: int, message: str, *, reason: str = "", retry_s: int | None = None) -> bytes:
    details: list[JsonObject] = []
    if reason:
        details.append({"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": reason, "domain": "googleapis.com"})
    if retry_s is not None:
        details.append({"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": f"{retry_s}s"})
    error = {"code": status, "message": message, "status": _STATUS.get(status, "UNKNOWN"), "details": details}
    return to_json({"error": error})
