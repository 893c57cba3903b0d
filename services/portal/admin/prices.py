"""POST /admin/v1/prices/reprice: calls of the past by the prices of now."""

from starlette.requests import Request
from starlette.responses import Response

from services.portal.access import Actor
from services.portal.admin.wire import Endpoints, Operation, answer, body
from services.portal.repricing import PricingAsked, PricingPage, Repricing


def price_endpoints(repricing: Repricing) -> Endpoints:
    """What is set of prices is a part of the configuration; this is what can be done with them."""

    async def reprice(request: Request, actor: Actor) -> Response:
        return answer(await repricing.page(await body(request, PricingAsked), actor))

    return [
        Operation(
            "POST", "/prices/reprice", reprice, "Price calls of the past again, a page at a time", PricingAsked, PricingPage
        )
    ]
