"""Alerts on `sluice.alerts`: what somebody should know now, said once and not again for a while."""

import hashlib
from collections import OrderedDict

from infra.clock import Clock, new_id
from infra.kafka.envelope import encode
from infra.kafka.log import Sink
from schemas.alert import Alert, AlertKind, Severity
from schemas.base import JsonObject
from schemas.topics import ALERTS

QUIET_MS = 3_600_000
"""For so long an alert isn't repeated by the process that raised it."""

MOST = 10_000
"""Alerts that are remembered as raised; the oldest is forgotten first."""


class Alerts:
    """Raises alerts in the name of a service."""

    def __init__(self, kafka: Sink, clock: Clock, service: str, public_url: str = "") -> None:
        """`public_url`: where people reach us; without it a link is only a path."""
        self.clock = clock
        self._kafka, self._service, self._public_url = kafka, service, public_url.rstrip("/")
        self._raised: OrderedDict[tuple[AlertKind, str, str], int] = OrderedDict()

    async def raise_(
        self,
        what: AlertKind,
        scope: str,
        team: str,
        message: str,
        severity: Severity = "warning",
        facts: JsonObject | None = None,
        *,
        about: str = "",
    ) -> bool:
        """Publishes an alert and returns when the brokers have acknowledged it; False: it was raised within the last hour.

        What makes an alert the same is `what`, `scope` and `about`: the period of a budget and the share of it that is reached,
        the version of a key. Raises what the connection raises; the alert may then be raised again at once.
        """
        sameness = (what, scope, about)
        now_ms = self.clock()
        if not self._is_news(sameness, now_ms):
            return False
        alert_id = new_id("alert", now_ms)
        alert = Alert(
            id=alert_id,
            at_ms=now_ms,
            what=what,
            scope=scope,
            team=team,
            severity=severity,
            message=message,
            facts=facts or {},
            same=same_of(*sameness),
            link=f"{self._public_url}{link_path(alert_id)}",
        )
        try:
            await self._send(alert)
        except BaseException:
            self._raised.pop(sameness, None)
            raise
        return True

    def _is_news(self, sameness: tuple[AlertKind, str, str], now_ms: int) -> bool:
        """True once; noted before it is sent, so that a second one doesn't go out while the first is on its way."""
        before_ms = self._raised.get(sameness)
        if before_ms is not None and now_ms - before_ms < QUIET_MS:
            return False
        self._raised[sameness] = now_ms
        self._raised.move_to_end(sameness)
        if len(self._raised) > MOST:
            self._raised.popitem(last=False)
        return True

    async def _send(self, alert: Alert) -> None:
        record = encode(
            alert,
            topic=ALERTS.name,
            key=alert.team,
            event_id=alert.id,
            source=self._service,
            now_ms=alert.at_ms,
            exclude_defaults=False,
        )
        await (await self._kafka.send(record))


def same_of(what: AlertKind, scope: str, about: str) -> str:
    """What alerts that say the same thing have in common."""
    return hashlib.sha256("\x1f".join((what, scope, about)).encode()).hexdigest()[:24]


def link_path(alert_id: str) -> str:
    """Where the admin API shows an alert."""
    return f"/admin/v1/alerts/{alert_id}"
