"""Who administrates by an identity token: a user with the roles that were given to it, and those of its groups."""

from collections.abc import Sequence

from infra.hierarchy import group_rules, user_name
from infra.kafka.table import ControlTable
from infra.oidc.tokens import Identified, IdentityTokens
from schemas.control import GroupRule, User
from services.portal.access import Actor


class Identities:
    """Makes actors of tokens."""

    def __init__(self, tokens: IdentityTokens, table: ControlTable) -> None:
        self._tokens = tokens
        self._table = table

    async def actor(self, token: str) -> Actor:
        """Whose token it is. Raises InvalidKey that says what is wrong with it; Unavailable if its issuer can't be asked."""
        identified = await self._tokens.verify(token)
        rules = group_rules(identified.provider, identified.groups)
        return actor_of(identified.name, self._user(identified), rules)

    def _user(self, identified: Identified) -> User | None:
        return self._table.users.get(user_name(self._table, identified.name, identified.subject))


def actor_of(name: str, user: User | None, rules: Sequence[GroupRule]) -> Actor:
    """A user by its memberships and the rules of its groups."""
    given = [(held.role, held.team) for held in user.memberships] if user else []
    by_group = [(rule.role, rule.team) for rule in rules if rule.role is not None]
    return Actor(f"user/{name}", tuple(dict.fromkeys([*given, *by_group])))
