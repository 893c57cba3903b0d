"""The migrations' statements as a cluster of ClickHouse servers takes them. Pure.

What belongs to a job (a table with a column `job_id`) is spread over the shards by its job, so that two rows of a job meet, and
FINAL finds them: `sluice.usage_log_local` on each server, replicated within a shard, and `sluice.usage_log` over all of them.
Everything else is small, and every server has all of it: what is looked up beside a spread table is never far.
"""

import re
from collections.abc import Iterable, Sequence
from typing import Final

_TABLE = re.compile(
    r"CREATE TABLE IF NOT EXISTS (?P<name>sluice\.\w+)\s*(?P<columns>\(.*\))\s*ENGINE = (?P<engine>\w+)(?P<rest>.*)", re.DOTALL
)
_ARGUMENTS = re.compile(r"\((?P<arguments>[^)]*)\)\s*(?P<rest>.*)", re.DOTALL)
_JOB = re.compile(r"^\s*job_id\s", re.MULTILINE)
_OTHER = re.compile(
    r"(?P<what>CREATE DATABASE IF NOT EXISTS|CREATE (?:OR REPLACE |MATERIALIZED )?VIEW(?: IF NOT EXISTS)?"
    r"|DROP (?:TABLE|VIEW) IF EXISTS|ALTER TABLE)\s+(?P<name>sluice[\w.]*)(?P<rest>.*)",
    re.DOTALL,
)
_OF_PARTS = re.compile(r"\s*(?:MODIFY (?:SETTING|TTL|COLUMN \w+ CODEC)|REMOVE TTL|(?:ADD|DROP|MATERIALIZE) INDEX)\b")
"""What only a table with parts can do; a Distributed one has none."""
_EVERYWHERE: Final = "/clickhouse/tables/all/{name}"
_SHARD: Final = "/clickhouse/tables/{{shard}}/{name}"


class Cluster:
    """Rewrites statements for the cluster `name`, which servers know from their configuration (with macros shard and replica)."""

    def __init__(self, name: str, spread: Iterable[str] = ()) -> None:
        """`spread`: tables that were spread by earlier statements; those of the statements that are given are found."""
        self._name = name
        self._spread = set(spread)

    def settings(self, quorum: str) -> dict[str, str]:
        """What goes with each statement. `quorum`: replicas that must have a row before it counts as inserted (`auto`: most)."""
        return {
            # An insert is done when the shards have it, not when somebody will send it there.
            "distributed_foreground_insert": "1",
            # A subquery over all shards is asked once, not once a shard.
            "distributed_product_mode": "global",
            "insert_quorum": quorum,
        }

    def statements(self, statement: str) -> Sequence[str]:
        """One statement as the one or two that the cluster needs."""
        if table := _TABLE.fullmatch(statement):
            return self._table(**table.groupdict())
        if found := _OTHER.fullmatch(statement):
            return self._other(**found.groupdict())
        return [statement]

    def _table(self, name: str, columns: str, engine: str, rest: str) -> Sequence[str]:
        if not _JOB.search(columns):
            return [self._replicated(name, name, columns, engine, rest, _EVERYWHERE, "{shard}-{replica}")]
        self._spread.add(name)
        local = self._replicated(f"{name}_local", name, columns, engine, rest, _SHARD, "{replica}")
        table = name.removeprefix("sluice.")
        over = (
            f"CREATE TABLE IF NOT EXISTS {name} ON CLUSTER '{self._name}' AS {name}_local\n"
            f"ENGINE = Distributed('{self._name}', sluice, {table}_local, cityHash64(job_id))"
        )
        return [local, over]

    def _replicated(self, name: str, known: str, columns: str, engine: str, rest: str, path: str, replica: str) -> str:
        given = _ARGUMENTS.match(rest.lstrip()) if rest.startswith("(") else None
        arguments = [f"'{path.format(name=known)}'", f"'{replica}'", *filter(None, [given and given["arguments"]])]
        after = (given["rest"] if given else rest).replace("non_replicated_", "replicated_")
        return (
            f"CREATE TABLE IF NOT EXISTS {name} ON CLUSTER '{self._name}'\n{columns}\n"
            f"ENGINE = Replicated{engine}({', '.join(arguments)})\n{after.strip()}"
        )

    def _other(self, what: str, name: str, rest: str) -> Sequence[str]:
        on = f" ON CLUSTER '{self._name}'"
        if "MATERIALIZED" in what:
            # A trigger: it belongs to the parts.
            return [f"{what} {name}{on}{self._locally(rest)}"]
        if name not in self._spread:
            return [f"{what} {name}{on}{rest}"]
        local = f"{what} {name}_local{on}{rest}"
        return [local] if what == "ALTER TABLE" and _OF_PARTS.match(rest) else [local, f"{what} {name}{on}{rest}"]

    def _locally(self, text: str) -> str:
        for name in self._spread:
            text = re.sub(rf"{re.escape(name)}\b", f"{name}_local", text)
        return text
