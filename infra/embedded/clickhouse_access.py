"""What keeps an analyst to its own rows in the embedded ClickHouse: the engine's grants, row policies and readonly mode.

chDB knows one user and no way to make others, so our one user has two roles, `service` with all rights and `analyst` with
those of infra/clickhouse/access.py. A query of an analyst runs in the second, after a setting (CARRIER) has said whose rows are
its own; the row policies of the user read that, below whatever views, joins or functions the query is made of. `readonly = 1`
lets nothing be set after that. What the engine of clickhouse-local lets through even so (SET ROLE, KILL, INTO OUTFILE, the
function `file`) is refused before, by a list of what is allowed in the engine's own syntax tree. Decision 0025.
"""

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final
from xml.sax.saxutils import escape

from infra.clickhouse.access import FREE_SETTINGS, LIMITS, OWNED, READABLE, Grant, Owner, selecting
from infra.embedded.clickhouse_errors import EngineError, refusal

CARRIER: Final = "metrics_perf_events_list"
"""A setting that means something only beside another one, which nobody sets here: custom settings can't be had in chDB."""

SYSTEM_READABLE: Final = frozenset(
    {
        "aggregate_function_combinators", "build_options", "clusters", "collations", "columns", "contributors", "current_roles",
        "data_type_families", "database_engines", "databases", "enabled_roles", "formats", "functions", "keywords", "licenses",
        "numbers", "numbers_mt", "one", "settings", "table_engines", "table_functions", "tables", "time_zones", "zeros",
    }
)  # fmt: skip
"""Of the database `system`: what clients ask about the server's abilities, and what is there to be read."""

SYSTEM_WITHHELD: Final = (
    "asynchronous_inserts", "asynchronous_loader", "backups", "certificates", "constraints", "data_skipping_indices",
    "detached_parts", "dictionaries", "dropped_tables", "errors", "filesystem_cache", "grants", "merges", "metrics", "mutations",
    "named_collections", "parts", "parts_columns", "processes", "projection_parts", "projections", "query_cache",
    "query_condition_cache", "remote_data_paths", "replicas", "role_grants", "roles", "row_policies", "server_settings",
    "session_query_ids", "stack_trace", "statements", "user_processes", "user_query_log", "users", "view_refreshes", "warnings",
)  # fmt: skip
"""Those whose rows tell something of others; the engine shows an analyst none, whichever way they are read."""

_KINDS: Final = frozenset(
    {
        "ArrayJoin", "Asterisk", "ColumnsApplyTransformer", "ColumnsExceptTransformer", "ColumnsListMatcher",
        "ColumnsRegexpMatcher", "ColumnsReplaceTransformer", "ColumnsReplaceTransformer::Replacement", "ColumnsTransformerList",
        "DescribeQuery", "ExistsDatabaseQuery", "ExistsTableQuery", "ExistsViewQuery", "Explain", "ExpressionList", "Function",
        "Identifier", "InterpolateElement", "Literal", "NameTypePair", "OrderByElement", "QualifiedAsterisk",
        "QualifiedColumnsListMatcher", "QualifiedColumnsRegexpMatcher", "QueryParameter", "SampleRatio",
        "SelectIntersectExceptQuery",
        "SelectQuery", "SelectWithUnionQuery", "ShowColumns", "ShowCreateTableQuery", "ShowCreateViewQuery", "ShowFunctions",
        "ShowTables", "Subquery", "TableExpression", "TableIdentifier", "TableJoin", "TablesInSelectQuery",
        "TablesInSelectQueryElement", "WindowDefinition", "WindowListElement", "WithElement",
    }
)  # fmt: skip
"""Nodes of a statement that only reads. SETTINGS is one that isn't here: below the top the engine lets it through."""

_EXPLAINS: Final = frozenset({"EXPLAIN", "EXPLAIN AST", "EXPLAIN SYNTAX", "EXPLAIN QUERY TREE"})
_HARMLESS_TABLE_FUNCTIONS: Final = frozenset(
    {
        "format",
        "generateseries",
        "generate_series",
        "null",
        "numbers",
        "numbers_mt",
        "primes",
        "values",
        "view",
        "zeros",
        "zeros_mt",
    }
)
_REFUSED_FUNCTIONS: Final = re.compile(
    r"file|sleep|sleepeachrow|ai[a-z]+|catboostevaluate|evalmlmethod|showcertificate|getclienthttpheader|getserversetting|getmacro"
    r"|serveruuid|joinget\w*|dictget\w*|dicthas|dictisin|addressto\w+|logtrace|generateserialid|naivebayes\w+|filesystem\w+"
    r"|currentrequesturl|zookeeper\w+|structureto\w+schema|icebergbucket|transaction\w+|regionto\w+|getmergetreesetting",
)
"""Functions that reach beyond the rows of a query, or hold it up; not by a name that a column could have."""

_NODE = re.compile(r" *([A-Za-z][A-Za-z:]*)(?: (.*))?")
_NODE_TAIL = re.compile(r"(?: \(alias .*\))?(?: \(children \d+\))?$")
_STRING = re.compile(r"'(?:[^'\\]|\\.|'')*'", re.DOTALL)
_NAMES = re.compile(r"`((?:[^`\\]|\\.)*)`|\"((?:[^\"\\]|\\.)*)\"|([A-Za-z_]\w*)", re.DOTALL)
_IDENTIFIER_PARAM = re.compile(r":\s*Identifier\s*\}")

Parse = Callable[[str], str]


def write_config(folder: Path) -> Path:
    """Writes what the engine reads at its start about users; gives the file to name to it."""
    users, config = folder / "sluice.users.xml", folder / "sluice.config.xml"
    users.write_text(_users())
    config.write_text(f"<clickhouse><users_config>{escape(str(users))}</users_config></clickhouse>\n")
    return config


