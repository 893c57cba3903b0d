"""Dashboards and rules ask for metrics that there are, by labels that they have."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import promql_parser as promql
import pytest
import yaml

from infra.deploy.dashboards import DASHBOARDS, FOLDER, PROMETHEUS, drawn
from infra.telemetry.metrics import REGISTRY

RULES = FOLDER.parent / "prometheus"
ANYWHERE = frozenset({"instance", "job", "le"})


def known() -> Mapping[str, frozenset[str]]:
    """Every series that a process of ours may tell, and its labels."""
    found: dict[str, frozenset[str]] = {}
    for collector, names in REGISTRY._collector_to_names.items():  # pyright: ignore[reportPrivateUsage]
        labels = frozenset(cast("Sequence[str]", getattr(collector, "_labelnames", ())))
        found |= dict.fromkeys(names, labels)
    return found


def rules(file: str) -> list[dict[str, Any]]:
    groups: list[dict[str, Any]] = yaml.safe_load(RULES.joinpath(file).read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


RECORDED = {rule["record"]: rule["expr"] for rule in rules("recording.yaml")}
ALERTS = {rule["alert"]: rule["expr"] for rule in rules("alerts.yaml")}
PANELS = {
    f"{dashboard.title}: {panel.title}: {legend}": query
    for dashboard in DASHBOARDS
    if dashboard.source == PROMETHEUS
    for panel in dashboard.panels
    for legend, query in panel.queries.items()
}


def selectors(query: str) -> Iterator[tuple[str, Sequence[str]]]:
    """Names of series in a query, each with the labels that are asked for beside it."""
    query = query.replace("$__rate_interval", "5m")
    found: list[tuple[str, Sequence[str]]] = []

    def visit(node: promql.Expr) -> bool:
        if isinstance(node, promql.VectorSelector) and node.name is not None:
            found.append((node.name, re.findall(r"(\w+)(?:=~|!~|!=|=)\"", str(node.matchers))))
        return True

    promql.walk(promql.parse(query), pre_visit=visit)
    yield from found


def grouped(query: str) -> set[str]:
    return {label.strip() for group in re.findall(r"by \(([^)]*)\)", query) for label in group.split(",") if label.strip()}


@pytest.mark.parametrize("name", [*PANELS, *RECORDED, *ALERTS])
def test_a_query_asks_for_what_there_is(name: str) -> None:
    query = {**PANELS, **RECORDED, **ALERTS}[name]
    series = known()
    found = list(selectors(query))
    assert found
    labels: set[str] = set()
    for metric, matched in found:
        if metric in RECORDED:
            labels |= grouped(RECORDED[metric])
            continue
        assert metric in series, metric
        assert set(matched) <= series[metric] | ANYWHERE, (metric, matched)
        labels |= series[metric]
    assert grouped(query) <= labels | ANYWHERE


@pytest.mark.parametrize("dashboard", DASHBOARDS, ids=lambda dashboard: dashboard.uid)
def test_what_is_committed_is_what_is_drawn(dashboard: Any) -> None:
    committed = json.loads(FOLDER.joinpath(f"{dashboard.uid}.json").read_text())
    assert committed == drawn(dashboard), "run `python -m infra.deploy.dashboards`"


def test_a_legend_names_labels_that_its_query_keeps() -> None:
    for name, query in PANELS.items():
        legend = name.rpartition(": ")[2]
        assert set(re.findall(r"\{\{(\w+)\}\}", legend)) <= grouped(query) | ANYWHERE, name


def test_every_alert_says_what_it_is_and_what_to_do() -> None:
    tested = Path(RULES / "alerts_test.yaml").read_text()
    for rule in rules("alerts.yaml"):
        assert {"summary", "action"} <= set(rule["annotations"]), rule["alert"]
        assert rule["labels"]["severity"] in {"info", "warning", "critical"}
    named = set(re.findall(r"alertname: (\w+)", tested))
    assert named <= set(ALERTS)
