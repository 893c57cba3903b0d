"""Alerts in the portal: the youngest are kept for who looks, and a key that runs away is held if its policy says so."""

import asyncio
import logging
from collections import deque

from pydantic import BaseModel, Field, ValidationError

from infra.kafka.envelope import Poison, decode
from infra.kafka.follower import Follower
from infra.kafka.log import Incoming, Partition
from infra.kafka.stage import Stage
from infra.platform import Platform
from schemas.alert import Alert, AlertKind, RunawayFacts
from schemas.control import Hold, VirtualKey
from schemas.errors import NotFound
from schemas.event import Author
from schemas.topics import ALERTS, DAY_MS
from services.portal.access import Actor, Right, check
from services.portal.store import Store

log = logging.getLogger(__name__)

KEPT = 1_000
DETECTOR = "runaway detector"
"""Who holds a key, in its events."""

_AT_ONCE = 16
_LOOK_AGAIN_S = 0.05
_LOOKS = 200


class AlertsAsked(BaseModel):
    """GET /admin/v1/alerts."""

    team: str | None = None
    what: AlertKind | None = None
    after: str | None = Field(default=None, description="only those raised before this one: the last of the page before")
    limit: int = Field(default=100, ge=1, le=KEPT)


class Kept:
    """The last 1,000 alerts, in the order in which they were raised."""

    def __init__(self) -> None:
        self._alerts: deque[Alert] = deque(maxlen=KEPT)

    async def take(self, record: Incoming) -> None:
        """Keeps the alert in a record."""
        alert = decode(record, Alert)
        if isinstance(alert, Poison):
            log.warning("alerts: %s at %d: %s", alert.reason, record.offset, alert.detail)
        else:
            self._alerts.append(alert)

    def page(self, asked: AlertsAsked, actor: Actor) -> tuple[list[Alert], str | None]:
        """Alerts that the actor may see, the youngest first, and the id to go on from, if older ones are left.

        Who sees only some teams gets what concerns those. Raises NotFound for a team that isn't one's own, NotAllowed.
        """
        if asked.team is not None or not (actor.sees_all() or actor.teams()):
            check(actor, Right.READ, asked.team or "", "Looking at alerts")
        found = [
            alert
            for alert in reversed(self._alerts)
            if actor.sees(alert.team) and asked.team in (None, alert.team) and asked.what in (None, alert.what)
        ]
        if asked.after is not None:
            places = [place for place, alert in enumerate(found) if alert.id == asked.after]
            found = found[places[0] + 1 :] if places else []
        shown = found[: asked.limit]
        return shown, shown[-1].id if len(found) > len(shown) else None

    def one(self, alert_id: str, actor: Actor) -> Alert:
        """An alert that the actor may see. Raises NotFound."""
        found = next((alert for alert in self._alerts if alert.id == alert_id and actor.sees(alert.team)), None)
        if found is None:
            raise NotFound(f"There is no alert {alert_id[:64]!r} among the last {KEPT:,} of the last day.")
        return found


class Brake:
    """Holds the keys that alerts are about."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def work(self, record: Incoming, _: bool = False) -> None:
        """Holds a key, if the record is an alert that asks for it and the key stands as it did when it ran away."""
        facts = runaway(record)
        if facts is None or facts.action == "alert":
            return
        await self._caught_up(facts)
        async with self._store.writing():
            held = hold(self._store.table.keys.get(facts.key_id), facts, self._store.clock())
            if held is None:
                return
            await self._store.write(held, author=Author(actor=DETECTOR, action="key.held", reason=facts.reason))
        log.warning("portal: key %s of team %s is held: %s", held.id, held.team, facts.reason)

    async def _caught_up(self, facts: RunawayFacts) -> None:
        """Who raised the alert may have heard of the key's last change before we did."""
        for _ in range(_LOOKS):
            key = self._store.table.keys.get(facts.key_id)
            if key is None or key.version >= facts.key_version:
                return
            await asyncio.sleep(_LOOK_AGAIN_S)


def runaway(record: Incoming) -> RunawayFacts | None:
    """The facts of a runaway alert; None for any other record."""
    alert = decode(record, Alert)
    if isinstance(alert, Poison) or alert.what != "runaway":
        return None
    try:
        return RunawayFacts.model_validate(alert.facts)
    except ValidationError as error:
        log.warning("alerts: the facts of %s are not understood (%d errors)", alert.id, error.error_count())
        return None


def hold(key: VirtualKey | None, facts: RunawayFacts, now_ms: int) -> VirtualKey | None:
    """The key, held as its policy says; None where nothing is to be done.

    A key that was changed since it was seen running away may have been resumed: an alert that comes twice must not hold it
    again, and one that goes on running away is seen again.
    """
    if key is None or key.held is not None or key.revoked or key.version != facts.key_version:
        return None
    pace = max(1, int(facts.usual_requests_per_minute / 10)) if facts.action == "throttle" else None
    held = Hold(reason=facts.reason, since_ms=now_ms, requests_per_minute=pace)
    return key.model_copy(update={"held": held, "version": key.version + 1})


class AlertDesk:
    """Reads `sluice.alerts` twice: each portal all of the last day, to show it, and one of them each new alert, to act."""

    def __init__(self, platform: Platform, store: Store) -> None:
        self.kept = Kept()
        since_ms = platform.clock() - DAY_MS
        self._follower = Follower(platform.kafka, Partition(ALERTS.name, 0), self.kept.take, since_ms)
        self._stage = Stage("alerts", platform.source("portal", ALERTS.name), Brake(store).work, _AT_ONCE)
        self._drain_s = platform.settings.drain_s

    async def start(self) -> None:
        await self._follower.start()
        await self._stage.start()

    def not_ready(self) -> str | None:
        """The topic has one partition: of several portals all but one have nothing to act on, and are ready too."""
        return "alerts: its loop has ended" if self._follower.ended else None

    async def drain(self) -> None:
        await self._stage.drain(self._drain_s)

    async def stop(self) -> None:
        await self._stage.stop()
        await self._follower.stop()
