"""Azure OpenAI, as strict about its paths, its `api-key` and its `api-version` as it is; the answers are OpenAI's mock's.

In a test: `async with MockAzure("key") as azure: ... azure.endpoint, azure.ledger`. Models are named, and behave, as the mock
provider's; the stream begins with what the filter says of the prompt. `mock-filtered` is refused by it.
"""

import json
from dataclasses import replace
from typing import Final
from urllib.parse import parse_qs

from benchmarks.mock_wire import Reply, Request, json_reply
from schemas.base import JsonObject
from tests.mocks.openai import MockOpenAI

_FILTERED: Final[JsonObject] = {
    "error": {
        "message": "The response was filtered due to the prompt triggering Azure OpenAI's content management policy.",
        "type": None,
        "param": "prompt",
        "code": "content_filter",
        "status": 400,
        "innererror": {
            "code": "ResponsibleAIPolicyViolation",
            "content_filter_result": {"violence": {"filtered": True, "severity": "high"}},
        },
    }
}
_DENIED: Final[JsonObject] = {
    "error": {"code": "401", "message": "Access denied due to invalid subscription key or wrong API endpoint."}
}
_OF_THE_PROMPT: Final[JsonObject] = {
    "choices": [],
    "created": 0,
    "id": "",
    "model": "",
    "object": "",
    "prompt_filter_results": [{"prompt_index": 0, "content_filter_results": {"hate": {"filtered": False, "severity": "safe"}}}],
}
_UNDATED: Final = "/openai/v1/"
_DEPLOYMENTS: Final = "/openai/deployments/"


class MockAzure(MockOpenAI):
    """The server. `key` is the only one it takes."""

    def __init__(self, key: str, port: int = 0) -> None:
        super().__init__(port=port)
        self._key = key

    @property
    def endpoint(self) -> str:
        """What Azure calls the endpoint of a resource."""
        return f"http://127.0.0.1:{self.port}"

    def reply(self, request: Request) -> Reply:
        """As OpenAI, once path, key and version are in order."""
        path, _, query = request.target.decode().partition("?")
        if not path.startswith("/openai/"):
            return super().reply(request)
        if request.header(b"api-key") != self._key:
            return json_reply(401, json.dumps(_DENIED).encode())
        body: JsonObject = json.loads(request.body or b"{}")
        if path.startswith(_DEPLOYMENTS):
            name, _, path = path.removeprefix(_DEPLOYMENTS).partition("/")
            if "api-version" not in parse_qs(query):
                return _not_found()
            body["model"] = name
        elif path.startswith(_UNDATED):
            path = path.removeprefix(_UNDATED)
        else:
            return _not_found()
        if body.get("model") == "mock-filtered":
            return json_reply(400, json.dumps(_FILTERED).encode())
        passed_on = replace(request, target=f"/v1/{path}".encode(), body=json.dumps(body).encode())
        reply = super().reply(passed_on)
        return _with_filter(reply) if body.get("stream") and b"text/event-stream" in reply.head else reply


def _with_filter(reply: Reply) -> Reply:
    """A stream with the event at its head that has no choices."""
    event = b"data: %b\n\n" % json.dumps(_OF_THE_PROMPT).encode()
    return replace(reply, pieces=[b"%x\r\n%b\r\n" % (len(event), event), *reply.pieces])


def _not_found() -> Reply:
    return json_reply(404, json.dumps({"error": {"code": "404", "message": "Resource not found"}}).encode())
