"""Which provider serves a deployment, by the name in front of its model."""

import random

from infra.settings import Settings
from schemas.control import Deployment
from services.router.providers.base import Provider
from services.router.providers.echo import Echo
from services.router.providers.http import Http
from services.router.providers.local import Local
from services.router.providers.openai import OpenAI
from services.router.providers.secrets import Secrets


class Providers:
    """All providers of this process. `close` ends their connections and threads."""

    def __init__(self, settings: Settings) -> None:
        self._http = Http(settings.concurrency)
        self._openai = OpenAI(Secrets(settings.secret).of, self._http)
        self._local = Local(settings.data_dir / "models")
        self._echo = Echo(random.random)

    def of(self, deployment: Deployment) -> Provider:
        """`echo` and `local` are ours; whoever else is named speaks OpenAI's API at its api_base."""
        match deployment.provider:
            case "echo":
                return self._echo
            case "local":
                return self._local
            case _:
                return self._openai

    async def close(self) -> None:
        await self._http.close()
        await self._local.close()
