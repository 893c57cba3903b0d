"""What an administrator can do: teams, keys, job tokens, the configuration. Everything ends on the control topic."""

import asyncio

from pydantic import BaseModel, Field

from infra.clock import new_id
from infra.credentials import MAX_LIFE_S, key_hash, new_key
from infra.platform import Platform
from schemas.control import Name, Organization, Resource, Team, VirtualKey, resource_key
from schemas.errors import NotFound
from schemas.policy import Limits, Policy
from schemas.topics import RESULTS
from services.portal import policy
from services.portal.config import Configuration, TeamPolicy
from services.portal.webhooks import Webhooks


class NewTeam(BaseModel):
    """POST /admin/v1/teams."""

    name: Name
    requests_per_minute: int | None = Field(default=None, ge=1)
    policy: Policy = Policy()


class NewKey(BaseModel):
    """POST /admin/v1/keys."""

    team: str
    project: str = Field(default="", max_length=128)
    environment: str = Field(default="", max_length=64)
    user: str = Field(default="", max_length=256)
    requests_per_minute: int | None = Field(default=None, ge=1)
    policy: Policy = Policy()


class NewJobToken(BaseModel):
    """POST /admin/v1/job_tokens."""

    team: str
    expires_in: int = Field(default=12 * 3600, ge=60, le=MAX_LIFE_S)


class KeyMade(BaseModel):
    """A new key; the only time that its secret is shown."""

    id: str
    key: str
    team: str
    last4: str


class TokenMade(BaseModel):
    """A job token, and when it ends in unix seconds."""

    token: str
    expires_at: int
    team: str


class Applied(BaseModel):
    """Which resources a configuration wrote and deleted, by record key."""

    applied: list[str]
    deleted: list[str]


class Admin:
    """Acts on the control topic. Writes are one at a time, so that a version is given once."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform
        self._table = platform.control.table
        self._writing = asyncio.Lock()
        self.webhooks = Webhooks(platform, self._writing)

    async def ensure_organization(self) -> None:
        """The house has one organization from its first start on."""
        if not self._table.organizations:
            born = self._platform.clock()
            organization = Organization(id=new_id("org", born), name=policy.DEFAULT_ORGANIZATION)
            await self._platform.control.write(organization)

    async def create_team(self, wanted: NewTeam) -> Team:
        """A new team, and the topic on which it gets its results. Raises InvalidRequest if the name is taken."""
        async with self._writing:
            policy.check_new_team(self._table.teams, wanted.name)
            return await self._new_team(wanted)

    def team(self, name: str) -> Team:
        """The team of this name. Raises NotFound."""
        return policy.the_team(self._table.teams, name)

    def teams(self) -> list[Team]:
        return sorted(self._table.teams.values(), key=lambda team: team.name)

    async def create_key(self, wanted: NewKey) -> KeyMade:
        """A new virtual key. Raises NotFound for an unknown team."""
        team, secret, born = policy.the_team(self._table.teams, wanted.team), new_key(), self._platform.clock()
        key = VirtualKey(
            id=new_id("key", born),
            sha256=key_hash(secret),
            last4=secret[-4:],
            team=team.name,
            project=wanted.project,
            environment=wanted.environment,
            user=wanted.user,
            policy=_limited(wanted.policy, wanted.requests_per_minute),
            created_ms=born,
        )
        await self._platform.control.write(key)
        return KeyMade(id=key.id, key=secret, team=team.name, last4=key.last4)

    def key(self, secret: str) -> VirtualKey | None:
        """The virtual key that has this secret."""
        return self._table.keys_by_hash.get(key_hash(secret))

    def keys(self, team: str | None) -> list[VirtualKey]:
        return sorted((k for k in self._table.keys.values() if team in (None, k.team)), key=lambda key: key.created_ms)

    async def revoke_key(self, key_id: str) -> VirtualKey:
        """The key, which nobody can use from now on. Raises NotFound."""
        async with self._writing:
            key = self._table.keys.get(key_id)
            if key is None:
                raise NotFound(f"There is no key {key_id[:64]!r}. `sluice keys list` shows them.")
            revoked = key.model_copy(update={"revoked": True, "version": key.version + 1})
            await self._platform.control.write(revoked)
            return revoked

    async def job_token(self, wanted: NewJobToken) -> TokenMade:
        """A token for a team's Kafka records, minted from its youngest key; a team without one gets one that nobody sees."""
        team = policy.the_team(self._table.teams, wanted.team)
        key = policy.newest_key(self._table.keys.values(), team.name)
        key_id = key.id if key else (await self.create_key(NewKey(team=team.name, user="job-token"))).id
        now_s = self._platform.clock() // 1000
        token = self._platform.tokens.mint(key_id, now_s, wanted.expires_in)
        return TokenMade(token=token, expires_at=now_s + wanted.expires_in, team=team.name)

    def configuration(self) -> Configuration:
        """The configuration as it stands."""
        organization = next(iter(self._table.organizations.values()), None)
        return Configuration(
            models=sorted(self._table.models.values(), key=lambda model: model.name),
            organization_policy=organization.policy if organization else None,
            teams=[TeamPolicy(name=team.name, policy=team.policy) for team in self.teams()],
        )

    async def apply(self, wanted: Configuration) -> Applied:
        """Makes the models exactly those of the configuration, and sets the policies that it names; missing teams are created."""
        async with self._writing:
            before = set(self._table.teams)
            for team in wanted.teams:
                if team.name not in before:
                    await self._new_team(NewTeam(name=team.name, policy=team.policy))
            writes: list[Resource] = []
            writes_models, deleted = policy.changed_models(self._table.models, wanted.models, self._platform.clock())
            writes += writes_models
            writes += self._changed_policies(wanted)
            await self._platform.control.write(*writes)
            for key in deleted:
                await self._platform.control.delete(key)
            created = [f"team/{team.name}" for team in wanted.teams if team.name not in before]
            return Applied(applied=created + [resource_key(r) for r in writes], deleted=deleted)

    def _changed_policies(self, wanted: Configuration) -> list[Resource]:
        changed: list[Resource] = []
        for organization in self._table.organizations.values():
            if wanted.organization_policy is not None:
                changed += filter(None, [policy.with_policy(organization, wanted.organization_policy)])
        for team in wanted.teams:
            changed += filter(None, [policy.with_policy(self._table.teams[team.name], team.policy)])
        return changed

    async def _new_team(self, wanted: NewTeam) -> Team:
        born = self._platform.clock()
        team = Team(
            id=new_id("team", born),
            name=wanted.name,
            organization=next(iter(self._table.organizations)),
            policy=_limited(wanted.policy, wanted.requests_per_minute),
            created_ms=born,
        )
        await self._platform.kafka.create_for_team(RESULTS, team.name, self._platform.settings.replication)
        await self._platform.control.write(team)
        return team


def _limited(written: Policy, requests_per_minute: int | None) -> Policy:
    if requests_per_minute is None:
        return written
    return written.model_copy(update={"limits": Limits(requests_per_minute=requests_per_minute)})
