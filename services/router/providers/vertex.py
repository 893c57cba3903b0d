"""Gemini as Google Cloud sells it: Vertex AI, in a project and a location, with a service account."""

from schemas.errors import ProviderError
from services.router.providers.base import ProviderFailure, ProviderRequest, SecretOf
from services.router.providers.failures import unavailable
from services.router.providers.google.calls import Door, Google
from services.router.providers.google.embeddings import EmbeddingWay, predict
from services.router.providers.google_credentials import GoogleCredentials, NoCredentials
from services.router.providers.http import Http

_EVERYWHERE = "global"
_MANY_REGIONS = frozenset({"us", "eu"})


class Vertex(Google):
    """Calls deployments of the provider `vertex_ai`. An `api_base` takes the place of the host.

    Google fetches what lies on the web itself; not from Cloud Storage, which it would read with the rights of the project,
    whoever asks.
    """

    fetches = ("https://",)

    def __init__(self, secret: SecretOf, http: Http) -> None:
        super().__init__(http)
        self._credentials = GoogleCredentials(secret)

    async def door(self, request: ProviderRequest) -> Door:
        deployment = request.deployment
        try:
            access = await self._credentials.access(deployment.vertex.credentials)
        except NoCredentials as error:
            raise _no_credentials(deployment.id, error) from None
        project = deployment.vertex.project or access.project
        if not project:
            raise unavailable(deployment.id, "can't be asked: the deployment needs a vertex project")
        location = deployment.region or _EVERYWHERE
        base = (deployment.api_base or _host(location)).rstrip("/")
        url = f"{base}/v1/projects/{project}/locations/{location}/{_path(deployment.model)}"
        return Door(url, {"authorization": f"Bearer {access.token}"}, (access.token,))

    def embeds(self, model: str) -> EmbeddingWay:
        return predict(model)


def _host(location: str) -> str:
    if location == _EVERYWHERE:
        return "https://aiplatform.googleapis.com"
    if location in _MANY_REGIONS:
        return f"https://aiplatform.{location}.rep.googleapis.com"
    return f"https://{location}-aiplatform.googleapis.com"


def _path(model: str) -> str:
    """Google's own model by its name; what the house has tuned as `endpoints/NUMBER`."""
    return model if "/" in model else f"publishers/google/models/{model}"


def _no_credentials(deployment: str, error: NoCredentials) -> ProviderFailure:
    if not error.denied:
        return unavailable(deployment, f"can't be asked: {error}")
    return ProviderFailure("denied", ProviderError(f"Deployment {deployment} can't be asked: {error}.").fault())
