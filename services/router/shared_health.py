"""What all routers know of their deployments: told and heard a few times a second, in one round trip, so that no job asks for it.

The same round trip takes along what this router sees of them, for who looks. While Redis is away each goes on by what it sees.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence

from infra.clock import Clock
from infra.redis.client import RedisUnavailable
from infra.redis.health import Change, Opened, Standing, Wants, Why
from schemas.alert import AlertKind, Severity
from schemas.base import JsonObject
from schemas.control import Deployment
from schemas.deployments import DeploymentSeen, RouterSeen
from services.router.health import Health
from services.router.places import Places
from services.router.roster import Roster
from services.router.tally import Tally

log = logging.getLogger(__name__)

EVERY_S = 0.3
SEEN_EVERY_MS = 1_000

Exchange = Callable[[Sequence[Change], Wants, RouterSeen | None, int], Awaitable[Mapping[str, Standing]]]
"""As `exchange` of infra/redis/health.py, in the name of this router."""

Raise = Callable[[AlertKind, str, str, str, Severity, JsonObject], Awaitable[object]]
"""As `raise_` of infra/alerts.py."""

_SOON_S = 0.02
_REASONS: Mapping[Why, str] = {
    "failures": "its calls fail, one after the other",
    "errors": "too many of its calls fail",
    "credential": "its provider refuses the gateway's credential",
}


class SharedHealth:
    """Keeps the health of this process and of the others alike, and tells of it in alerts, metrics, and to the portal."""

    def __init__(
        self, health: Health, places: Places, tally: Tally, roster: Roster, exchange: Exchange, raise_: Raise, clock: Clock
    ) -> None:
        self._health, self._places, self._tally, self._roster = health, places, tally, roster
        self._exchange, self._raise, self._clock = exchange, raise_, clock
        self._news = asyncio.Event()
        self._told_ms = 0
        self._loop: asyncio.Task[None] | None = None
        self._alerts: set[asyncio.Task[None]] = set()
        self._said: set[Opened] = set()
        health.changed = self._news.set

    async def start(self) -> None:
        """Returns when this router knows what the others know, unless Redis is away."""
        await self.tick()
        self._loop = asyncio.create_task(self._often())

    async def stop(self) -> None:
        tasks = [*self._alerts, *([self._loop] if self._loop else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def tick(self) -> None:
        """Tells and hears once."""
        self._look_at_table()
        now_ms = self._clock()
        seen = self._seen(now_ms) if now_ms - self._told_ms >= SEEN_EVERY_MS else None
        changes, wants = self._health.to_tell()
        standing: Mapping[str, Standing] | None = None
        try:
            standing = await self._exchange(changes, wants, seen, now_ms)
        except RedisUnavailable as error:
            log.debug("how deployments are is not shared now: %s", error)
        finally:
            if standing is None:
                self._health.unheard(changes)
            else:
                self._health.heard(standing, changes, self._clock())
        if standing is not None and seen is not None:
            self._told_ms = now_ms
        self._tell_people(changes, standing)

    def rotated(self, reference: str) -> None:
        """A secret has changed: those that are called with it may be asked again."""
        for deployment in self._roster.with_secret(reference):
            self._health.credential_changed(deployment, self._clock())

    async def _often(self) -> None:
        while True:
            # What comes in one turn of the loop goes together.
            await asyncio.sleep(_SOON_S)
            try:
                async with asyncio.timeout(EVERY_S):
                    await self._news.wait()
            except TimeoutError:
                pass
            self._news.clear()
            try:
                await self.tick()
            except Exception:
                log.exception("how deployments are could not be shared, trying again")

    def _look_at_table(self) -> None:
        news, now_ms = self._roster.look(), self._clock()
        self._health.drained = self._roster.drained()
        self._health.forget(news.gone)
        self._places.forget(news.gone)
        for deployment in news.rekeyed:
            self._health.credential_changed(deployment, now_ms)

    def _seen(self, now_ms: int) -> RouterSeen:
        """What this router sees, where there is something to tell; and in metrics."""
        # A call may end after its deployment is gone.
        self._tally.keep(self._roster.deployments.keys())
        seen = (self._seen_of(deployment, now_ms) for deployment in self._roster.deployments.values())
        return RouterSeen(deployments=tuple(one for one in seen if one.calls or one.busy or one.limit or one.state != "closed"))

    def _seen_of(self, deployment: Deployment, now_ms: int) -> DeploymentSeen:
        state, why, until_ms = self._health.state(deployment.id, now_ms)
        limit, busy = self._places.limit(deployment), self._places.busy(deployment)
        calls, errors, took = self._tally.minute(deployment.id)
        self._tally.stands(deployment.id, state, limit)
        return DeploymentSeen(
            id=deployment.id,
            state=state,
            why=why,
            until_ms=until_ms,
            calls=calls,
            errors=errors,
            took=dict(took),
            limit=limit,
            busy=busy,
        )

    def _tell_people(self, changes: Sequence[Change], standing: Mapping[str, Standing] | None) -> None:
        """Alerts of what was well before; which of the routers tells of it, Redis knows."""
        for change in changes:
            if not isinstance(change, Opened) or change.rounds > 1 or change in self._said:
                continue
            known = standing.get(change.deployment) if standing is not None else None
            if standing is None or (known and known.is_new):
                self._said.add(change)
                task = asyncio.create_task(self._alert(change.deployment, change.why))
                self._alerts.add(task)
                task.add_done_callback(self._alerts.discard)
        if standing is not None:
            self._said.clear()

    async def _alert(self, deployment: str, why: Why) -> None:
        refused = why == "credential"
        what: AlertKind = "credential_refused" if refused else "deployment_down"
        then = f"put its key right, or say `sluice deployments resume {deployment}`" if refused else "it is tried again soon"
        message = f"The deployment {deployment} is not asked any more: {_REASONS[why]}; {then}."
        facts: JsonObject = {"deployment": deployment, "reason": why}
        try:
            await self._raise(what, f"deployment/{deployment}", "", message, "critical" if refused else "warning", facts)
        except Exception:
            log.exception("nobody was told: %s", message)
