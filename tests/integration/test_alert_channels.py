"""A budget burns: Kafka, a webhook, Slack and a mailbox are told, each once, whatever is delivered again."""

import asyncio
import json
import uuid
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from decimal import Decimal
from pathlib import Path

from infra.alerts import Alerts
from infra.budgets import lines
from infra.embedded.stack import Stack
from infra.hierarchy import Level
from infra.kafka.follower import Follower
from infra.kafka.log import Incoming, Outgoing, Partition
from infra.platform import Platform, open_platform
from infra.redis.once import Once
from infra.settings import Settings
from infra.webhooks.signing import is_signed, secret_in
from schemas.alert import Alert
from schemas.alerting import Alerting, EmailChannel, ForecastRule, Only, SlackChannel, WebhookChannel
from schemas.budget import NANO, Budget
from schemas.control import Organization
from schemas.policy import Policy, WebhookPolicy
from schemas.topics import ALERTS
from services.accounting.budget_alerts import BudgetAlerts
from services.portal.alert_channels import AlertChannels
from tests.integration.endpoints import Receiver, receiving
from tests.mocks.smtp import Mailbox, mailbox

SECRET = "whsec_" + "c2x1aWNlLXNsdWljZS1zbHVpY2Utc2x1aWNl"
NO_FORECAST = ForecastRule(enabled=False)


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not holds():  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.02)


@asynccontextmanager
async def opened(stack: Stack, folder: Path, receiver: Receiver, box: Mailbox, team: str) -> AsyncGenerator[Platform]:
    """A platform whose house has three channels for a team."""
    secrets = {"hook": SECRET, "slack": f"http://127.0.0.1:{receiver.port}/slack"}
    (folder / "secrets").mkdir()
    for name, secret in secrets.items():
        (folder / "secrets" / name).write_text(secret)
    smtp = f"smtp+plain://127.0.0.1:{box.port}"
    settings = Settings(
        kafka=stack.kafka, redis=stack.redis, data_dir=folder, public_url="https://sluice.example", smtp=smtp, drain_s=5
    )
    platform = await open_platform(settings, "test")
    inside = Policy(webhooks=WebhookPolicy(internal=(f"127.0.0.1:{receiver.port}",)))
    house = Organization(id="org_alerts", name="default", policy=inside)
    before = list(platform.control.table.organizations.values())
    only = Only(teams=(team,))
    channels = (
        WebhookChannel(name="hook", url=f"http://127.0.0.1:{receiver.port}/hook", secret="file:hook", only=only),
        SlackChannel(name="slack", url="file:slack", only=only),
        EmailChannel(name="mail", to=("ada@corp.example",), only=only),
    )
    for other in before:
        await platform.control.delete(f"organization/{other.name}")
    await platform.control.write(house, Alerting(channels=channels))
    try:
        yield platform
    finally:
        await platform.control.delete("alerting/default")
        await platform.control.delete("organization/default")
        if before:
            await platform.control.write(*before)
        await platform.close()


async def test_a_budget_that_burns_is_told_everywhere_once(stack: Stack, tmp_path: Path) -> None:
    team = f"burning-{uuid.uuid4().hex[:6]}"
    async with (
        receiving() as receiver,
        mailbox() as box,
        opened(stack, tmp_path, receiver, box, team) as platform,
    ):
        records: list[Incoming] = []

        async def note(record: Incoming) -> None:
            if record.key == team.encode():
                records.append(record)

        follower = Follower(platform.kafka, Partition(ALERTS.name, 0), note, platform.clock() - 60_000)
        await follower.start()
        first = AlertChannels(platform)
        await first.start()
        receiver.statuses = [503]
        for usd in (8, 9):
            await spent(platform, team, usd)
        await until(lambda: len(receiver.posted) >= 3 and len(box.taken) >= 1)
        await first.drain()
        await first.stop()
        # As if the first had died before it could commit.
        again = Outgoing(
            ALERTS.name,
            records[0].key,
            records[0].value or b"",
            tuple((name, value or b"") for name, value in records[0].headers),
        )
        await (await platform.kafka.send(again))
        second = AlertChannels(platform)
        await second.start()
        await spent(platform, team, 10)
        await until(lambda: len(receiver.posted) >= 5 and len(box.taken) >= 2)
        await second.drain()
        await second.stop()
        await follower.stop()

    share, exhausted = sorted({record.value for record in records}, key=lambda value: b"budget_exhausted" in (value or b""))
    alerts = [Alert.model_validate_json(value or b"") for value in (share, exhausted)]
    assert [alert.what for alert in alerts] == ["budget_share", "budget_exhausted"]
    assert len(records) == 3, "one of them twice"
    links = [f"https://sluice.example/admin/v1/alerts/{alert.id}" for alert in alerts]
    assert [alert.link for alert in alerts] == links
    hooks = [one for one in receiver.posted if one.path == "/hook"]
    slacks = [one for one in receiver.posted if one.path == "/slack"]
    # One of these was answered 503 at first, and came again.
    assert sorted((len(hooks), len(slacks))) == [2, 3]
    assert {json.loads(one.body)["data"]["link"] for one in hooks} == set(links)
    assert {json.loads(one.body)["blocks"][2]["elements"][0]["url"] for one in slacks} == set(links)
    for one in hooks:
        headers = one.headers
        stamp, given = int(headers["webhook-timestamp"]), headers["webhook-signature"]
        assert is_signed([secret_in(SECRET)], headers["webhook-id"], stamp, one.body, given)
    assert [link in message.as_string() for (_, message), link in zip(box.taken, links, strict=True)] == [True, True]


async def spent(platform: Platform, team: str, usd: int) -> None:
    """So much of a budget of 10 USD, of which nothing tells of tomorrow."""
    level = Level(f"team/{team}", 1, Policy(budgets=(Budget(usd=Decimal(10), hard=True),)))
    found = [(team, line) for line in lines([level], platform.clock(), "UTC")]
    alerts = Alerts(platform.kafka, platform.clock, "accounting", platform.settings.public)
    rules = platform.control.table.alerting.rules.model_copy(update={"forecast": NO_FORECAST})
    look = BudgetAlerts(alerts, Once(platform.redis), lambda: rules).look
    await look(found, {line.allowance.key: (usd * NANO, 0) for _, line in found})
