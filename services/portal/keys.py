"""Virtual keys: made, rotated, revoked, resumed; and how they are shown, which is without any hash."""

import logging
from collections.abc import Callable, Iterable, Sequence
from typing import Literal

from pydantic import BaseModel

from infra.clock import new_id
from infra.credentials import key_hash, new_key
from infra.redis.client import Redis, RedisUnavailable
from infra.redis.last_used import last_used_ms
from schemas.control import Hold, VirtualKey
from schemas.errors import InvalidRequest
from schemas.policy import Policy
from services.portal import policy
from services.portal.access import Actor, Right, check, visible
from services.portal.kinds import Kinds
from services.portal.policy import KeyState
from services.portal.resources import ListedOfTeam
from services.portal.store import Store
from services.portal.wanted import NewKey, Rotation

log = logging.getLogger(__name__)


class KeysAsked(ListedOfTeam):
    """GET /admin/v1/keys."""

    project: str | None = None
    environment: str | None = None
    user: str | None = None


class KeyMade(BaseModel):
    """A new key; the only time that its secret is shown."""

    id: str
    key: str
    team: str
    last4: str
    version: int = 1
    expires_ms: int = 0


class KeyRotated(KeyMade):
    """A new secret of a standing key, shown only this once; the one before is taken until `old_until_ms`, null: no longer."""

    rotated_ms: int
    old_until_ms: int | None


class OldShown(BaseModel):
    """A secret that was rotated, and until when it is taken."""

    until_ms: int


class KeyShown(BaseModel):
    """A virtual key without what its secrets are known by. Times in unix milliseconds; 0 or null: never."""

    kind: Literal["key"] = "key"
    id: str
    last4: str
    team: str
    project: str
    environment: str
    user: str
    name: str
    version: int
    policy: Policy
    revoked: bool
    state: KeyState
    created_ms: int
    expires_ms: int
    rotated_ms: int
    last_used_ms: int | None
    old: tuple[OldShown, ...]
    ip_ranges: tuple[str, ...]
    held: Hold | None


