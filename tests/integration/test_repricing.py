"""Calls of the past priced again, in a real ClickHouse: beside the bill, which stays as it was."""

from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path

from infra.clickhouse.migrate import migrate
from infra.kafka.table import ControlTable
from schemas.attempt import Attempt
from schemas.control import Deployment, Model, Price
from schemas.ids import attempt_id
from schemas.prices import Capacity, PriceEntry
from schemas.roles import Role
from schemas.usage import Usage
from services.accounting.rows import bill, tables
from services.portal.access import Actor
from services.portal.books import Books
from services.portal.repricing import PricingAsked, PricingPage, Repricing
from tests.integration.test_clickhouse import connected, serving
from tests.unit.services.accounting.examples import ACCEPTED_MS, JOB_ID, attempt, completion

DAY = datetime.fromtimestamp(ACCEPTED_MS / 1000, UTC).date()
LATER_MS = ACCEPTED_MS + 48 * 3_600_000
ADMIN = Actor("admin", ((Role.PLATFORM_ADMIN, ""),))


def table() -> ControlTable:
    """`fast-eu` has another price now, `ptu` is paid by the hour."""
    found = ControlTable()
    price = Price(input_usd=Decimal("0.000001"), output_usd=Decimal("0.000002"))
    fast = Deployment(id="fast-eu", provider="openai", model="gpt-5", price=price)
    ptu = Deployment(id="ptu", provider="azure", model="gpt-4o")
    found.put(Model(name="fast", deployments=(fast, ptu)))
    capacity = Capacity(hourly_usd=Decimal(100), tokens_per_hour=1_000_000)
    found.put(PriceEntry(name="ptu", deployment="ptu", since=date(2026, 1, 1), capacity=capacity))
    return found


def on_ptu(n: int, tokens: int) -> Attempt:
    usage = Usage(input_tokens=tokens, source="provider")
    return attempt(
        n, id=attempt_id(JOB_ID, n), deployment="ptu", provider="azure", usage=usage, cost_usd=Decimal(tokens) / 10_000
    )


async def test_a_pricing_stands_beside_the_bill(tmp_path: Path) -> None:
    calls = (attempt(1), on_ptu(2, 100_000), on_ptu(3, 200_000), attempt(4, provider="nobody", deployment="gone"))
    async with serving(tmp_path) as server, connected(server) as clickhouse:
        await migrate(clickhouse)
        for name, columns in tables([bill(completion(attempts=calls), 1)]).items():
            await clickhouse.insert(name, columns, "1")
        books = Books(server.url)
        desk = Repricing(books, table(), lambda: LATER_MS)

        async def page(**told: object) -> PricingPage:
            return await desk.page(PricingAsked.model_validate({"from": DAY, "to": DAY, **told}), ADMIN)

        tried = await page(dry_run=True)
        assert (tried.attempts, tried.changed, tried.unpriced, tried.after) == (4, 3, 1, None)
        # 100 in and 50 out at 1 and 2 a million; the hour's 100 spread over 300,000 tokens; the last keeps what it had.
        assert tried.new_usd == Decimal("0.0002") + 100 + Decimal("0.0007895")
        assert await clickhouse.query("SELECT * FROM sluice.repriced") == []
        done = await page(reason="the contract of May")
        assert done.new_usd == tried.new_usd
        sql = "SELECT n, billed_usd, cost_usd, pricing FROM {of} ORDER BY n"
        latest = await clickhouse.query(sql.format(of="sluice.attempts_repriced"))
        assert [row["cost_usd"] for row in latest] == [
            Decimal("0.0002"),
            Decimal("33.333333333"),
            Decimal("66.666666667"),
            Decimal("0.0007895"),
        ]
        assert [row["pricing"] for row in latest] == [done.pricing] * 3 + [""]
        assert await clickhouse.query(sql.format(of=f"sluice.attempts_of_pricing(pricing = '{done.pricing}')")) == latest
        [bills] = await clickhouse.query("SELECT sum(cost_usd) AS usd FROM sluice.attempts")
        assert bills["usd"] == Decimal("30.001579"), "what was billed stays"
        [line] = await clickhouse.query("SELECT * FROM sluice.pricings_log")
        assert (line["actor"], line["reason"], line["changed"]) == ("admin", "the contract of May", 3)
        assert (line["old_usd"], line["new_usd"]) == (Decimal("30.0007895"), Decimal("100.0002"))
        await books.close()
