"""A team's webhook secrets, and an event to try an endpoint with."""

import asyncio

from pydantic import BaseModel, Field
from pydantic_core import to_json

from infra.clock import new_id
from infra.platform import Platform
from infra.webhooks.courier import Courier
from infra.webhooks.lookup import Unreachable
from infra.webhooks.signing import secrets_of, shown, signed_headers
from infra.webhooks.targets import MAX_URL, Refused, Target, parse
from schemas.base import JsonObject
from schemas.control import Team
from schemas.errors import InvalidRequest
from schemas.event import Author
from schemas.policy import inherit
from services.portal import policy


class WebhookSecret(BaseModel):
    """What a team's events are signed with. `previous` is in use too, until the next rotation; null before the first."""

    team: str
    version: int
    secret: str
    previous: str | None


class NewTry(BaseModel):
    """POST /admin/v1/teams/{name}/webhooks/test."""

    url: str = Field(max_length=MAX_URL)


class Tried(BaseModel):
    """What came of a test event. `status` is what the endpoint answered; null if there was no answer, `reason` says why."""

    id: str
    delivered: bool
    status: int | None
    reason: str


class Webhooks:
    """Shows, rotates and tries. `writing`: held by whoever gives a resource its next version."""

    def __init__(self, platform: Platform, writing: asyncio.Lock, courier: Courier | None = None) -> None:
        self._platform, self._writing = platform, writing
        self._courier = courier or Courier()

    def secret(self, name: str) -> WebhookSecret:
        """The secrets of a team. Raises NotFound."""
        return self._shown(self._team(name))

    async def rotate(self, name: str, author: Author) -> WebhookSecret:
        """A new secret; events are signed with it and with the one that it follows on. Raises NotFound."""
        async with self._writing:
            team = self._team(name)
            update = {"webhook_secret_version": team.webhook_secret_version + 1, "version": team.version + 1}
            rotated = team.model_copy(update=update)
            await self._platform.control.write(rotated, author=author)
            return self._shown(rotated)

    async def try_out(self, name: str, wanted: NewTry) -> Tried:
        """Sends an event to an endpoint, once. Raises NotFound, and InvalidRequest for a URL to which no event may go."""
        team = self._team(name)
        try:
            return await self._send(team, self._target(team, wanted.url))
        except Refused as refusal:
            raise InvalidRequest(f"url: {refusal}.", param="url", code="webhook_refused") from None

    def _target(self, team: Team, url: str) -> Target:
        organization = self._platform.control.table.organizations.get(team.organization)
        levels = [*([organization.policy] if organization else []), team.policy]
        return parse(url, inherit(levels, "").webhooks)

    async def _send(self, team: Team, target: Target) -> Tried:
        now_ms = self._platform.clock()
        event_id = new_id("evt", now_ms)
        payload: JsonObject = {
            "id": event_id,
            "object": "event",
            "type": "webhook.test",
            "created_at": now_ms // 1000,
            "data": {"team": team.name},
        }
        body = to_json(payload)
        headers = signed_headers(secrets_of(self._platform.signer, team), event_id, now_ms // 1000, body)
        try:
            status = (await self._courier.send(target, headers, body)).status
        except Unreachable as failure:
            return Tried(id=event_id, delivered=False, status=None, reason=str(failure))
        delivered = 200 <= status < 300
        return Tried(id=event_id, delivered=delivered, status=status, reason="" if delivered else f"it answered {status}")

    def _team(self, name: str) -> Team:
        return policy.the_team(self._platform.control.table.teams, name)

    def _shown(self, team: Team) -> WebhookSecret:
        newest, *before = map(shown, secrets_of(self._platform.signer, team))
        return WebhookSecret(
            team=team.name, version=team.webhook_secret_version, secret=newest, previous=before[0] if before else None
        )
