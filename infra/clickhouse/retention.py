"""How long the books are kept: a TTL for each table, as the settings have it. Sums by hour and day outlive the rows (0024).

Prompts have a time of their own in each row (`sluice.audit_log`), as their tenant's policy says.
"""

from collections.abc import Mapping
from typing import Final

from infra.clickhouse.client import ClickHouse
from infra.clickhouse.cluster import Cluster

TIMES: Final[Mapping[str, str]] = {"usage_log": "ts", "attempts_log": "job_ts", "changes_log": "ts"}
"""The column by which a table's rows grow old. Both rows of a job share it, as they share a partition."""


async def retain(clickhouse: ClickHouse, days: Mapping[str, int], cluster: Cluster | None = None) -> None:
    """Keeps the rows of each table so many days, 0: for ever. Nothing is changed that stands so. Raises ClickHouseError."""
    for table, kept in days.items():
        stands = await clickhouse.query(
            "SELECT create_table_query AS text FROM system.tables WHERE database = 'sluice' AND name IN ({a:String}, {b:String})",
            {"a": table, "b": f"{table}_local"},
        )
        if statement := change(table, kept, " ".join(str(row["text"]) for row in stands)):
            for one in cluster.statements(statement) if cluster else [statement]:
                await clickhouse.command(one)


def change(table: str, days: int, stands: str) -> str | None:
    """The statement that makes it so; None: it is."""
    ttl = f"toDateTime({TIMES[table]}) + toIntervalDay({days})"
    if days and f"TTL {ttl}" not in stands:
        return f"ALTER TABLE sluice.{table} MODIFY TTL {ttl}"
    if not days and " TTL " in stands:
        return f"ALTER TABLE sluice.{table} REMOVE TTL"
    return None
