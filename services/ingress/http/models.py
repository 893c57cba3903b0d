"""GET /v1/models and /v1/models/{model}: the aliases that the caller's key may ask for."""

from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from infra.kafka.table import ControlTable
from schemas.control import Model
from schemas.errors import ModelNotFound
from schemas.openai.answers import ModelCard, ModelList
from services.ingress.handler import Admissions
from services.ingress.http.requests import bearer
from services.ingress.http.responses import JSON


class Models:
    """The model list, in OpenAI's shape."""

    def __init__(self, admissions: Admissions, table: ControlTable) -> None:
        self._admissions = admissions
        self._table = table

    async def list(self, http: HttpRequest) -> Response:
        models = sorted(self._allowed(http).values(), key=lambda model: model.name)
        return Response(ModelList(data=[_card(model) for model in models]).model_dump_json(), media_type=JSON)

    async def retrieve(self, http: HttpRequest) -> Response:
        name = str(http.path_params["model"])
        model = self._allowed(http).get(name)
        if model is None:
            raise ModelNotFound(f"The model `{name[:100]}` does not exist or is not yours to use", param="model")
        return Response(_card(model).model_dump_json(), media_type=JSON)

    def _allowed(self, http: HttpRequest) -> dict[str, Model]:
        allowed = self._admissions.identify(bearer(http.headers)).policy().models
        return {name: model for name, model in self._table.models.items() if allowed is None or name in allowed}


def _card(model: Model) -> ModelCard:
    return ModelCard(id=model.name, created=model.created_ms // 1000, owned_by=model.owned_by)
