"""Providers' lists of models: free to ask for, and refused to who has no right credential. Nothing is read of them."""

import random
from collections.abc import Mapping
from typing import NamedTuple

from schemas.control import Deployment
from schemas.ids import uuid7_hex
from schemas.job import Api
from services.router.providers.anthropic import ANTHROPIC, VERSION
from services.router.providers.base import ProviderRequest, SecretOf
from services.router.providers.compatible import base_of
from services.router.providers.gemini import GEMINI
from services.router.providers.http import Http


class _Listing(NamedTuple):
    """Where a provider lists its models, the header with the credential, what stands before it there, and other headers."""

    url: str
    header: str
    before: str = ""
    headers: Mapping[str, str] = {}


async def lists_models(deployment: Deployment, secret_of: SecretOf, http: Http) -> bool:
    """True if its provider gives its list of models; raises ProviderFailure if it refuses, or can't be reached.

    False for who has no such list that is free and needs nothing but a key.
    """
    listing = _listing(deployment)
    secret = await secret_of(deployment.api_key) if deployment.api_key else None
    if listing is None or (deployment.api_key and not secret):
        return False
    request = ProviderRequest(f"probe-{uuid7_hex(0, random.getrandbits(74))}", Api.CHAT, {}, deployment)
    headers = {**listing.headers, **({listing.header: listing.before + secret} if secret else {})}
    async with http.post(request, listing.url, headers, b"", secrets=(secret,) if secret else (), method="GET"):
        return True


def _listing(deployment: Deployment) -> _Listing | None:
    match deployment.provider:
        case "echo" | "local" | "bedrock" | "vertex_ai" | "azure" | "litellm":
            return None
        case "anthropic":
            base = (deployment.api_base or ANTHROPIC).rstrip("/").removesuffix("/v1")
            return _Listing(f"{base}/v1/models", "x-api-key", headers={"anthropic-version": VERSION})
        case "gemini":
            return _Listing(f"{(deployment.api_base or GEMINI).rstrip('/')}/models", "x-goog-api-key")
        case _:
            base = base_of(deployment)
            return _Listing(f"{base}/models", "authorization", "Bearer ") if base else None
