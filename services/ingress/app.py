"""Ingress: a job is admitted, and answered. Doors, subscriptions, wiring; nothing else."""

from collections.abc import Sequence

from starlette.routing import BaseRoute, Route

from infra.estimates import Estimator
from infra.kafka.inbox import Inbox
from infra.kafka.stage import Stage
from infra.oidc.tokens import IdentityTokens
from infra.platform import Platform
from infra.prices import PriceBook
from schemas.job import Api
from schemas.topics import Lane, door_topic
from services.ingress.answers import Answers
from services.ingress.batches.service import BatchService
from services.ingress.door import AHEAD, Door
from services.ingress.handler import Admissions
from services.ingress.http.completions import Completions
from services.ingress.http.documents import asyncapi_json, openapi_json
from services.ingress.http.feedback import FeedbackDoor
from services.ingress.http.job_tokens import Tokens
from services.ingress.http.jobs import Jobs
from services.ingress.http.messages_api import MessagesFront, TokenCounts
from services.ingress.http.models import Models
from services.ingress.http.responses_routes import response_routes
from services.ingress.http.text_completions import TextFront
from services.ingress.webhooks.app import Webhooks


class Ingress:
    """The HTTP door, the Kafka door, and the inbox for answers."""

    name = "ingress"

    def __init__(self, platform: Platform) -> None:
        post = platform.post(self.name)
        self._platform = platform
        self._inbox = Inbox(
            platform.kafka, platform.redis, platform.files, f"ingress-{platform.owner}", platform.settings.max_waiting
        )
        self._webhooks = Webhooks(platform)
        providers = platform.control.table.identity_providers
        self._identity_tokens = IdentityTokens(lambda: list(providers.values()), platform.clock)
        self._estimator = Estimator(platform.control.table, PriceBook(platform.control.table))
        admissions = Admissions(platform, self._webhooks.check_target, self._identity_tokens, self._estimator)
        self._answers = Answers(platform, self._inbox, post, platform.records(self.name))
        completions = Completions(platform, admissions, self._answers)
        jobs = Jobs(platform, admissions, self._answers)
        models = Models(admissions, platform.control.table, platform.clock)
        tokens = Tokens(admissions, platform.tokens, platform.clock)
        self._batches = BatchService(platform, admissions, post, self._webhooks.check_target)
        door = Door(platform, admissions, platform.tokens, post)
        source = platform.source("door", *(door_topic(lane) for lane in Lane))
        total = platform.settings.concurrency
        self._stage = Stage("door", source, door.work, total, platform.pace, ahead=AHEAD, team_of=door.team_of)
        self.routes: Sequence[BaseRoute] = [
            Route("/v1/chat/completions", completions.endpoint(Api.CHAT), methods=["POST"]),
            Route("/v1/completions", completions.endpoint(Api.CHAT, TextFront()), methods=["POST"]),
            Route("/v1/embeddings", completions.endpoint(Api.EMBEDDINGS), methods=["POST"]),
            Route("/v1/moderations", completions.endpoint(Api.MODERATIONS), methods=["POST"]),
            Route("/v1/messages", completions.endpoint(Api.CHAT, MessagesFront()), methods=["POST"]),
            Route("/v1/messages/count_tokens", TokenCounts(platform, admissions).count, methods=["POST"]),
            Route("/v1/models", models.list),
            Route("/v1/models/{model:path}", models.retrieve),
            Route("/v1/jobs", jobs.list),
            Route("/v1/jobs/{id}", jobs.retrieve),
            Route("/v1/jobs/{id}", jobs.cancel, methods=["DELETE"]),
            Route("/v1/jobs/{id}/events", jobs.events),
            Route("/v1/job_tokens", tokens.mint, methods=["POST"]),
            Route("/v1/feedback", FeedbackDoor(admissions, post, platform.clock).give, methods=["POST"]),
            *self._batches.routes,
            *response_routes(platform, admissions, self._answers, completions, jobs),
            Route("/openapi.json", openapi_json),
            Route("/asyncapi.json", asyncapi_json),
        ]

    async def start(self) -> None:
        self._estimator.start()
        await self._webhooks.start()
        await self._inbox.start()
        await self._stage.start()
        await self._batches.start()

    def not_ready(self) -> str | None:
        parts = (self._inbox, self._stage, self._batches, self._webhooks)
        return next((reason for part in parts if (reason := part.not_ready())), None)

    async def drain(self) -> None:
        await self._batches.drain()
        await self._stage.drain(self._platform.settings.drain_s)
        await self._webhooks.drain()

    async def stop(self) -> None:
        await self._batches.stop()
        await self._stage.stop()
        await self._webhooks.stop()
        await self._answers.stop()
        await self._inbox.stop()
        await self._identity_tokens.close()
        await self._estimator.stop()


def build(platform: Platform) -> Ingress:
    return Ingress(platform)
