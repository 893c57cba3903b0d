"""Alerts on their way to people: each new one to every channel that wants it, until it was taken or it is too late.

One group of portals reads `sluice.alerts`, apart from the one that holds keys: what a channel does holds up no brake.
Kafka keeps the place of an alert until all of its channels have it. What was sent is noted in Redis: not again when the record
is delivered again, nor, within an hour, when another process says the same. Without Redis it is sent anyway: rather twice than
not at all, and always under the same id.
"""

import asyncio
import logging
import random
import time
from collections import Counter
from collections.abc import Callable
from typing import Final

from pydantic import BaseModel

from infra.alerts import QUIET_MS, link_path
from infra.clock import Clock, new_id
from infra.kafka.envelope import Poison, decode
from infra.kafka.log import Incoming
from infra.kafka.post import Post
from infra.kafka.stage import Stage
from infra.kafka.table import ControlTable
from infra.mail import Unsent, mail_server, our_address, send_mail
from infra.platform import Platform
from infra.redis.client import RedisUnavailable
from infra.redis.once import Once
from infra.secrets.book import Secrets
from infra.secrets.vault import Vault
from infra.settings import Settings
from infra.webhooks.courier import Courier
from infra.webhooks.lookup import Unreachable
from infra.webhooks.signing import secret_in, signed_headers
from infra.webhooks.targets import Refused, parse
from schemas.alert import Alert
from schemas.alerting import Channel, EmailChannel, SlackChannel, WebhookChannel
from schemas.errors import NotFound
from schemas.policy import Policy, inherit
from schemas.topics import ALERTS, DAY_MS, HOUR_MS
from services.portal import alert_messages
from services.portal.config.references import is_reference

log = logging.getLogger(__name__)

TOO_LATE_MS: Final = 6 * HOUR_MS
"""An alert that no try has delivered by then is put aside: it is no news any more."""
DEAD_REASON: Final = "alert"
MOST_WAITING: Final = 64
"""Alerts that wait for a channel that fails; more are put aside, so that the other channels go on."""

_AT_ONCE: Final = 512
_FIRST_S, _FACTOR, _LONGEST_S = 5, 3, 1800
_UNDER_WAY_MS: Final = 60_000
_LOOK_AGAIN_S: Final = 5.0
_REMEMBERED_MS: Final = 8 * DAY_MS
"""Longer than the topic keeps an alert."""
_LAST_TRY_S: Final = 15.0


class NotSent(Exception):
    """A try came to nothing. A sentence; `for_good`: another one would too."""

    def __init__(self, message: str, *, for_good: bool = False) -> None:
        super().__init__(message)
        self.for_good = for_good


class ChannelTried(BaseModel):
    """What came of a test alert. `reason`: why it was not delivered."""

    id: str
    channel: str
    delivered: bool
    reason: str


