"""Grafana's dashboards, as data: `python -m infra.deploy.dashboards` writes them to `infra/deploy/grafana`.

Those of platform and team read Prometheus, that of finance reads ClickHouse (plugin grafana-clickhouse-datasource).
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from schemas.base import JsonObject

FOLDER: Final = Path(__file__).with_name("grafana")
PROMETHEUS: Final = "prometheus"
CLICKHOUSE: Final = "grafana-clickhouse-datasource"

Shape = Literal["timeseries", "stat", "table", "bargauge"]

_WIDTH, _HEIGHT = 24, 8


@dataclass(frozen=True, slots=True)
class Panel:
    """A picture: its queries by legend (of SQL, one), and the unit as Grafana names it."""

    title: str
    queries: Mapping[str, str]
    unit: str = "short"
    shape: Shape = "timeseries"
    about: str = ""
    wide: bool = False


@dataclass(frozen=True, slots=True)
class Dashboard:
    """A page of pictures, all of one source; `chosen` are the labels of which a reader may pick some."""

    uid: str
    title: str
    about: str
    source: str
    panels: Sequence[Panel]
    chosen: Mapping[str, str]
    span: str = "now-3h"


def quantile(share: float, metric: str, by: str = "", where: str = "") -> str:
    """A quantile of a histogram over the interval that a pixel stands for."""
    labels = f"le, {by}" if by else "le"
    return f"histogram_quantile({share}, sum by ({labels}) (rate({metric}_bucket{where}[$__rate_interval])))"


def per_second(metric: str, by: str = "", where: str = "") -> str:
    """The rate of a counter."""
    return f"sum by ({by}) (rate({metric}{where}[$__rate_interval]))"


def ratio(above: str, below: str) -> str:
    """A share that is 0, and not nothing, where nothing happens."""
    return f"({above}) / clamp_min({below}, 1e-9)"


PLATFORM: Final = Dashboard(
    uid="sluice-platform",
    title="Sluice: platform",
    about="Is the gateway well, and if not, whose fault is it: ours, a provider's, a caller's.",
    source=PROMETHEUS,
    chosen={},
    panels=(
        Panel("Jobs ended", {"{{status}}": per_second("sluice_jobs_ended_total", "status")}, "reqps"),
        Panel(
            "Errors by whose fault",
            {"{{owner}}": per_second("sluice_errors_total", "owner")},
            "reqps",
            about="gateway: ours; provider: an upstream failed; caller: what was asked was wrong or too much.",
        ),
        Panel(
            "Requests, as callers see them",
            {f"p{round(q * 100)}": quantile(q, "gen_ai_server_request_duration_seconds") for q in (0.5, 0.95, 0.99)},
            "s",
        ),
        Panel(
            "Time to the first token",
            {f"p{round(q * 100)}": quantile(q, "gen_ai_server_time_to_first_token_seconds") for q in (0.5, 0.95, 0.99)},
            "s",
        ),
        Panel(
            "Time per output token",
            {f"p{round(q * 100)}": quantile(q, "gen_ai_server_time_per_output_token_seconds") for q in (0.5, 0.95)},
            "s",
        ),
        Panel(
            "Queue: from acceptance to the first provider call",
            {"p95 {{lane}}": quantile(0.95, "sluice_queue_seconds", "lane")},
            "s",
        ),
        Panel("Lanes: records that wait", {"{{lane}} {{stage}}": "sum by (lane, stage) (sluice_lane_depth)"}),
        Panel("Lanes: longest wait", {"{{lane}} {{stage}}": "max by (lane, stage) (sluice_lane_age_seconds)"}, "s"),
        Panel("Stages: time a record takes", {"p95 {{stage}}": quantile(0.95, "sluice_stage_seconds", "stage")}, "s"),
        Panel("Stages: oldest record at work", {"{{stage}}": "max by (stage) (sluice_stage_oldest_seconds)"}, "s"),
        Panel("Provider calls", {"{{provider}} {{status}}": per_second("sluice_attempts_total", "provider, status")}, "reqps"),
        Panel(
            "Provider calls that failed",
            {
                "{{provider}}": ratio(
                    per_second("sluice_attempts_total", "provider", '{status="failed"}'),
                    per_second("sluice_attempts_total", "provider"),
                )
            },
            "percentunit",
        ),
        Panel(
            "Providers: a call",
            {"p95 {{gen_ai_provider_name}}": quantile(0.95, "gen_ai_client_operation_duration_seconds", "gen_ai_provider_name")},
            "s",
        ),
        Panel(
            "Deployments: breaker",
            {"{{deployment}}": "max by (deployment) (sluice_deployment_state)"},
            about="0 closed, 1 half open, 2 open, 3 quarantined, 4 drained",
        ),
        Panel("Fallbacks", {"{{model}} to {{to}}": per_second("sluice_fallbacks_total", "model, to")}, "reqps"),
        Panel("Hedges", {"{{result}}": per_second("sluice_hedges_total", "result")}, "reqps"),
        Panel(
            "Exact cache: hits",
            {
                "hits": ratio(
                    per_second("sluice_cache_lookups_total", "", '{result="hit"}'), per_second("sluice_cache_lookups_total")
                )
            },
            "percentunit",
        ),
        Panel("Guard: verdicts", {"{{verdict}}": per_second("sluice_guard_verdicts_total", "verdict")}, "reqps"),
        Panel("Refused at admission", {"{{code}}": per_second("sluice_jobs_refused_total", "code")}, "reqps"),
        Panel("Dead letters", {"{{stage}} {{reason}}": per_second("sluice_dead_total", "stage, reason")}, "reqps"),
        Panel(
            "Books: Redis against ClickHouse",
            {"{{level}}": "max by (level) (abs(sluice_books_difference_usd))", "lag": "max(sluice_books_lag)"},
            about="USD by which the counters differed, and completions that ClickHouse has not counted yet.",
        ),
        Panel(
            "Ledger and limits",
            {"ledger open": "min(sluice_ledger_open)", "limits approximate": "max(sluice_limits_degraded)"},
            shape="stat",
        ),
        Panel("Event loops: busy", {"{{instance}}": "sluice_loop_busy_ratio"}, "percentunit"),
        Panel("Event loops: late by", {"{{instance}}": "sluice_loop_lag_seconds"}, "s"),
        Panel("Spans that were not sent", {"{{why}}": per_second("sluice_spans_dropped_total", "why")}, "reqps"),
    ),
)

_TEAM: Final = '{team=~"$team"}'

TEAM: Final = Dashboard(
    uid="sluice-team",
    title="Sluice: teams",
    about="What a team asks for, how it fares, and what it spends.",
    source=PROMETHEUS,
    chosen={"team": "label_values(sluice_requests_total, team)"},
    panels=(
        Panel("Jobs by model", {"{{team}} {{model}}": per_second("sluice_requests_total", "team, model", _TEAM)}, "reqps"),
        Panel(
            "Jobs that failed",
            {
                "{{team}}": ratio(
                    per_second("sluice_requests_total", "team", '{team=~"$team", status="failed"}'),
                    per_second("sluice_requests_total", "team", _TEAM),
                )
            },
            "percentunit",
        ),
        Panel(
            "Cost an hour",
            {"{{team}} {{model}}": f"3600 * {per_second('sluice_cost_usd_total', 'team, model', _TEAM)}"},
            "currencyUSD",
        ),
        Panel("Tokens", {"{{team}} {{direction}}": per_second("sluice_tokens_total", "team, direction", _TEAM)}),
        Panel(
            "Budgets: share that is spent",
            {"{{team}} {{period}}": f"max by (team, period) (sluice_budget_spent_ratio{_TEAM})"},
            "percentunit",
            shape="bargauge",
        ),
        Panel(
            "Cost of a thousand jobs",
            {
                "{{team}}": "1000 * "
                + ratio(per_second("sluice_cost_usd_total", "team", _TEAM), per_second("sluice_requests_total", "team", _TEAM))
            },
            "currencyUSD",
        ),
    ),
)

FINANCE: Final = Dashboard(
    uid="sluice-finance",
    title="Sluice: finance",
    about="What was spent, by whom and on what; exact sums of the books.",
    source=CLICKHOUSE,
    chosen={},
    span="now-30d",
    panels=(
        Panel(
            "This month",
            {
                "": "SELECT sum(m.cost_usd) AS cost_usd, sum(m.saved_usd) AS saved_usd, sum(m.jobs) AS jobs "
                "FROM sluice.chargeback_monthly AS m WHERE month = toStartOfMonth(now('UTC'))"
            },
            "currencyUSD",
            "stat",
        ),
        Panel(
            "Month to date, and at this pace at its end",
            {
                "": "WITH toStartOfMonth(now('UTC')) AS first, dateDiff('second', first, addMonths(first, 1)) AS whole "
                "SELECT sum(d.cost_usd) AS spent_usd, "
                "toFloat64(spent_usd) * whole / greatest(1, dateDiff('second', first, now('UTC'))) AS expected_usd "
                "FROM sluice.chargeback_daily AS d WHERE day >= first"
            },
            "currencyUSD",
            "stat",
            about="A straight line; `sluice report forecast` knows weekdays.",
        ),
        Panel(
            "Cost a day, by team",
            {
                "": "SELECT toDateTime(day) AS time, team, sum(d.cost_usd) AS cost_usd FROM sluice.chargeback_daily AS d "
                "WHERE $__dateFilter(day) GROUP BY time, team ORDER BY time, team"
            },
            "currencyUSD",
            wide=True,
        ),
        Panel(
            "This month by team",
            {
                "": "SELECT team, sum(m.jobs) AS jobs, sum(m.prompt_tokens) AS prompt_tokens, "
                "sum(m.completion_tokens) AS completion_tokens, sum(m.cost_usd) AS cost_usd, "
                "sum(m.saved_usd) AS saved_usd FROM sluice.chargeback_monthly AS m "
                "WHERE month = toStartOfMonth(now('UTC')) GROUP BY team ORDER BY cost_usd DESC"
            },
            shape="table",
        ),
        Panel(
            "This month by model",
            {
                "": "SELECT model, sum(m.jobs) AS jobs, sum(m.cost_usd) AS cost_usd, "
                "1000 * toFloat64(cost_usd) / jobs AS usd_per_1000_jobs FROM sluice.chargeback_monthly AS m "
                "WHERE month = toStartOfMonth(now('UTC')) GROUP BY model ORDER BY cost_usd DESC"
            },
            shape="table",
        ),
        Panel(
            "By feature",
            {
                "": "SELECT team, feature, count() AS jobs, sum(u.cost_usd) AS cost_usd FROM sluice.usage AS u "
                "WHERE $__timeFilter(ts) GROUP BY team, feature ORDER BY cost_usd DESC LIMIT 100"
            },
            shape="table",
        ),
        Panel(
            "Saved by the cache, a day",
            {
                "": "SELECT toDateTime(day) AS time, sum(c.saved_usd) AS saved_usd FROM sluice.cache_savings AS c "
                "WHERE $__dateFilter(day) GROUP BY time ORDER BY time"
            },
            "currencyUSD",
        ),
        Panel(
            "Cost that is estimated, or has no price",
            {
                "": "SELECT provider, deployment, countIf(price_version = '') AS calls_without_price, "
                "countIf(usage_source = 'estimated') AS calls_estimated, "
                "sumIf(a.cost_usd, usage_source = 'estimated') AS estimated_usd "
                "FROM sluice.attempts AS a WHERE $__timeFilter(ts) GROUP BY provider, deployment "
                "HAVING calls_without_price + calls_estimated > 0 ORDER BY estimated_usd DESC"
            },
            shape="table",
            about="What an invoice may differ by: `sluice reconcile` compares.",
        ),
        Panel(
            "What people think, by model",
            {
                "": "SELECT model, name, count() AS opinions, avg(score) AS score FROM sluice.feedback "
                "WHERE $__timeFilter(ts) GROUP BY model, name ORDER BY opinions DESC"
            },
            shape="table",
        ),
    ),
)

DASHBOARDS: Final = (PLATFORM, TEAM, FINANCE)


def drawn(dashboard: Dashboard) -> JsonObject:
    """The dashboard as Grafana reads it (schema version 39)."""
    return {
        "uid": dashboard.uid,
        "title": dashboard.title,
        "description": dashboard.about,
        "tags": ["sluice"],
        "schemaVersion": 39,
        "version": 1,
        "editable": True,
        "refresh": "30s",
        "time": {"from": dashboard.span, "to": "now"},
        "timezone": "utc",
        "templating": {"list": [_source(dashboard.source), *(_choice(name, query) for name, query in dashboard.chosen.items())]},
        "panels": [*_panels(dashboard)],
    }


def _source(kind: str) -> JsonObject:
    return {"name": "source", "label": "Data source", "type": "datasource", "query": kind}


def _choice(name: str, query: str) -> JsonObject:
    more: JsonObject = {"includeAll": True, "multi": True, "allValue": ".*", "refresh": 2, "sort": 1}
    return {"name": name, "label": name, "type": "query", "datasource": _REF[PROMETHEUS], "query": query, **more}


_REF: Final[Mapping[str, JsonObject]] = {kind: {"type": kind, "uid": "${source}"} for kind in (PROMETHEUS, CLICKHOUSE)}


def _panels(dashboard: Dashboard) -> Iterator[JsonObject]:
    x = y = 0
    for number, panel in enumerate(dashboard.panels, 1):
        width = _WIDTH if panel.wide else _WIDTH // 2
        if x + width > _WIDTH:
            x, y = 0, y + _HEIGHT
        yield {
            "id": number,
            "title": panel.title,
            "description": panel.about,
            "type": panel.shape,
            "datasource": _REF[dashboard.source],
            "gridPos": {"h": _HEIGHT, "w": width, "x": x, "y": y},
            "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0}, "overrides": []},
            "options": {"legend": {"displayMode": "list", "placement": "bottom"}} if panel.shape == "timeseries" else {},
            "targets": [*_targets(dashboard.source, panel)],
        }
        x += width


def _targets(source: str, panel: Panel) -> Iterator[JsonObject]:
    for n, (legend, query) in enumerate(panel.queries.items()):
        common: JsonObject = {"refId": chr(ord("A") + n), "datasource": _REF[source]}
        if source == PROMETHEUS:
            yield {**common, "expr": query, "legendFormat": legend}
        else:
            kind = "timeseries" if panel.shape == "timeseries" else "table"
            yield {**common, "rawSql": query, "editorType": "sql", "queryType": kind, "format": 0 if kind == "timeseries" else 1}


def main() -> None:
    """Writes them all."""
    for dashboard in DASHBOARDS:
        text = json.dumps(drawn(dashboard), indent=2, ensure_ascii=False)
        FOLDER.joinpath(f"{dashboard.uid}.json").write_text(f"{text}\n")


if __name__ == "__main__":
    main()
