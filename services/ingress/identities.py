"""Who asks: by a virtual key (whose bill it is), by an identity token (who it is), or by both."""

import ipaddress
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from infra import hierarchy
from infra.charging import Account
from infra.clock import Clock
from infra.credentials import key_hash, well_formed
from infra.hierarchy import Level
from infra.kafka.table import ControlTable
from infra.oidc.tokens import Identified, looks_like_token
from schemas.control import GroupRule, IdentityProvider, Organization, Team, VirtualKey
from schemas.errors import InvalidKey, KeyPaused, NotAllowed
from schemas.job import Caller
from schemas.policy import EffectivePolicy

MOST_KNOWN = 10_000
"""Identities that are remembered; keys are bounded by the control table, people by nothing."""

_INCORRECT = "Incorrect API key provided. Ask your platform team for a virtual key (it begins with sk-sl-)."


_Name = tuple[str, ...]
"""The key, and who has come with it: the person, and those of its groups that matter."""


class Verifier(Protocol):
    """Checks identity tokens (infra/oidc)."""

    async def verify(self, token: str) -> Identified:
        """Raises InvalidKey, or Unavailable while the issuer can't be asked."""
        ...


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a request brings: the bearer credential (a key or a token), an identity token beside it, and where it comes from.

    `forwarded`: `x-forwarded-for`, which is believed of our own proxies alone.
    """

    secret: str
    token: str = ""
    address: str = ""
    forwarded: str = ""


@dataclass(frozen=True, slots=True)
class Identity:
    """Who asks and who pays, the policy that applies, and what is charged to whom. `key` None: a token alone.

    `groups`: those of who asks that rules name.
    """

    organization: Organization
    team: Team
    key: VirtualKey | None
    caller: Caller
    policy: EffectivePolicy
    account: Account
    groups: tuple[str, ...] = ()

    @property
    def asker(self) -> str:
        """Names whoever repeats a request: the key, or who asks without one."""
        return self.caller.key_id or self.caller.identity


class Identities:
    """Finds out who asks, once for each version of what that comes from."""

    def __init__(self, table: ControlTable, tokens: Verifier, clock: Clock, proxies: Sequence[str] = ()) -> None:
        """`proxies`: networks of our own proxies."""
        self._table, self._tokens, self._clock, self._proxies = table, tokens, clock, proxies
        self._known: OrderedDict[_Name, Identity] = OrderedDict()

    def forget(self) -> None:
        """The control table has changed."""
        self._known.clear()

    async def find(self, given: Credentials) -> Identity:
        """Who asks. Raises InvalidKey, NotAllowed."""
        alone = looks_like_token(given.secret)
        if alone and given.token:
            raise InvalidKey("Two identity tokens were given: send one, as the bearer or as `x-sluice-identity`.")
        # The key first: nobody without one has a signature checked, or an issuer asked.
        key = None if alone else self._key_of(given.secret)
        if key is not None and not given.token:
            identity = self.of_key(key)
        else:
            identity = self._of_person(await self._tokens.verify(given.secret if alone else given.token), key)
        if identity.key is not None:
            self._check_address(identity.key, given)
        if identity.policy.identity == "required" and not identity.caller.identity:
            raise InvalidKey(
                "This key asks who you are: send your identity token as `x-sluice-identity: <JWT>`.", code="identity_required"
            )
        return identity

    def of_key_id(self, key_id: str) -> Identity:
        """Who holds the key with this id, for work that was accepted before. Raises InvalidKey, NotAllowed."""
        key = self._table.keys.get(key_id)
        if key is None or key.revoked:
            raise InvalidKey(_INCORRECT)
        return self.of_key(key)

    def again(self, caller: Caller, groups: Sequence[str]) -> Identity:
        """Who asked for what was accepted before, by keys, rules and policies as they are now. Raises InvalidKey, NotAllowed."""
        if not caller.identity:
            return self.of_key_id(caller.key_id)
        key = self.of_key_id(caller.key_id).key if caller.key_id else None
        provider = self._table.identity_providers.get(caller.identity.partition(":")[0])
        if provider is None:
            raise InvalidKey("The identity provider of who asked for this is gone.")
        name = ("again", *_place(caller), *groups)
        return self._known.get(name) or self._remember(
            name, self._made(caller, key, provider, hierarchy.group_rules(provider, groups))
        )

    def of_key(self, key: VirtualKey) -> Identity:
        """Who holds a key that is still good. Raises InvalidKey, NotAllowed."""
        if key.expires_ms and key.expires_ms <= self._clock():
            raise InvalidKey("This API key has expired. Ask your platform team for a new one.", code="key_expired")
        if key.held is not None and key.held.requests_per_minute is None:
            raise KeyPaused(f"This key is paused: {key.held.reason}. Its owner can resume it with `sluice keys resume {key.id}`.")
        return self._known.get((key.id,)) or self._remember((key.id,), self._made(_caller_of(key), key))

    def _of_person(self, person: Identified, key: VirtualKey | None) -> Identity:
        if key is not None:
            self.of_key(key)
        rules = hierarchy.group_rules(person.provider, person.groups)
        # Of whoever is in other groups now, the old identity is not remembered.
        name = (key.id if key else "", person.name, *(rule.group for rule in rules))
        if (known := self._known.get(name)) is not None:
            self._known.move_to_end(name)
            return known
        caller = _caller_of(key) if key else self._billed(person, rules)
        user = hierarchy.user_name(self._table, person.name, person.subject)
        caller = caller.model_copy(update={"user": user, "identity": person.name})
        return self._remember(name, self._made(caller, key, person.provider, rules))

    def _billed(self, person: Identified, rules: Sequence[GroupRule]) -> Caller:
        """Whose bill it is when no key says so."""
        rule = next((rule for rule in rules if rule.team), None)
        user = self._table.users.get(hierarchy.user_name(self._table, person.name, person.subject))
        team = rule.team if rule else next((m.team for m in user.memberships if m.team), "") if user else ""
        if not team:
            raise NotAllowed(
                "Nobody has said which team pays for you: send a virtual key beside your token (x-api-key), or ask your platform "
                "team to map one of your groups to a team.",
                code="no_team",
            )
        project, environment = (rule.project, rule.environment) if rule else ("", "")
        return Caller(organization="", team=team, project=project, environment=environment, key_id="")

    def _made(
        self, caller: Caller, key: VirtualKey | None, provider: IdentityProvider | None = None, rules: Sequence[GroupRule] = ()
    ) -> Identity:
        team = self._table.teams.get(caller.team)
        organization = self._table.organizations.get(team.organization) if team else None
        if team is None or organization is None:
            raise InvalidKey(_INCORRECT)
        caller = caller.model_copy(update={"organization": organization.name})
        levels = hierarchy.levels(self._table, caller)
        effective = hierarchy.effective(levels, provider, rules)
        by_rules = tuple(
            Level(levels[-1].scope, provider.version if provider else 0, rule.policy, f"@{rule.group}") for rule in rules
        )
        throttled = key.held.requests_per_minute if key and key.held else None
        account = Account((*levels, *by_rules), organization.time_zone, throttled)
        return Identity(organization, team, key, caller, effective, account, tuple(rule.group for rule in rules))

    def _remember(self, name: _Name, identity: Identity) -> Identity:
        self._known[name] = identity
        while len(self._known) > MOST_KNOWN:
            self._known.popitem(last=False)
        return identity

    def _key_of(self, secret: str) -> VirtualKey:
        digest = key_hash(secret) if well_formed(secret) else ""
        key = self._table.keys_by_hash.get(digest)
        if key is None or key.revoked:
            raise InvalidKey(_INCORRECT)
        if key.sha256 != digest and not any(o.sha256 == digest and o.until_ms > self._clock() for o in key.old):
            raise InvalidKey(
                "This API key was rotated, and its old secret is not taken any more. Use the new one.", code="key_rotated"
            )
        return key

    def _check_address(self, key: VirtualKey, given: Credentials) -> None:
        if key.ip_ranges and not _is_in(self._source(given), key.ip_ranges):
            raise NotAllowed("This key may not be used from your network address.", code="ip_not_allowed")

    def _source(self, given: Credentials) -> str:
        """Who sent it: the last address that isn't one of our own proxies'."""
        address, hops = given.address, [hop.strip() for hop in given.forwarded.split(",") if hop.strip()]
        while hops and _is_in(address, self._proxies):
            address = hops.pop()
        return address


def _is_in(address: str, networks: Sequence[str]) -> bool:
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return False
    found = getattr(found, "ipv4_mapped", None) or found
    return any(found in ipaddress.ip_network(network, strict=False) for network in networks)


def _place(caller: Caller) -> tuple[str, ...]:
    return (caller.team, caller.project, caller.environment, caller.key_id, caller.user, caller.identity)


def _caller_of(key: VirtualKey) -> Caller:
    return Caller(organization="", team=key.team, project=key.project, environment=key.environment, key_id=key.id, user=key.user)
