"""Which provider serves a deployment, by the name in front of its model."""

import random
from collections.abc import Callable, Mapping
from typing import Protocol, runtime_checkable

from infra.embeddings.lazy import LazyEmbedder
from infra.secrets.book import Secrets
from infra.settings import Settings
from schemas.control import Deployment
from services.router.providers.base import Provider
from services.router.providers.http import Http


class Providers:
    """All providers of this process, each imported and made at first use: who never asks Bedrock doesn't carry botocore.

    `close` ends their connections and threads; the secrets are somebody else's.
    """

    def __init__(self, settings: Settings, secrets: Secrets) -> None:
        self._http = Http(settings.concurrency)
        self._secrets = secrets
        self._secret = secrets.of
        self.embedder = LazyEmbedder(settings.data_dir / "models")
        self._made: dict[str, Provider] = {}
        self._makers: Mapping[str, Callable[[], Provider]] = {
            "anthropic": self._anthropic,
            "azure": self._azure,
            "bedrock": self._bedrock,
            "echo": self._echo,
            "gemini": self._gemini,
            "litellm": self._litellm,
            "local": self._local,
            "vertex_ai": self._vertex,
        }

    def of(self, deployment: Deployment) -> Provider:
        """Whoever isn't named above speaks OpenAI's API, at its api_base or where it is known to be."""
        name = deployment.provider if deployment.provider in self._makers else "openai"
        if name not in self._made:
            self._made[name] = self._makers.get(name, self._openai)()
        return self._made[name]

    async def renewed(self, deployment: Deployment, age_s: float) -> bool:
        """The credential with which it was called `age_s` ago was refused: whether there is another one by now."""
        return any([await self._secrets.refused(reference, age_s) for reference in deployment.references])

    async def lists_models(self, deployment: Deployment) -> bool:
        """As `lists_models` of listing.py."""
        from services.router.providers.listing import lists_models

        return await lists_models(deployment, self._secret, self._http)

    async def close(self) -> None:
        await self._http.close()
        await self.embedder.close()
        for provider in self._made.values():
            if isinstance(provider, _Closes):
                await provider.close()

    def _openai(self) -> Provider:
        from services.router.providers.openai import OpenAI

        return OpenAI(self._secret, self._http)

    def _azure(self) -> Provider:
        from services.router.providers.azure import Azure

        return Azure(self._secret, self._http)

    def _anthropic(self) -> Provider:
        from services.router.providers.anthropic import Anthropic

        return Anthropic(self._secret, self._http)

    def _gemini(self) -> Provider:
        from services.router.providers.gemini import Gemini

        return Gemini(self._secret, self._http)

    def _vertex(self) -> Provider:
        from services.router.providers.vertex import Vertex

        return Vertex(self._secret, self._http)

    def _bedrock(self) -> Provider:
        from services.router.providers.bedrock import Bedrock

        return Bedrock(self._secret, self._http)

    def _litellm(self) -> Provider:
        from services.router.providers.litellm import LiteLLM

        return LiteLLM(self._secret)

    def _local(self) -> Provider:
        from services.router.providers.local import Local

        return Local(self.embedder)

    def _echo(self) -> Provider:
        from services.router.providers.echo import Echo

        return Echo(random.random)


@runtime_checkable
class _Closes(Protocol):
    async def close(self) -> None: ...