class Keys:
    """Acts on virtual keys."""

    def __init__(self, store: Store, kinds: Kinds, redis: Redis) -> None:
        self._store = store
        self._kinds = kinds
        self._redis = redis

    async def create(self, wanted: NewKey, actor: Actor) -> KeyMade:
        """A new key, and its project and environment where those are new. Raises NotFound for an unknown team, NotAllowed."""
        team = policy.the_team(visible(actor, self._store.table.teams), wanted.team)
        check(actor, Right.KEYS, team.name, "Making a key")
        secret, born = new_key(), self._store.clock()
        key = VirtualKey(
            id=new_id("key", born),
            sha256=key_hash(secret),
            last4=secret[-4:],
            team=team.name,
            project=wanted.project,
            environment=wanted.environment,
            user=wanted.user,
            name=wanted.name,
            policy=limited(wanted.policy, wanted.requests_per_minute),
            created_ms=born,
            expires_ms=in_future(wanted.expires_ms(born), born),
            ip_ranges=wanted.ip_ranges,
        )
        async with self._store.writing():
            await self._kinds.keys.create_within(key, actor)
            await self._store.make_place(key.team, key.project, key.environment, actor)
        return KeyMade(id=key.id, key=secret, team=team.name, last4=key.last4, expires_ms=key.expires_ms)

    async def rotate(self, key_id: str, wanted: Rotation, expected: frozenset[str] | None, actor: Actor) -> KeyRotated:
        """A new secret; the old one is taken for the overlap. Raises NotFound, NotAllowed, VersionConflict, InvalidRequest."""
        secret = new_key()

        def change(key: VirtualKey) -> VirtualKey:
            now_ms = self._store.clock()
            if not policy.is_live(key, now_ms):
                state = policy.key_state(key, now_ms)
                raise InvalidRequest(
                    f"The key {key.id} is {state}: make a new one with `sluice keys create`.", code=f"key_{state}"
                )
            return policy.rotated(key, key_hash(secret), secret[-4:], now_ms, wanted.overlap_s * 1000)

        key = await self._kinds.keys.change(key_id, change, expected, actor, "rotated", Right.KEYS)
        return KeyRotated(
            id=key.id,
            key=secret,
            team=key.team,
            last4=key.last4,
            version=key.version,
            expires_ms=key.expires_ms,
            rotated_ms=key.rotated_ms,
            old_until_ms=max((old.until_ms for old in key.old), default=None),
        )

    async def revoke(self, key_id: str, expected: frozenset[str] | None, actor: Actor) -> KeyShown:
        """The key, which nobody can use from now on. Raises NotFound, NotAllowed, VersionConflict."""

        def change(key: VirtualKey) -> VirtualKey:
            return key.model_copy(update={"revoked": True, "old": ()})

        return await self.shown(await self._kinds.keys.change(key_id, change, expected, actor, "revoked", Right.KEYS))

    async def resume(self, key_id: str, expected: frozenset[str] | None, actor: Actor) -> KeyShown:
        """The key, held no longer. Raises as `revoke`."""

        def change(key: VirtualKey) -> VirtualKey:
            return key.model_copy(update={"held": None})

        return await self.shown(await self._kinds.keys.change(key_id, change, expected, actor, "resumed", Right.KEYS))

    async def page(self, asked: KeysAsked, actor: Actor) -> tuple[Sequence[KeyShown], str | None]:
        """Keys in the order in which they were made."""
        keys, after = self._kinds.keys.page(asked, actor, _wanted(asked))
        return await self._all_shown(keys), after

    async def shown(self, key: VirtualKey) -> KeyShown:
        """A key as people see it."""
        (shown,) = await self._all_shown([key])
        return shown

    async def _all_shown(self, keys: Sequence[VirtualKey]) -> list[KeyShown]:
        now_ms = self._store.clock()
        return [_shown(key, used_ms, now_ms) for key, used_ms in zip(keys, await self._last_used(keys), strict=True)]

    async def _last_used(self, keys: Sequence[VirtualKey]) -> Sequence[int | None]:
        """While Redis is away keys can still be looked at and revoked."""
        try:
            return await last_used_ms(self._redis, [key.id for key in keys])
        except RedisUnavailable as error:
            log.warning("portal: when keys were used last is not known now (%s)", error)
            return [None] * len(keys)


def limited(written: Policy, requests_per_minute: int | None) -> Policy:
    """The policy with this limit in it, if one is given."""
    if requests_per_minute is None:
        return written
    limits = written.limits.model_copy(update={"requests_per_minute": requests_per_minute})
    return written.model_copy(update={"limits": limits})


def _wanted(asked: KeysAsked) -> Callable[[VirtualKey], bool]:
    given: Iterable[tuple[str, str | None]] = [
        (name, getattr(asked, name)) for name in ("team", "project", "environment", "user")
    ]
    named = [(name, value) for name, value in given if value is not None]
    return lambda key: all(getattr(key, name) == value for name, value in named)


def in_future(expires_ms: int, now_ms: int) -> int:
    """The time, unless it is over. Raises InvalidRequest."""
    if 0 < expires_ms <= now_ms:
        raise InvalidRequest("`expires_at` is over already; it is in unix seconds.", param="expires_at")
    return expires_ms


def _shown(key: VirtualKey, used_ms: int | None, now_ms: int) -> KeyShown:
    members = key.model_dump(include=set(KeyShown.model_fields) - {"old", "policy", "held"})
    old = tuple(OldShown(until_ms=old.until_ms) for old in key.old if old.until_ms > now_ms)
    shown = {"policy": key.policy, "held": key.held, "old": old}
    return KeyShown.model_validate(members | shown | {"state": policy.key_state(key, now_ms), "last_used_ms": used_ms})
