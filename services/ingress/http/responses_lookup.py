"""/v1/responses/{id}: what became of a response: the object, its events, its input; to be cancelled, or forgotten."""

from pydantic_core import to_json
from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from schemas.base import JsonObject
from schemas.errors import InvalidRequest
from schemas.openai.responses import ItemList, ResponseDeleted
from services.ingress.answers import Client
from services.ingress.handler import Admissions
from services.ingress.http.paging import whole_number
from services.ingress.http.requests import credentials, disconnected
from services.ingress.http.responses import ASK_AGAIN_S, JSON
from services.ingress.http.responses_kept import Keeper, Whole
from services.ingress.http.responses_stream import FROM_THE_FIRST, stream
from services.ingress.http.streams import EventStream
from services.ingress.responses.telling import Telling

OVER = ("completed", "failed", "incomplete", "cancelled")
"""How a response stands that doesn't change any more."""


class ResponseLookup:
    """The endpoints of one response. One of another team doesn't exist."""

    def __init__(self, admissions: Admissions, keeper: Keeper) -> None:
        self._admissions = admissions
        self._keeper = keeper

    async def retrieve(self, http: HttpRequest) -> Response:
        """GET /v1/responses/{id}, and with `stream=true&starting_after=N` its events."""
        streamed = http.query_params.get("stream") == "true"
        whole = await self._find(http) if streamed else await self._keeper.find_settled(*await self._asked(http))
        headers = {"x-request-id": whole.job_id, "x-sluice-job": whole.job_id}
        if not streamed:
            return object_response(await self._keeper.told(whole), headers)
        after = _starting_after(http.query_params.get("starting_after"))
        events = self._keeper.events(whole.found, Client(disconnected(http), stays=True))
        return EventStream(stream(Telling(whole.frame), events, after), headers)

    async def cancel(self, http: HttpRequest) -> Response:
        """POST /v1/responses/{id}/cancel: the same however often it is asked."""
        whole = await self._find(http)
        if not whole.background:
            raise InvalidRequest("Cannot cancel a synchronous response.")
        whole = await self._keeper.cancel(whole)
        return object_response(await self._keeper.told(whole), {"x-sluice-job": whole.job_id})

    async def delete(self, http: HttpRequest) -> Response:
        """DELETE /v1/responses/{id}."""
        whole = await self._find(http)
        await self._keeper.delete(whole)
        return Response(ResponseDeleted(id=whole.id).model_dump_json(), media_type=JSON)

    async def input_items(self, http: HttpRequest) -> Response:
        """GET /v1/responses/{id}/input_items?order=&after=&limit=: the latest first unless asked otherwise."""
        items = list((await self._find(http)).kept.items)
        query = http.query_params
        if query.get("order") != "asc":
            items.reverse()
        limit = whole_number(query, "limit", 20, 100)
        ids = [str(item["id"]) for item in items]
        start = ids.index(query["after"]) + 1 if query.get("after") in ids else 0
        page, page_ids = items[start : start + limit], ids[start : start + limit] or [None]
        more = len(items) > start + limit
        told = ItemList(data=page, first_id=page_ids[0], last_id=page_ids[-1], has_more=more)
        return Response(told.model_dump_json(), media_type=JSON)

    async def _find(self, http: HttpRequest) -> Whole:
        return await self._keeper.find(*await self._asked(http))

    async def _asked(self, http: HttpRequest) -> tuple[str, str]:
        """Which team asks for which response."""
        return (await self._admissions.identify(credentials(http))).team.name, str(http.path_params["id"])


def object_response(told: JsonObject, headers: dict[str, str], status: int = 200) -> Response:
    """A response on the wire; if it isn't over, with when to ask again."""
    if told["status"] not in OVER:
        headers = headers | {"openai-poll-after-ms": str(ASK_AGAIN_S * 1000)}
    return Response(to_json(told), status, headers, JSON)


def _starting_after(given: str | None) -> int:
    if given is None:
        return FROM_THE_FIRST
    if not given.isdecimal() or len(given) > 9:
        raise InvalidRequest("starting_after must be the number of an event", param="starting_after")
    return int(given)
