"""GET /v1/models and /v1/models/{model}: the aliases that the caller's key may ask for."""

from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from infra.clock import Clock
from infra.kafka.table import ControlTable
from schemas.control import Model
from schemas.errors import ModelNotFound
from schemas.openai.answers import ModelCard, ModelList
from services.ingress.handler import Admissions
from services.ingress.http.requests import credentials
from services.ingress.http.responses import JSON


class Models:
    """The model list, in OpenAI's shape."""

    def __init__(self, admissions: Admissions, table: ControlTable, clock: Clock) -> None:
        self._admissions, self._table, self._clock = admissions, table, clock

    async def list(self, http: HttpRequest) -> Response:
        models = sorted((await self._allowed(http)).values(), key=lambda model: model.name)
        return Response(ModelList(data=[_card(model) for model in models]).model_dump_json(), media_type=JSON)

    async def retrieve(self, http: HttpRequest) -> Response:
        name = str(http.path_params["model"])
        model = (await self._allowed(http)).get(name)
        if model is None:
            raise ModelNotFound(f"The model `{name[:100]}` does not exist or is not yours to use", param="model")
        return Response(_card(model).model_dump_json(), media_type=JSON)

    async def _allowed(self, http: HttpRequest) -> dict[str, Model]:
        policy = (await self._admissions.identify(credentials(http))).policy
        return {name: model for name, model in self._table.models.items() if policy.allows(name, self._clock())}


def _card(model: Model) -> ModelCard:
    return ModelCard(id=model.name, created=model.created_ms // 1000, owned_by=model.owned_by)
