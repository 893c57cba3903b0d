"""What analysts may read in ClickHouse, and the statements that make them users of a real server.

An analyst sees the rows of one organization, or of some of its teams. Whatever isn't listed here is refused; a test holds the
list against the migrations. Decision 0025 has the argument.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

Owner = Literal["organization", "either", "team", "nobody", "view"]
"""By which columns a table's rows belong to somebody. `either`: rows of before have a team only. `nobody`: it holds nothing of
anybody. `view`: it reads the others as whoever asks, so their rules hold in it."""

READABLE: Final[Mapping[str, Owner]] = {
    "usage_log": "organization",
    "usage": "view",
    "attempts_log": "either",
    "attempts": "view",
    "changes_log": "team",
    "events": "view",
    "chargeback_daily": "view",
    "chargeback_monthly": "view",
    "provider_health": "view",
    "cache_savings": "view",
    "shadow_comparison": "view",
    "usage_hours": "organization",
    "usage_days": "organization",
    "usage_touches": "nobody",
    "usage_seals": "nobody",
    "usage_sealed": "view",
    "usage_measures": "view",
    "usage_totals": "view",
    "usage_hourly": "view",
    "usage_by_minute": "view",
    "usage_by_hour": "view",
    "usage_by_day": "view",
    "usage_by_month": "view",
    "feedback_log": "organization",
    "feedback": "view",
    "keys": "view",
    "repriced_log": "organization",
    "repriced": "view",
    "attempts_repriced": "view",
    "attempts_of_pricing": "view",
    "pricings_log": "nobody",
}
"""Tables and views of the database `sluice`."""

COLUMNS: Final[Mapping[str, str]] = {"pricings_log": "pricing"}
"""Of a table that is readable only in part: of a repricing its name, never its sums over all organizations."""

WITHHELD: Final = frozenset(
    {
        "adjustments",
        "adjustments_log",
        "analysts",
        "audit",
        "audit_chain",
        "audit_erased",
        "audit_log",
        "erasures",
        "erasures_log",
        "migrations",
        "usage_touches_feed",
    }
)
"""What is the house's own, of the books, the examiner and ClickHouse. Prompts are read by `sluice audit`, which notes it."""

OWNED: Final[Mapping[str, Owner]] = {table: owner for table, owner in READABLE.items() if owner not in ("nobody", "view")}

LIMITS: Final = {
    "max_execution_time": 60,
    "max_memory_usage": 1_000_000_000,
    "max_result_rows": 1_000_000,
    "max_result_bytes": 256 * 2**20,
    "max_rows_to_read": 2_000_000_000,
    "max_threads": 8,
    "max_concurrent_queries_for_user": 4,
}
"""Of one query of an analyst. Less may be asked for, more may not."""

ANALYSTS: Final = "sluice.analysts"
"""Where the embedded ClickHouse finds them."""

_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
ROLE: Final = "sluice_analyst"
FREE_SETTINGS: Final = (
    "output_format_json_quote_64bit_integers",
    "output_format_json_quote_decimals",
    "output_format_json_array_of_rows",
    "output_format_json_named_tuples_as_objects",
    "output_format_json_quote_denormals",
    "output_format_binary_write_json_as_string",
    "output_format_native_write_json_as_string",
    "output_format_native_encode_types_in_binary_format",
    "output_format_decimal_trailing_zeros",
    "output_format_csv_crlf_end_of_line",
    "output_format_parquet_compression_method",
    "format_csv_delimiter",
    "date_time_output_format",
    "session_timezone",
    "max_block_size",
    "join_use_nulls",
    "extremes",
    "result_overflow_mode",
    "timeout_overflow_mode",
    "cancel_http_readonly_queries_on_client_close",
)
"""What an analyst's client may set: how an answer is written, never what it shows."""


@dataclass(frozen=True, slots=True)
class Grant:
    """An analyst as ClickHouse has to know it.

    `only`: the teams it is kept to, none: all of the organization. `teams`: the same, by name and all of them, for tables
    that know no organization.
    """

    name: str
    sha256: str
    organization: str
    only: tuple[str, ...] = ()
    teams: tuple[str, ...] = ()


def is_name(name: str) -> bool:
    """Whether an analyst may be called so."""
    return bool(_NAME.fullmatch(name))


def setup_statements(tables: Sequence[str]) -> list[str]:
    """What a server needs once, for those of `tables` that stand there; run again after migrations.

    Where row policies begin, everybody else must be let through by one.
    """
    known = [table for table in READABLE if table in tables]
    limits = [f"{name} = {most} MAX {most}" for name, most in LIMITS.items()]
    free = [f"{name} CHANGEABLE_IN_READONLY" for name in FREE_SETTINGS]
    return [
        f"CREATE SETTINGS PROFILE OR REPLACE {ROLE} SETTINGS readonly = 1, allow_ddl = 0, {', '.join([*limits, *free])}",
        f"CREATE ROLE IF NOT EXISTS {ROLE} SETTINGS PROFILE '{ROLE}'",
        *(f"GRANT {selecting(table)} ON sluice.{_quoted(table)} TO {ROLE}" for table in known),
        *(
            f"CREATE ROW POLICY IF NOT EXISTS sluice_others ON sluice.{_quoted(table)} USING 1 TO ALL EXCEPT {ROLE}"
            for table in known
            if table in OWNED
        ),
    ]


def grant_statements(grant: Grant, tables: Sequence[str]) -> list[str]:
    """What makes an analyst on a server, or brings it up to date. Until its role comes last, it may do nothing."""
    user = _quoted(grant.name)
    return [
        f"CREATE USER IF NOT EXISTS {user} IDENTIFIED WITH sha256_hash BY '{grant.sha256}'",
        f"ALTER USER {user} IDENTIFIED WITH sha256_hash BY '{grant.sha256}' SETTINGS PROFILE '{ROLE}'",
        *(
            f"CREATE ROW POLICY OR REPLACE {_quoted(f'sluice_{grant.name}')} ON sluice.{_quoted(table)} "
            f"USING {condition(grant, owner)} TO {user}"
            for table, owner in OWNED.items()
            if table in tables
        ),
        f"GRANT {ROLE} TO {user}",
        f"SET DEFAULT ROLE {ROLE} TO {user}",
    ]


def revoke_statements(name: str, tables: Sequence[str]) -> list[str]:
    """What takes an analyst away. Its user goes first: without its policies it would see nothing, not everything."""
    policy = _quoted(f"sluice_{name}")
    rules = [table for table in OWNED if table in tables]
    return [
        f"DROP USER IF EXISTS {_quoted(name)}",
        *(f"DROP ROW POLICY IF EXISTS {policy} ON sluice.{_quoted(table)}" for table in rules),
    ]


def selecting(table: str) -> str:
    """The right to read what may be read of a table."""
    return f"SELECT({COLUMNS[table]})" if table in COLUMNS else "SELECT"


def condition(grant: Grant, owner: Owner) -> str:
    """Which rows are its own, as SQL."""
    if owner == "team":
        return _among(grant.teams)
    if owner == "either":
        return f"organization IN ({text(grant.organization)}, '') AND {_among(grant.teams)}"
    words = [f"organization = {text(grant.organization)}"]
    return " AND ".join([*words, _among(grant.only)] if grant.only else words)


def text(value: str) -> str:
    """A literal."""
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _among(teams: Sequence[str]) -> str:
    return f"team IN ({', '.join(map(text, teams))})" if teams else "0"


def _quoted(name: str) -> str:
    return "`" + name.replace("\\", "\\\\").replace("`", "\\`") + "`"
