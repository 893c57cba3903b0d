"""Which deployments are left alone, the same for all routers; who may try one again; and what each router sees of them."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final, Literal, NamedTuple, cast

from pydantic import ValidationError
from pydantic_core import to_json

from infra.redis.client import Argument, Redis, Script
from schemas.deployments import RouterSeen

TRY_MS: Final = 15_000
"""For so long nobody else tries a deployment that somebody tries."""
CHECK_MS: Final = 8_000
SEEN_MS: Final = 5_000

_HEALTH: Final = Script.load("health")
_SEEN: Final = Script.load("health_seen")
_DEPLOYMENTS: Final = "health:deployments"
_ROUTERS: Final = "health:routers"

Why = Literal["failures", "errors", "credential"]
"""It failed some times in a row; too many of its calls failed; its provider refuses our credential."""


class Opened(NamedTuple):
    """It is left alone until `until_ms`, for the `rounds`th time; with `others` only if one of these is up."""

    deployment: str
    until_ms: int
    rounds: int
    why: Why
    others: tuple[str, ...] = ()


class Closed(NamedTuple):
    """A call went well. `stamp`: of the standing that it ends; another one, which came since, stays."""

    deployment: str
    stamp: int


class Eased(NamedTuple):
    """It may be tried at once."""

    deployment: str
    stamp: int


class Lifted(NamedTuple):
    """Whatever kept it from being asked is over."""

    deployment: str


Change = Opened | Closed | Eased | Lifted


class Standing(NamedTuple):
    """A deployment that is left alone until `until_ms`. Until `held_ms` one router alone may try it: the asker, or another.

    `is_new`: nobody had told so before this exchange.
    """

    until_ms: int
    rounds: int
    why: Why
    stamp: int
    held_ms: int
    is_mine: bool
    is_new: bool


class Wants(NamedTuple):
    """Deployments that the asker would try, and those that it would look after without a call."""

    tries: Iterable[str] = ()
    checks: Iterable[str] = ()


async def exchange(
    redis: Redis, router: str, changes: Sequence[Change], wants: Wants, seen: RouterSeen | None, now_ms: int
) -> Mapping[str, Standing]:
    """Tells what has changed and hears of all that are left alone. Raises RedisUnavailable.

    Times go over as what is left of them: clocks of routers need not agree.
    """
    args: list[Argument] = [router, TRY_MS, CHECK_MS, seen.model_dump_json(exclude_defaults=True) if seen else "", len(changes)]
    for change in changes:
        args += _words(change, now_ms)
    for word, names in (("try", wants.tries), ("check", wants.checks)):
        for name in names:
            args += [word, name]
    told = cast("list[bytes | int]", await redis.run(_HEALTH, [_DEPLOYMENTS, _ROUTERS], args))
    return dict(_standing(told[at : at + 8], now_ms) for at in range(0, len(told), 8))


async def lift(redis: Redis, deployment: str) -> None:
    """It may be asked again, by all routers. Raises RedisUnavailable."""
    await redis.run(_HEALTH, [_DEPLOYMENTS, _ROUTERS], ["-", TRY_MS, CHECK_MS, "", 1, *_words(Lifted(deployment), 0)])


async def seen_by_routers(redis: Redis) -> list[RouterSeen]:
    """What the routers that are alive see. Raises RedisUnavailable."""
    found: list[RouterSeen] = []
    for text in cast("list[bytes]", await redis.run(_SEEN, [_ROUTERS], [SEEN_MS])):
        try:
            found.append(RouterSeen.model_validate_json(text))
        except ValidationError:
            # A router of another version.
            continue
    return found


def _words(change: Change, now_ms: int) -> list[Argument]:
    match change:
        case Opened(deployment, until_ms, rounds, why, others):
            return ["open", deployment, max(0, until_ms - now_ms), rounds, why, to_json(others)]
        case Closed(deployment, stamp):
            return ["close", deployment, stamp, "", "", ""]
        case Eased(deployment, stamp):
            return ["ease", deployment, stamp, "", "", ""]
        case Lifted(deployment):
            return ["lift", deployment, "", "", "", ""]


def _standing(told: Sequence[bytes | int], now_ms: int) -> tuple[str, Standing]:
    name, why = cast("bytes", told[0]).decode(), cast("Why", cast("bytes", told[3]).decode())
    left_ms, rounds, stamp, held_ms, is_mine, is_new = (int(told[at]) for at in (1, 2, 4, 5, 6, 7))
    return name, Standing(now_ms + left_ms, rounds, why, stamp, now_ms + held_ms, bool(is_mine), bool(is_new))
