"""The way of one event to its endpoint: checked, signed, sent, and what follows from the answer."""

import logging
import random
import re
from collections.abc import Callable

from pydantic_core import to_json

from infra.clock import Clock
from infra.kafka.envelope import Poison, decode
from infra.kafka.log import Incoming
from infra.kafka.post import Post, delay_for
from infra.kafka.table import ControlTable
from infra.signing import Signer
from infra.telemetry import metrics
from infra.webhooks.courier import Answered, Courier
from infra.webhooks.lookup import Unreachable
from infra.webhooks.signing import secrets_of, signed_headers
from infra.webhooks.targets import Refused, Target, parse
from schemas.control import Team
from schemas.policy import WebhookPolicy
from schemas.topics import Delay
from schemas.webhook import WebhookDelivery
from services.ingress.webhooks import policy
from services.ingress.webhooks.places import Places
from services.ingress.webhooks.policy import Again, Next, Over, PutAside

log = logging.getLogger(__name__)

DEAD_REASON = "webhook"
AT_ONCE, PER_HOST, PER_TEAM = 256, 32, 128

_ID = re.compile(r"[A-Za-z0-9_-]{1,128}")


class Deliveries:
    """Tries to deliver events: a record is a try. May send one again after a death, under the same id."""

    def __init__(
        self,
        table: ControlTable,
        courier: Courier,
        post: Post,
        signer: Signer,
        clock: Clock,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._table, self._courier, self._post = table, courier, post
        self._signer, self._clock, self._chance = signer, clock, chance
        self._places = Places(PER_HOST, PER_TEAM)

    async def work(self, record: Incoming, _: bool) -> None:
        """One try, or none if the endpoint may not be asked now; returns when what follows from it is acknowledged."""
        delivery = read(record)
        if isinstance(delivery, Poison):
            await self._put_aside(record, delivery)
        elif delay := delay_for(delivery.not_before_ms - self._clock()):
            await self._post.webhook(delivery, delay)
        else:
            await self._act(record, delivery, await self._deliver(delivery))

    async def _deliver(self, delivery: WebhookDelivery) -> Next:
        try:
            team, allowed = self._standing(delivery)
            target = parse(delivery.url, allowed)
        except Refused as refusal:
            return PutAside("refused", str(refusal))
        if not self._places.take(target.host, team.name):
            return self._put_off(delivery, target)
        answered = False
        try:
            answer = await self._send(delivery, team, target)
            answered = True
        except Refused as refusal:
            return PutAside("refused", str(refusal))
        except Unreachable as failure:
            return policy.after_failure(delivery, str(failure), self._clock(), self._chance())
        finally:
            self._places.give_back(target.host, team.name, answered=answered)
        return policy.after_answer(delivery, answer.status, answer.retry_after, self._clock(), self._chance())

    async def _send(self, delivery: WebhookDelivery, team: Team, target: Target) -> Answered:
        body = to_json(delivery.payload)
        headers = signed_headers(secrets_of(self._signer, team), delivery.id, self._clock() // 1000, body)
        return await self._courier.send(target, headers, body)

    def _standing(self, delivery: WebhookDelivery) -> tuple[Team, WebhookPolicy]:
        """The team, and where its events may go. Raises Refused if there is no such team (any longer)."""
        team = self._table.teams.get(delivery.team)
        organization = self._table.organizations.get(team.organization) if team else None
        if team is None or organization is None:
            raise Refused(f"there is no team {delivery.team[:64]!r}")
        return team, policy.webhooks_of(organization, team, self._table.keys.get(delivery.key_id))

    def _put_off(self, delivery: WebhookDelivery, target: Target) -> Again:
        """Too many are under way there: later, which is no try."""
        delay = Delay.MEDIUM if self._places.is_failing(target.host) else Delay.SHORT
        return Again(delivery.model_copy(update={"not_before_ms": self._clock() + delay.ms}))

    async def _act(self, record: Incoming, delivery: WebhookDelivery, following: Next) -> None:
        match following:
            case Over(how):
                metrics.WEBHOOKS.labels(how).inc()
                if how == "gone":
                    log.warning("webhook %s of team %s: the endpoint is gone (410)", delivery.id, delivery.team)
            case Again(later):
                metrics.WEBHOOKS.labels("again" if later.attempt > delivery.attempt else "put_off").inc()
                await self._post.webhook(later, delay_for(later.not_before_ms - self._clock()))
            case PutAside(how, why):
                log.warning("webhook %s of team %s: %s", delivery.id, delivery.team, why)
                metrics.WEBHOOKS.labels(how).inc()
                await self._post.dead(record, Poison(DEAD_REASON, why))

    async def _put_aside(self, record: Incoming, poison: Poison) -> None:
        log.warning("webhook: %s from %s: %s", poison.reason, record.topic, poison.detail)
        await self._post.dead(record, poison)


def read(record: Incoming) -> WebhookDelivery | Poison:
    """The delivery in a record, or why it is none. Its id becomes a header, and must be fit for one."""
    delivery = decode(record, WebhookDelivery)
    if isinstance(delivery, WebhookDelivery) and not _ID.fullmatch(delivery.id):
        return Poison("invalid", "id: a webhook's id has letters, digits, - and _ only")
    return delivery
