"""Deployments as they are now: what the routers see of them, added up; taken out by an operator, and put back."""

import logging
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import date
from typing import Final, Literal

from pydantic import BaseModel, Field

from infra.events import Acts
from infra.redis.client import Redis, RedisUnavailable
from infra.redis.health import lift, seen_by_routers
from infra.telemetry.minute import quantile_ms
from schemas.control import Deployment, DeploymentState, Model
from schemas.deployments import BreakerState, DeploymentSeen, RouterSeen
from schemas.errors import NotFound, Unavailable
from services.portal.access import Actor, Right, check, check_any
from services.portal.resources import Listed
from services.portal.store import Store

log = logging.getLogger(__name__)

_SEVERITY: Final[Sequence[BreakerState]] = ("closed", "half_open", "open", "quarantined", "drained")


class DeploymentsAsked(Listed):
    """GET /admin/v1/deployments."""

    model: str | None = None


class Said(BaseModel):
    """POST /admin/v1/deployments/{id}/drain and /resume."""

    why: str = Field(default="", max_length=1024)


class DeploymentShown(BaseModel):
    """A deployment, how it is at all routers together, and what became of its calls within the last minute.

    `state` unknown: no router tells. `until_ms`: when it is tried again. `limit`: calls at once that it may have; null: any.
    """

    id: str
    model: str
    provider: str
    provider_model: str
    region: str | None
    state: BreakerState | Literal["unknown"] = "unknown"
    why: str = ""
    until_ms: int = 0
    calls: int = 0
    errors: int = 0
    p50_ms: float | None = None
    p95_ms: float | None = None
    limit: int | None = None
    in_flight: int = 0
    shutdown_date: date | None = None


class Deployments:
    """Looks at deployments, and acts on them."""

    def __init__(self, store: Store, redis: Redis, acts: Acts) -> None:
        self._store = store
        self._redis = redis
        self._acts = acts

    async def page(self, asked: DeploymentsAsked, actor: Actor) -> tuple[Sequence[DeploymentShown], str | None]:
        """Deployments by id, and where to go on. Raises NotAllowed."""
        check_any(actor, "Looking at deployments")
        all_ = {one.id: (model.name, one) for model, one in _of(self._store.table.models.values(), asked.model)}
        names = sorted(name for name in all_ if name > asked.after)
        seen = await self._seen()
        shown = [self._shown(*all_[name], seen) for name in names[: asked.limit]]
        return shown, shown[-1].id if len(names) > len(shown) else None

    async def drain(self, deployment_id: str, said: Said, actor: Actor) -> DeploymentShown:
        """The deployment, which gets no new calls from now on; those at work go on. Raises NotFound, NotAllowed."""
        async with self._store.writing():
            check(actor, Right.PLATFORM, what="Draining a deployment")
            self._find(deployment_id)
            await self._write(deployment_id, said.why, actor, drained=True)
        return await self._one(deployment_id)

    async def resume(self, deployment_id: str, said: Said, actor: Actor) -> DeploymentShown:
        """The deployment, which is asked again, whoever or whatever took it out. Raises NotFound, NotAllowed, Unavailable."""
        async with self._store.writing():
            check(actor, Right.PLATFORM, what="Resuming a deployment")
            self._find(deployment_id)
            changed = await self._write(deployment_id, said.why, actor, drained=False)
        try:
            await lift(self._redis, deployment_id)
        except RedisUnavailable as error:
            raise Unavailable("Redis is away: the routers can't be told to ask it again. Try again.", retry_after_s=1) from error
        if not changed:
            await self._acts.tell(
                actor.author("deployment.resumed", said.why), "deployment.resumed", f"deployment/{deployment_id}"
            )
        return await self._one(deployment_id)

    async def _write(self, deployment_id: str, why: str, actor: Actor, *, drained: bool) -> bool:
        """False where it stands so already. Within `writing`."""
        before = self._store.table.deployment_states.get(deployment_id)
        version = before.version + 1 if before else 1
        since_ms = before.since_ms if before and before.drained == drained else self._store.clock()
        after = DeploymentState(id=deployment_id, drained=drained, why=why, since_ms=since_ms, version=version)
        if (before.drained, before.why) == (drained, why) if before else not drained:
            return False
        await self._store.write(after, author=actor.author(f"deployment.{'drained' if drained else 'resumed'}", why))
        return True

    async def _one(self, deployment_id: str) -> DeploymentShown:
        return self._shown(*self._find(deployment_id), await self._seen())

    def _find(self, deployment_id: str) -> tuple[str, Deployment]:
        for model, one in _of(self._store.table.models.values()):
            if one.id == deployment_id:
                return model.name, one
        raise NotFound(f"There is no deployment {deployment_id[:64]!r}. `sluice deployments list` shows them.")

    async def _seen(self) -> Mapping[str, Sequence[DeploymentSeen]] | None:
        """What the routers tell of each deployment; None if none of them does."""
        try:
            routers = await seen_by_routers(self._redis)
        except RedisUnavailable as error:
            log.warning("portal: what routers see is not known now (%s)", error)
            return None
        return _by_deployment(routers) if routers else None

    def _shown(self, model: str, deployment: Deployment, seen: Mapping[str, Sequence[DeploymentSeen]] | None) -> DeploymentShown:
        told = seen.get(deployment.id, ()) if seen is not None else ()
        took: Counter[int] = Counter()
        for one in told:
            took.update(one.took)
        limits = [one.limit for one in told if one.limit is not None]
        state, why, until_ms = self._state(deployment.id, told if seen is not None else None)
        return DeploymentShown(
            id=deployment.id,
            model=model,
            provider=deployment.provider,
            provider_model=deployment.model,
            region=deployment.region,
            state=state,
            why=why,
            until_ms=until_ms,
            calls=sum(one.calls for one in told),
            errors=sum(one.errors for one in told),
            p50_ms=quantile_ms(took, 0.5),
            p95_ms=quantile_ms(took, 0.95),
            limit=sum(limits) if limits else None,
            in_flight=sum(one.busy for one in told),
            shutdown_date=deployment.shutdown_date,
        )

    def _state(
        self, deployment_id: str, told: Sequence[DeploymentSeen] | None
    ) -> tuple[BreakerState | Literal["unknown"], str, int]:
        """What stands in the control table, else the worst that a router sees."""
        standing = self._store.table.deployment_states.get(deployment_id)
        if standing and standing.drained:
            return "drained", standing.why, 0
        if told is None:
            return "unknown", "", 0
        # That it is drained no more may not have come to the routers yet.
        others = [one for one in told if one.state != "drained"]
        worst = max(others, key=lambda one: (_SEVERITY.index(one.state), one.until_ms), default=None)
        return (worst.state, worst.why, worst.until_ms) if worst else ("closed", "", 0)


def _of(models: Iterable[Model], name: str | None = None) -> Iterator[tuple[Model, Deployment]]:
    return ((model, one) for model in models if name in (None, model.name) for one in model.deployments)


def _by_deployment(routers: Iterable[RouterSeen]) -> Mapping[str, Sequence[DeploymentSeen]]:
    found: dict[str, list[DeploymentSeen]] = defaultdict(list)
    for router in routers:
        for one in router.deployments:
            found[one.id].append(one)
    return found
