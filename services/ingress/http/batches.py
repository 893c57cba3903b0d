"""`/v1/batches` as OpenAI's SDK uses it: ordered, looked at, listed, cancelled; of another team there are none."""

import asyncio
import logging
from contextlib import suppress

from pydantic import ValidationError
from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from infra.clock import new_id
from infra.kafka.post import Post
from infra.platform import Platform
from infra.redis.admission import Attached, Keeping, admit
from infra.redis.batches import Batches, Seen
from infra.redis.client import RedisUnavailable
from schemas.batch import BatchOrder
from schemas.errors import InvalidRequest, NotFound, Unavailable
from schemas.openai.batches import Batch, BatchList, BatchRequest
from services.ingress import policy as admission
from services.ingress.batches import policy
from services.ingress.batches.files import Files
from services.ingress.handler import Admissions, CheckWebhook
from services.ingress.http.paging import guarded, whole_number
from services.ingress.http.requests import credentials, parse_object, read_body
from services.ingress.http.responses import JSON
from services.ingress.idempotency import Claim, Repeatable, repeatable, the_same
from services.ingress.identities import Identity

log = logging.getLogger(__name__)

_MAX_BYTES = 64 * 1024
_SUBMIT_S = 5.0
_PAGE, _MOST = 20, 100


class BatchEndpoints:
    """The endpoints of one process."""

    def __init__(
        self,
        platform: Platform,
        admissions: Admissions,
        post: Post,
        files: Files,
        views: Batches,
        check_webhook: CheckWebhook,
    ) -> None:
        self._platform, self._admissions, self._post = platform, admissions, post
        self._files, self._views, self._check_webhook = files, views, check_webhook

    @guarded
    async def create(self, http: HttpRequest) -> Response:
        """POST /v1/batches: acknowledged by the log before it is answered."""
        identity = await self._identify(http)
        data = await read_body(http, _MAX_BYTES)
        order = self._order(identity, _checked(data), http)
        await self._check_file(order)
        if order.webhook:
            await self._check_webhook(order.webhook, identity.policy.webhooks)
        again = repeatable(http.headers, http.url.path, data, identity.team.name, identity.asker)
        if again is not None:
            order = await self._once(order, again)
            with suppress(RedisUnavailable):
                if seen := await self._views.find(order.id, order.caller.team, 0):
                    return _json(policy.shown(seen.batch, seen.cancel_ms))
        try:
            async with asyncio.timeout(_SUBMIT_S):
                await self._post.order(order)
        except TimeoutError:
            raise Unavailable("The queue does not answer. Try again.", code="queue_unavailable", retry_after_s=2) from None
        batch = policy.asked(order)
        with suppress(RedisUnavailable):
            await self._views.create(batch, order.caller.team, order.created_ms)
        return _json(batch)

    @guarded
    async def retrieve(self, http: HttpRequest) -> Response:
        seen = await self._found(http)
        return _json(policy.shown(seen.batch, seen.cancel_ms))

    @guarded
    async def list(self, http: HttpRequest) -> Response:
        """GET /v1/batches?after=&limit=, the youngest first."""
        team = (await self._identify(http)).team.name
        limit = whole_number(http.query_params, "limit", _PAGE, _MOST)
        page = await self._views.page(team, http.query_params.get("after", ""), limit + 1)
        data = [policy.shown(seen.batch, seen.cancel_ms) for seen in page[:limit]]
        ends = (data[0].id, data[-1].id) if data else (None, None)
        found = BatchList(data=data, first_id=ends[0], last_id=ends[1], has_more=len(page) > limit)
        return Response(found.model_dump_json(), media_type=JSON)

    @guarded
    async def cancel(self, http: HttpRequest) -> Response:
        """POST /v1/batches/{id}/cancel: the runner hears of it within a second."""
        seen = await self._found(http, self._platform.clock())
        policy.check_cancellable(seen.batch)
        return _json(policy.shown(seen.batch, seen.cancel_ms))

    async def _once(self, order: BatchOrder, again: Repeatable) -> BatchOrder:
        """The order, or that of the same request before. Raises IdempotencyKeyReused, Unavailable."""
        claim = Claim(job_id=order.id, sha=again.sha, partition=0, accepted_ms=order.created_ms, deadline_ms=order.deadline_ms)
        keeping = Keeping(
            job_id=order.id,
            accepted_ms=order.created_ms,
            claim_key=again.key,
            claim=claim.model_dump_json().encode(),
            claim_ms=again.kept_ms(order.deadline_ms - order.created_ms),
            attaches=again.attaches,
        )
        try:
            found = await admit(self._platform.redis, keeping=keeping)
        except RedisUnavailable:
            raise Unavailable("Requests made before can't be found at the moment. Try again.", retry_after_s=1) from None
        if not isinstance(found, Attached):
            return order
        claim = the_same(found.claim, again)
        return order.model_copy(update={"id": claim.job_id, "created_ms": claim.accepted_ms, "deadline_ms": claim.deadline_ms})

    async def _found(self, http: HttpRequest, cancel_ms: int = 0) -> Seen:
        """By what the runner told last; a batch that is over is also known by its end, whatever became of Redis."""
        team, batch_id = (await self._identify(http)).team.name, str(http.path_params["batch_id"])
        try:
            seen = await self._views.find(batch_id, team, cancel_ms)
        except RedisUnavailable:
            ended = await self._files.remembered(team, batch_id)
            if ended is None:
                raise
            return Seen(ended, 0)
        if seen is None:
            ended = await self._files.remembered(team, batch_id)
            seen = Seen(ended, 0) if ended else None
        if seen is None:
            raise NotFound(f"No batch found with id '{batch_id[:100]}'.", param="id")
        return seen

    def _order(self, identity: Identity, request: BatchRequest, http: HttpRequest) -> BatchOrder:
        headers, now_ms = http.headers, self._platform.clock()
        expires = request.output_expires_after
        return BatchOrder(
            id=new_id("batch", now_ms),
            caller=identity.caller,
            groups=identity.groups,
            input_file_id=request.input_file_id,
            endpoint=request.endpoint,
            api=policy.api_of(request.endpoint),
            metadata=request.metadata,
            labels=admission.labels(headers.get("x-sluice-metadata")),
            created_ms=now_ms,
            deadline_ms=policy.deadline_ms(headers.get("x-sluice-deadline"), request.metadata, now_ms),
            output_expires_after_s=expires.seconds if expires else None,
            webhook=headers.get("x-sluice-webhook", ""),
        )

    async def _check_file(self, order: BatchOrder) -> None:
        file = await self._files.find(order.caller.team, order.input_file_id)
        if file is None:
            raise NotFound(f"No such File object: {order.input_file_id[:100]}", param="input_file_id")
        if file.purpose != "batch":
            raise InvalidRequest("The input file must have the purpose `batch`.", param="input_file_id")

    async def _identify(self, http: HttpRequest) -> Identity:
        return await self._admissions.identify(credentials(http))


def _checked(body: bytes) -> BatchRequest:
    try:
        return BatchRequest.model_validate(parse_object(body))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        param = ".".join(str(part) for part in first["loc"])
        raise InvalidRequest(f"Invalid value for `{param}`: {first['msg']}", param=param) from None


def _json(batch: Batch) -> Response:
    return Response(batch.model_dump_json(), media_type=JSON)