def carried(grant: Grant) -> str:
    """Whose rows are shown, for CARRIER."""
    return json.dumps({"organization": grant.organization, "only": grant.only, "teams": grant.teams}, ensure_ascii=False)


def settings_of(given: Mapping[str, str]) -> dict[str, str]:
    """The settings of an analyst's query: the limits, and what its client may set. Raises EngineError for anything else."""
    settings = {name: str(most) for name, most in LIMITS.items() if name != "max_concurrent_queries_for_user"}
    for name, value in given.items():
        if name in settings:
            settings[name] = _within(name, value)
        elif name in FREE_SETTINGS:
            settings[name] = value
        elif name != "readonly" or value not in ("1", "2"):
            raise refusal(164, f"Cannot modify '{name}' setting in readonly mode", "READONLY")
    return settings


def check(canonical: str, tree: str, table_functions: frozenset[str]) -> None:
    """Raises EngineError unless the statement only reads, and nothing but tables that are the engine's to judge.

    `canonical`: as the engine writes the statement. `tree`: as it explains its syntax. A name with line breaks makes lines of
    its own there; they can add nodes, never hide one.
    """
    for place, line in enumerate(tree.rstrip("\n").split("\n")):
        found = _NODE.fullmatch(line)
        if found is None or found[1] not in _KINDS:
            word = found[1] if found else "this"
            raise _readonly(word) if place == 0 or word == "Set" else _denied(f"{word} can't be used by analysts")
        _check_node(found[1], _NODE_TAIL.sub("", found[2] or ""), table_functions)
    plain = _STRING.sub("''", canonical)
    if _IDENTIFIER_PARAM.search(plain):
        raise _denied("parameters of the type Identifier can't be used by analysts")
    for quoted, double, bare in _NAMES.findall(plain):
        if bare.upper() == "OUTFILE":
            raise refusal(358, "INTO OUTFILE is not allowed", "INTO_OUTFILE_NOT_ALLOWED")
        if _REFUSED_FUNCTIONS.fullmatch((quoted or double or bare).lower()):
            raise _denied(f"the function {quoted or double or bare} can't be used by analysts")


def _check_node(kind: str, rest: str, table_functions: frozenset[str]) -> None:
    name = rest.lower()
    if kind == "Function" and name in table_functions - _HARMLESS_TABLE_FUNCTIONS:
        raise _denied(f"the table function {rest} can't be used by analysts")
    if kind == "Explain" and rest not in _EXPLAINS:
        raise _denied(f"{rest} can't be used by analysts")
    if kind in ("TableIdentifier", "Identifier"):
        database, _, table = name.partition(".")
        if database == "system" and table and table.partition(".")[0] not in SYSTEM_READABLE:
            raise _denied(f"{rest} can't be read by analysts")


def _within(name: str, value: str) -> str:
    try:
        asked = float(value)
    except ValueError:
        raise refusal(72, f"Cannot parse {name}={value}", "CANNOT_PARSE_NUMBER") from None
    if not 0 < asked <= LIMITS[name]:
        raise refusal(452, f"Setting {name} shouldn't be greater than {LIMITS[name]}", "SETTING_CONSTRAINT_VIOLATION")
    return value


def _readonly(word: str) -> EngineError:
    what = {"Set": "SETTINGS"}.get(word, word.removesuffix("Query"))
    return refusal(164, f"Cannot execute query in readonly mode: analysts only read, {what} isn't for them", "READONLY")


def _denied(why: str) -> EngineError:
    return refusal(497, f"Not enough privileges: {why}", "ACCESS_DENIED")


def _users() -> str:
    # Of the first, whose SELECT is free anyway, clients ask the columns.
    grants = ["SELECT ON system.one", *(f"{selecting(table)} ON sluice.{table}" for table in READABLE)]
    policies = {table: _filter(owner) for table, owner in OWNED.items()}
    # What is behind the views would tell how many rows there are of all organizations together.
    listed = f"{_NOBODYS} OR database != 'sluice' OR engine = 'View'"
    system = {**dict.fromkeys(SYSTEM_WITHHELD, _NOBODYS), "tables": listed}
    return f"""<clickhouse>
<profiles><default/></profiles>
<quotas><default/></quotas>
<roles>
<service><grants><query>GRANT ALL ON *.* WITH GRANT OPTION</query></grants></service>
<analyst><grants>{"".join(f"<query>GRANT {grant}</query>" for grant in grants)}</grants></analyst>
</roles>
<users><default>
<password></password><networks><ip>::/0</ip></networks><profile>default</profile><quota>default</quota>
<grants><query>GRANT service</query><query>GRANT analyst</query></grants>
<databases><sluice>{_filters(policies)}</sluice><system>{_filters(system)}</system></databases>
</default></users>
</clickhouse>
"""


def _filters(policies: Mapping[str, str]) -> str:
    return "".join(f"<{table}><filter>{escape(words)}</filter></{table}>" for table, words in policies.items())


_NOBODYS: Final = f"getSetting('{CARRIER}') = ''"


def _filter(owner: Owner) -> str:
    carrier = f"getSetting('{CARRIER}')"
    only, teams = (f"JSONExtract({carrier}, '{name}', 'Array(String)')" for name in ("only", "teams"))
    organization = f"JSONExtractString({carrier}, 'organization')"
    own = f"has({teams}, team)"
    if owner == "either":
        own = f"organization IN ({organization}, '') AND {own}"
    elif owner == "organization":
        own = f"organization = {organization} AND (empty({only}) OR has({only}, team))"
    return f"{_NOBODYS} OR ({own})"
