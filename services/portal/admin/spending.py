"""GET /admin/v1/budgets/explain: what is spent, what is held, and for which jobs."""

from starlette.requests import Request
from starlette.responses import Response

from infra.redis.client import RedisUnavailable
from schemas.errors import Unavailable
from services.portal.access import Actor
from services.portal.admin.wire import Endpoints, Operation, answer, query
from services.portal.budgets import LevelsAsked
from services.portal.spending import Explained, Explanations


def spending_endpoints(explanations: Explanations) -> Endpoints:
    """The endpoint, and what it says while Redis is away."""

    async def explain(request: Request, actor: Actor) -> Response:
        try:
            return answer(await explanations.explain(query(request, LevelsAsked), actor))
        except RedisUnavailable as error:
            raise Unavailable(f"The ledger doesn't answer ({error}). Try again.", retry_after_s=1) from None

    return [
        Operation(
            "GET",
            "/budgets/explain",
            explain,
            "What is spent and held of budgets, with the jobs it is held for",
            LevelsAsked,
            Explained,
        )
    ]
