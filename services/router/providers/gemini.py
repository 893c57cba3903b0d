"""Gemini as Google AI Studio sells it: generativelanguage.googleapis.com, with an API key."""

from services.router.providers.base import ProviderRequest, SecretOf
from services.router.providers.failures import unavailable
from services.router.providers.google.calls import Door, Google
from services.router.providers.google.embeddings import EmbeddingWay, batch_embed
from services.router.providers.http import Http

GEMINI = "https://generativelanguage.googleapis.com/v1beta"


class Gemini(Google):
    """Calls deployments of the provider `gemini`. An `api_base` takes the place of the address with its version."""

    def __init__(self, secret: SecretOf, http: Http) -> None:
        super().__init__(http)
        self._secret = secret

    async def door(self, request: ProviderRequest) -> Door:
        deployment = request.deployment
        key = await self._secret(deployment.api_key) if deployment.api_key else None
        if not key:
            raise unavailable(deployment.id, "can't be asked: the credential that the deployment refers to is not set")
        # In a header: addresses are logged on the way.
        url = f"{(deployment.api_base or GEMINI).rstrip('/')}/{_path(deployment.model)}"
        return Door(url, {"x-goog-api-key": key}, (key,))

    def embeds(self, model: str) -> EmbeddingWay:
        return batch_embed(_path(model))


def _path(model: str) -> str:
    """`models/NAME`, or another path such as `tunedModels/NAME` as it is."""
    return model if "/" in model else f"models/{model}"
