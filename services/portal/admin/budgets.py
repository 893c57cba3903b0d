"""/admin/v1/budgets and limits: set at a level by naming it."""

from starlette.requests import Request
from starlette.responses import Response

from services.portal.access import Actor
from services.portal.admin.wire import Endpoints, Operation, answer, body, if_match, page, query
from services.portal.budgets import BudgetAsked, Budgets, BudgetShown, LevelsAsked, LimitsShown, NewBudget, NewLimits


def budget_endpoints(budgets: Budgets) -> Endpoints:
    """The endpoints of budgets and of limits."""

    async def put(request: Request, actor: Actor) -> Response:
        return answer(await budgets.put(await body(request, NewBudget), if_match(request), actor))

    async def list_(request: Request, actor: Actor) -> Response:
        return page(*budgets.page(query(request, LevelsAsked), actor))

    async def remove(request: Request, actor: Actor) -> Response:
        return answer(await budgets.remove(query(request, BudgetAsked), if_match(request), actor))

    async def limit(request: Request, actor: Actor) -> Response:
        return answer(await budgets.limit(await body(request, NewLimits), if_match(request), actor))

    async def list_limits(request: Request, actor: Actor) -> Response:
        return page(*budgets.limits_page(query(request, LevelsAsked), actor))

    return [
        Operation("PUT", "/budgets", put, "Set the budget of a period at a level", NewBudget, BudgetShown),
        Operation("GET", "/budgets", list_, "List budgets", LevelsAsked, BudgetShown, many=True),
        Operation("DELETE", "/budgets", remove, "Remove the budget of a period at a level", BudgetAsked, BudgetShown),
        Operation("PUT", "/limits", limit, "Set limits at a level: those named, null lifts one", NewLimits, LimitsShown),
        Operation("GET", "/limits", list_limits, "List limits", LevelsAsked, LimitsShown, many=True),
    ]
