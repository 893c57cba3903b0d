"""Azure OpenAI: OpenAI's API at an address of one's own, under other paths, with a header of its own, and a filter that talks.

With an `api_version` the dated API of a deployment is called (`…/openai/deployments/NAME/…?api-version=…`), else the newer one
that needs none (`…/openai/v1/…`, the deployment's name as the model). https://learn.microsoft.com/azure/ai-foundry/openai/latest
"""

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from typing import Final, cast
from urllib.parse import quote

from pydantic_core import from_json

from schemas.base import JsonObject
from schemas.control import Deployment
from schemas.job import Api
from services.router.providers.base import ProviderRequest
from services.router.providers.chat import refusal
from services.router.providers.compatible import AZURE_BEFORE_REASONING, OPENAIS, Dialect
from services.router.providers.failures import Words, openai_words, unavailable
from services.router.providers.openai import PATHS, OpenAI, Place

_UNDATED: Final = frozenset({"latest", "preview", "v1"})
"""What LiteLLM's users write as `api_version` to mean the API without one."""

_REASONING_SINCE = "2024-09-01"


class Azure(OpenAI):
    """As OpenAI, at Azure."""

    def place(self, deployment: Deployment, path: str, secret: str | None) -> Place:
        if not deployment.api_base:
            raise unavailable(deployment.id, "has no address: the deployment needs an api_base")
        if path == PATHS[Api.MODERATIONS]:
            raise refusal("Azure OpenAI has no moderations: ask another model.", "model")
        url = _url(deployment.api_base.rstrip("/"), deployment, path)
        return Place(url, {"api-key": secret} if secret else {}, (secret,) if secret else ())

    def dialect(self, deployment: Deployment) -> Dialect:
        dated = _dated(deployment)
        return AZURE_BEFORE_REASONING if dated and dated < _REASONING_SINCE else OPENAIS

    def words(self, status: int, headers: Mapping[str, str], body: bytes) -> Words:
        """Also what the content filter says, and the gate before it (API Management)."""
        words = openai_words(status, headers, body)
        said = _object(body)
        error = said.get("error")
        inner = error.get("innererror") if isinstance(error, dict) else None
        if isinstance(inner, dict) and inner.get("code") == "ResponsibleAIPolicyViolation":
            return words | {"code": "content_filter"}
        message = said.get("message")
        return words | {"message": message} if "message" not in words and isinstance(message, str) else words

    async def stream(self, request: ProviderRequest) -> AsyncGenerator[Sequence[str]]:
        """A stream without the event at its head that tells what the filter thinks of the prompt: it has no choices."""
        async with aclosing(super().stream(request)) as batches:
            async for batch in batches:
                if kept := [data for data in batch if not _is_filters(data)]:
                    yield kept


def _url(base: str, deployment: Deployment, path: str) -> str:
    dated = _dated(deployment)
    if base.endswith("/v1"):
        return base + path
    if dated is None:
        return f"{base.removesuffix('/openai')}/openai/v1{path}"
    if "/openai/deployments/" not in base:
        base = f"{base.removesuffix('/openai')}/openai/deployments/{quote(deployment.model, safe='')}"
    return f"{base}{path}?api-version={quote(dated, safe='')}"


def _dated(deployment: Deployment) -> str | None:
    version = deployment.api_version
    return None if version in _UNDATED else version or None


def _is_filters(data: str) -> bool:
    """True for an event of the filter's alone. Others may carry what it says of the answer beside the answer."""
    if '"prompt_filter_results"' not in data:
        return False
    event = _object(data)
    return bool(event) and not event.get("choices") and not event.get("usage")


def _object(text: str | bytes) -> JsonObject:
    """The JSON object, or an empty one where it is none."""
    try:
        parsed = cast("object", from_json(text))
    except ValueError:
        return {}
    return cast("JsonObject", parsed) if isinstance(parsed, dict) else {}
