"""GET /v1/models and /v1/models/{model}: the aliases that the caller's key may ask for, as OpenAI or Anthropic lists them."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, time

from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from infra import anthropic
from infra.clock import Clock
from infra.kafka.table import ControlTable
from schemas.anthropic.models import ModelInfo, ModelPage
from schemas.control import Model
from schemas.errors import InvalidRequest, ModelNotFound
from schemas.openai.answers import ModelCard, ModelList
from services.ingress.handler import Admissions
from services.ingress.http.paging import whole_number
from services.ingress.http.requests import credentials
from services.ingress.http.responses import JSON

_MOST = 1000


class Models:
    """The model list: in Anthropic's shape for who sends `anthropic-version`, else in OpenAI's."""

    def __init__(self, admissions: Admissions, table: ControlTable, clock: Clock) -> None:
        self._admissions, self._table, self._clock = admissions, table, clock

    async def list(self, http: HttpRequest) -> Response:
        models = sorted((await self._allowed(http)).values(), key=lambda model: model.name)
        told = page(models, http.query_params) if anthropic.asks(http) else ModelList(data=[card(model) for model in models])
        return Response(told.model_dump_json(), media_type=JSON)

    async def retrieve(self, http: HttpRequest) -> Response:
        name = str(http.path_params["model"])
        model = (await self._allowed(http)).get(name)
        if model is None:
            raise ModelNotFound(f"The model `{name[:100]}` does not exist or is not yours to use", param="model")
        told = info(model) if anthropic.asks(http) else card(model)
        return Response(told.model_dump_json(), media_type=JSON)

    async def _allowed(self, http: HttpRequest) -> dict[str, Model]:
        policy = (await self._admissions.identify(credentials(http))).policy
        return {name: model for name, model in self._table.models.items() if policy.allows(name, self._clock())}


def card(model: Model) -> ModelCard:
    """A model as OpenAI lists it."""
    ends = model.shutdown_date
    shutdown_date = ends.isoformat() if ends else None
    return ModelCard(id=model.name, created=model.created_ms // 1000, owned_by=model.owned_by, shutdown_date=shutdown_date)


def page(models: Sequence[Model], query: Mapping[str, str]) -> ModelPage:
    """Anthropic's paging: behind `after_id`, or right before `before_id`. Raises InvalidRequest."""
    limit = whole_number(query, "limit", 20, _MOST)
    names = [model.name for model in models]
    if before := query.get("before_id"):
        end = _place(names, before, "before_id")
        start = max(0, end - limit)
        more = start > 0
    else:
        start = _place(names, query["after_id"], "after_id") + 1 if query.get("after_id") else 0
        end = min(len(names), start + limit)
        more = end < len(names)
    ids = names[start:end] or [None]
    data = [info(model) for model in models[start:end]]
    return ModelPage(data=data, has_more=more, first_id=ids[0], last_id=ids[-1])


def _place(names: Sequence[str], name: str, param: str) -> int:
    if name not in names:
        raise InvalidRequest(f"{param} must be the id of a model in the list", param=param)
    return names.index(name)


def info(model: Model) -> ModelInfo:
    """A model as Anthropic lists it."""
    ends = model.shutdown_date
    return ModelInfo(
        id=model.name,
        display_name=model.name,
        created_at=datetime.fromtimestamp(model.created_ms // 1000, UTC),
        lifecycle="deprecated" if ends else "active",
        retires_at=datetime.combine(ends, time(), UTC) if ends else None,
        max_input_tokens=_least(d.max_input_tokens for d in model.deployments),
        max_tokens=_least(d.max_output_tokens for d in model.deployments),
    )


def _least(known: Iterable[int | None]) -> int | None:
    """What every deployment takes, as far as they say."""
    return min((n for n in known if n is not None), default=None)
