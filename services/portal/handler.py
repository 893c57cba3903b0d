"""What an administrator can do: teams, keys, job tokens, the configuration. Everything ends on the control topic."""

from pydantic import BaseModel

from infra.clock import new_id
from infra.events import Acts
from infra.platform import Platform
from infra.redis.once import Once
from schemas.control import Organization, Team, resource_key
from schemas.event import Author
from schemas.topics import RESULTS
from services.portal import declared, policy
from services.portal.access import Actor, Right, check, visible
from services.portal.budgets import Budgets
from services.portal.config.alerts import check_channels
from services.portal.config.references import check_credentials
from services.portal.declared import Configuration
from services.portal.keys import Keys, limited
from services.portal.kinds import Kinds
from services.portal.operators import Operators
from services.portal.store import Store
from services.portal.wanted import NewJobToken, NewKey, NewTeam
from services.portal.webhooks import Webhooks


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

    def __init__(self, platform: Platform, acts: Acts) -> None:
        self._platform = platform
        self._acts = acts
        self.table = platform.control.table
        self.store = Store(platform.control, platform.clock, Once(platform.redis))
        self.kinds = Kinds(self.store)
        self.keys = Keys(self.store, self.kinds, platform.redis)
        self.operators = Operators(self.store, self.kinds)
        self.budgets = Budgets(self.store, self.kinds)
        self.webhooks = Webhooks(platform, self.store.lock)

    async def ensure_organization(self) -> None:
        """The house has one organization from its first start on."""
        async with self.store.writing():
            if not self.table.organizations:
                born = self._platform.clock()
                organization = Organization(id=new_id("org", born), name=policy.DEFAULT_ORGANIZATION)
                await self.store.write(organization, author=Author(actor="sluice"))

    async def create_team(self, wanted: NewTeam, actor: Actor) -> Team:
        """A new team, and the topic on which it gets its results. Raises InvalidRequest if the name is taken; NotAllowed."""
        async with self.store.writing():
            check(actor, Right.TEAMS, what="Making a team")
            policy.check_new_team(self.table.teams, wanted.name)
            return await self._new_team(wanted, actor)

    def team(self, name: str, actor: Actor) -> Team:
        """The team of this name. Raises NotFound, also where the actor doesn't see it."""
        return policy.the_team(visible(actor, self.table.teams), name)

    async def job_token(self, wanted: NewJobToken, actor: Actor) -> TokenMade:
        """A token for a team's Kafka records, minted from its youngest key; a team without one gets one that nobody sees."""
        team, now_ms = self.team(wanted.team, actor), self._platform.clock()
        check(actor, Right.KEYS, team.name, "Minting a job token")
        key = policy.newest_key(self.table.keys.values(), team.name, now_ms)
        key_id = key.id if key else (await self.keys.create(NewKey(team=team.name, user="job-token"), actor)).id
        token = self._platform.tokens.mint(key_id, now_ms // 1000, wanted.expires_in)
        made = TokenMade(token=token, expires_at=now_ms // 1000 + wanted.expires_in, team=team.name)
        told = {"team": team.name, "expires_at": made.expires_at}
        await self._acts.tell(actor.name, "job_token.minted", f"key/{key_id}", after={**told})
        return made

    def configuration(self, actor: Actor) -> Configuration:
        """The configuration as it stands. Raises NotAllowed."""
        check(actor, Right.READ, what="Looking at the configuration")
        return declared.standing(self.table)

    async def apply(self, wanted: Configuration, actor: Actor) -> Applied:
        """Makes what is declared stand: models exactly so, policies as a whole; missing teams are created.

        Raises InvalidRequest for what refers to a team that isn't there, and for credentials; NotAllowed.
        """
        check(actor, Right.PLATFORM, what="Applying a configuration")
        check_credentials(wanted.models)
        check_channels(wanted.alerts)
        async with self.store.writing():
            now_ms = self._platform.clock()
            changes = declared.changes(self.table, wanted, now_ms, lambda prefix: new_id(prefix, now_ms))
            for team in changes.new_teams():
                await self._platform.kafka.create_for_team(RESULTS, team.name, self._platform.settings.replication)
            author = actor.author("config.applied")
            await self.store.write(*changes.writes, author=author)
            await self.store.delete(*changes.deletes, author=author)
            return Applied(applied=[resource_key(r) for r in changes.writes], deleted=list(changes.deletes))

    async def _new_team(self, wanted: NewTeam, actor: Actor) -> Team:
        born = self._platform.clock()
        team = Team(
            id=new_id("team", born),
            name=wanted.name,
            organization=next(iter(self.table.organizations)),
            policy=limited(wanted.policy, wanted.requests_per_minute),
            created_ms=born,
        )
        await self._platform.kafka.create_for_team(RESULTS, team.name, self._platform.settings.replication)
        return await self.kinds.teams.create_within(team, actor)
