"""The queries of the finance dashboard, asked of ClickHouse itself."""

import re

import pytest

from infra.deploy.dashboards import CLICKHOUSE, DASHBOARDS, Panel
from tests.system import System

PANELS = [panel for dashboard in DASHBOARDS if dashboard.source == CLICKHOUSE for panel in dashboard.panels]
MACROS = ((r"\$__timeFilter\((\w+)\)", r"\1 >= now() - INTERVAL 30 DAY"), (r"\$__dateFilter\((\w+)\)", r"\1 >= today() - 30"))
"""What Grafana's plugin makes of its macros."""


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel.title)
async def test_clickhouse_answers_what_the_panel_asks(system: System, panel: Panel) -> None:
    (query,) = panel.queries.values()
    for macro, meant in MACROS:
        query = re.sub(macro, meant, query)
    assert "$__" not in query
    rows = await system.query(query)
    assert isinstance(rows, list)
    if panel.shape == "timeseries":
        assert "AS time" in query