class Sender:
    """Sends an alert by a channel: one try."""

    def __init__(self, settings: Settings, table: ControlTable, secrets: Secrets, clock: Clock, courier: Courier) -> None:
        self._settings, self._table, self._secrets, self._clock, self._courier = settings, table, secrets, clock, courier

    async def send(self, channel: Channel, alert: Alert) -> None:
        """Raises NotSent."""
        link = f"{self._settings.public}{link_path(alert.id)}"
        try:
            match channel:
                case WebhookChannel():
                    secret = secret_in(await self._secret(channel.secret))
                    body = alert_messages.event(alert, link)
                    headers = signed_headers([secret], alert.id, self._clock() // 1000, body)
                    await self._post(await self._url(channel.url), headers, body)
                case SlackChannel():
                    headers = {"content-type": "application/json", "user-agent": "Sluice"}
                    await self._post(await self._url(channel.url), headers, alert_messages.slack(alert, link))
                case EmailChannel():
                    await self._mail(channel, alert, link)
        except (Unreachable, Unsent, ValueError) as error:
            raise NotSent(str(error)) from None
        except Refused as error:
            raise NotSent(str(error), for_good=True) from None

    async def _post(self, url: str, headers: dict[str, str], body: bytes) -> None:
        """To where the organization's policy lets webhooks go, and nowhere else. Raises Refused, Unreachable, NotSent."""
        organization = next(iter(self._table.organizations.values()), None)
        levels: list[Policy] = [organization.policy] if organization else []
        target = parse(url, inherit(levels, "").webhooks)
        status = (await self._courier.send(target, headers, body)).status
        if not 200 <= status < 300:
            raise NotSent(f"{target.where} answered {status}", for_good=status == 410 or 300 <= status < 400)

    async def _mail(self, channel: EmailChannel, alert: Alert, link: str) -> None:
        if not self._settings.smtp:
            raise NotSent("there is no server for mail: set SLUICE_SMTP")
        server = mail_server(self._settings.smtp)
        password = await self._secret(self._settings.smtp_password) if server.user else ""
        sender = self._settings.smtp_from or our_address()
        await send_mail(server, password, alert_messages.mail(alert, link, sender, channel.to, channel.name))

    async def _url(self, url: str) -> str:
        return await self._secret(url) if is_reference(url) else url

    async def _secret(self, reference: str) -> str:
        secret = await self._secrets.of(reference) if reference else None
        if secret is None:
            raise NotSent(f"{reference or 'SLUICE_SMTP_PASSWORD'} refers to nothing that this machine has")
        return secret


class Deliveries:
    """Brings alerts to channels."""

    def __init__(
        self,
        table: ControlTable,
        sender: Sender,
        once: Once,
        post: Post,
        clock: Clock,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._table, self._sender, self._once, self._post = table, sender, once, post
        self._clock, self._chance = clock, chance
        self._waiting: Counter[str] = Counter()
        self.sending = 0

    async def work(self, record: Incoming, _: bool = False) -> None:
        """Returns when every channel that wants the alert has it, or when it was put aside for those that don't take it."""
        alert = decode(record, Alert)
        if isinstance(alert, Poison):
            log.warning("alerts: %s at %d: %s", alert.reason, record.offset, alert.detail)
            return
        names = wanting(self._table, alert)
        await asyncio.gather(*(self._deliver(record, name, alert) for name in names))

    async def _deliver(self, record: Incoming, name: str, alert: Alert) -> None:
        tries = 0
        while (channel := channel_of(self._table, name)) is not None:
            try:
                if await self._once_only(channel, alert):
                    return
                wait_s, why = _LOOK_AGAIN_S, "another portal was sending it"
            except NotSent as failure:
                tries += 1
                log.warning("alerts: %s was not sent by channel %s: %s", alert.id, name, failure)
                if failure.for_good:
                    await self._put_aside(record, name, str(failure))
                    return
                wait_s, why = longest_wait_s(tries) * (0.5 + self._chance() / 2), str(failure)
            if self._clock() + wait_s * 1000 > alert.at_ms + TOO_LATE_MS or self._waiting[name] >= MOST_WAITING:
                await self._put_aside(record, name, why)
                return
            self._waiting[name] += 1
            try:
                await asyncio.sleep(wait_s)
            finally:
                self._waiting[name] -= 1

    async def _once_only(self, channel: Channel, alert: Alert) -> bool:
        """True if it is sent, now or before, or another said the same within the hour. Raises NotSent."""
        own, same = f"alert:{channel.name}:{alert.id}", f"alert:{channel.name}:{alert.same or alert.id}:same"
        try:
            known = await self._once.begin(own, _UNDER_WAY_MS)
            said = known or await self._once.begin(same, _UNDER_WAY_MS)
        except RedisUnavailable:
            log.warning("alerts: Redis is away; %s may be sent twice", alert.id)
            await self._try(channel, alert)
            return True
        if not said:
            try:
                await self._try(channel, alert)
            except BaseException:
                await self._note((own, None), (same, None))
                raise
            await self._note((own, _REMEMBERED_MS), (same, QUIET_MS))
        elif said == "done":
            await self._note((own, _REMEMBERED_MS))
        elif not known:
            await self._note((own, None))
        return said != "begun"

    async def _try(self, channel: Channel, alert: Alert) -> None:
        self.sending += 1
        try:
            await self._sender.send(channel, alert)
        finally:
            self.sending -= 1

    async def _note(self, *names: tuple[str, int | None]) -> None:
        """That it is done, for so long; None: that it came to nothing. What can't be noted ends by itself in a minute."""
        try:
            for name, life_ms in names:
                await (self._once.forget(name) if life_ms is None else self._once.done(name, life_ms))
        except RedisUnavailable:
            log.warning("alerts: Redis is away; what was just sent may be sent again")

    async def _put_aside(self, record: Incoming, name: str, why: str) -> None:
        await self._post.dead(record, Poison(DEAD_REASON, f"channel {name}: {why}"))


def wanting(table: ControlTable, alert: Alert) -> list[str]:
    """The channels that get an alert: those made before it that want its kind, severity and team."""
    alerting = table.alerting
    return [
        channel.name
        for channel in alerting.channels
        if alert.at_ms >= alerting.since_ms.get(channel.name, 0)
        and _fits(channel.only.kinds, alert.what)
        and _fits(channel.only.severities, alert.severity)
        and _fits(channel.only.teams, alert.team)
    ]


def _fits(wanted: tuple[str, ...] | None, value: str) -> bool:
    return wanted is None or value in wanted


def channel_of(table: ControlTable, name: str) -> Channel | None:
    """The channel of this name as it stands now."""
    return next((channel for channel in table.alerting.channels if channel.name == name), None)


def longest_wait_s(tries: int) -> int:
    """The most seconds between this many tries and the next: 5 s, 15 s, 45 s … half an hour."""
    return min(_LONGEST_S, _FIRST_S * _FACTOR ** min(tries - 1, 10))


class AlertChannels:
    """Delivers alerts, and tries channels out."""

    def __init__(self, platform: Platform, courier: Courier | None = None) -> None:
        settings, clock, table = platform.settings, platform.clock, platform.control.table
        vault = Vault(settings) if settings.vault else None
        self._table, self._clock = table, clock
        self._vault, self._secrets = vault, Secrets(settings.secret, vault, time.monotonic, random.random)
        self._sender = Sender(settings, table, self._secrets, clock, courier or Courier())
        self._deliveries = Deliveries(table, self._sender, Once(platform.redis), platform.post("portal"), clock)
        source = platform.source("alert-channels", ALERTS.name)
        self._stage = Stage("alert-channels", source, self._deliveries.work, _AT_ONCE)

    def channels(self) -> tuple[Channel, ...]:
        return self._table.alerting.channels

    async def try_out(self, name: str) -> ChannelTried:
        """Sends a test alert by a channel, once. Raises NotFound."""
        channel = channel_of(self._table, name)
        if channel is None:
            raise NotFound(f"There is no channel {name[:64]!r}. `sluice alerts channels` shows them.")
        now_ms = self._clock()
        message = f"This is a test of channel {name}: nothing is wrong"
        test = Alert(
            id=new_id("alert", now_ms), at_ms=now_ms, what="test", scope=f"channel/{name}", severity="info", message=message
        )
        try:
            await self._sender.send(channel, test)
        except NotSent as failure:
            return ChannelTried(id=test.id, channel=name, delivered=False, reason=str(failure))
        return ChannelTried(id=test.id, channel=name, delivered=True, reason="")

    async def start(self) -> None:
        self._secrets.start()
        await self._stage.start()

    async def drain(self) -> None:
        """A try under way may end; what waits for its next one waits on the topic."""
        await self._stage.drain(_LAST_TRY_S if self._deliveries.sending else 0)

    async def stop(self) -> None:
        await self._stage.stop()
        await self._secrets.stop()
        if self._vault is not None:
            await self._vault.leave()
