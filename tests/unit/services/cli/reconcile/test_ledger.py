"""A provider's books, in the forms in which they come."""

import json
import random
from collections.abc import Sequence
from datetime import date
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from benchmarks.mock_ledger import Ledger
from services.cli.reconcile.ledger import Entry, Unreadable, entries

DAY = date(2026, 11, 3)
START = 1_793_664_000  # 2026-11-03 00:00 UTC
D = Decimal

OPENAI_USAGE = {
    "object": "page",
    "data": [
        {
            "object": "bucket",
            "start_time": START,
            "end_time": START + 86_400,
            "results": [
                {
                    "object": "organization.usage.completions.result",
                    "input_tokens": 1000,
                    "output_tokens": 500,
                    "input_cached_tokens": 800,
                    "input_audio_tokens": 0,
                    "num_model_requests": 5,
                    "project_id": None,
                    "model": "gpt-4o-2024-08-06",
                }
            ],
        }
    ],
    "has_more": False,
    "next_page": None,
}
OPENAI_COSTS = {
    "object": "page",
    "data": [
        {
            "object": "bucket",
            "start_time": START,
            "end_time": START + 86_400,
            "results": [
                {
                    "object": "organization.costs.result",
                    "amount": {"value": 0.06, "currency": "usd"},
                    "line_item": "gpt-4o-2024-08-06, input",
                    "project_id": None,
                }
            ],
        }
    ],
}
ANTHROPIC_USAGE = {
    "data": [
        {
            "starting_at": "2026-11-03T00:00:00Z",
            "ending_at": "2026-11-04T00:00:00Z",
            "results": [
                {
                    "uncached_input_tokens": 1500,
                    "cache_creation": {"ephemeral_1h_input_tokens": 1000, "ephemeral_5m_input_tokens": 500},
                    "cache_read_input_tokens": 200,
                    "output_tokens": 500,
                    "server_tool_use": {"web_search_requests": 10},
                    "model": "claude-x",
                    "service_tier": "standard",
                }
            ],
        }
    ],
    "has_more": False,
}
ANTHROPIC_COST = {
    "data": [
        {
            "starting_at": "2026-11-03T00:00:00Z",
            "ending_at": "2026-11-04T00:00:00Z",
            "results": [{"currency": "USD", "amount": "123.45", "cost_type": "tokens", "model": "claude-x"}],
        }
    ]
}
FOCUS_CSV = "BilledCost,ChargePeriodStart,SkuId,SubAccountName\n1.5,2026-11-03T00:00:00Z,openai/small,fraud\n"
CUR_CSV = "line_item_usage_start_date,line_item_usage_type,line_item_unblended_cost\n2026-11-03 00:00:00,USE1-Claude-input,0.25\n"
CASES: Sequence[tuple[str, str, Entry]] = [
    ("usage.json", json.dumps(OPENAI_USAGE), Entry("gpt-4o-2024-08-06", DAY, None, None, 5, 1000, 800, 500, None)),
    ("pages.json", json.dumps([OPENAI_USAGE], indent=1), Entry("gpt-4o-2024-08-06", DAY, None, None, 5, 1000, 800, 500, None)),
    ("costs.json", json.dumps(OPENAI_COSTS, indent=2), Entry("gpt-4o-2024-08-06", DAY, cost_usd=D("0.06"))),
    ("usage_a.json", json.dumps(ANTHROPIC_USAGE), Entry("claude-x", DAY, None, None, None, 3200, 200, 500, None)),
    ("cost_a.json", json.dumps(ANTHROPIC_COST), Entry("claude-x", DAY, cost_usd=D("1.2345"))),
    (
        "openai.csv",
        "start_time_iso,project_name,num_model_requests,model,input_tokens,output_tokens,input_cached_tokens\n"
        "2026-11-03T00:00:00+00:00,web,7,gpt-4o,10,20,3\n",
        Entry("gpt-4o", DAY, "web", None, 7, 10, 3, 20, None),
    ),
    (
        "anthropic.csv",
        "usage_date_utc,model_version,workspace,usage_input_tokens_no_cache,usage_input_tokens_cache_write_5m,"
        "usage_input_tokens_cache_write_1h,usage_input_tokens_cache_read,usage_output_tokens\n2026-11-03,claude-x,Default,1,2,4,8,16\n",
        Entry("claude-x", DAY, "Default", None, None, 15, 8, 16, None),
    ),
    ("focus.csv", FOCUS_CSV, Entry("openai/small", DAY, "fraud", cost_usd=D("1.5"))),
    ("cur.csv", CUR_CSV, Entry("USE1-Claude-input", DAY, cost_usd=D("0.25"))),
    (
        "plain.jsonl",
        '\n{"id": "c1", "model": "small", "input_tokens": 10, "cached_tokens": 4, "output_tokens": 2, "cost_usd": 0.000000001,'
        f' "at": {START}.5, "team": "fraud", "deployment": "small@1"}}\n',
        Entry("small", DAY, "fraud", "small@1", 1, 10, 4, 2, D("0.000000001")),
    ),
    ("many.jsonl", '{"model": "small", "calls": 20, "output_tokens": 2}\n', Entry("small", calls=20, output_tokens=2)),
    ("nothing.jsonl", '{"model": "small", "input_tokens": 0}\n', Entry("small", calls=0, input_tokens=0)),
    ("calls.csv", "Model;Requests;Cost\nsmall;1,234;$1,234.50\n", Entry("small", calls=1234, cost_usd=D("1234.50"))),
    ("names.csv", "Model,Input Tokens,Cost USD\nsmall,5,0.5\n", Entry("small", calls=1, input_tokens=5, cost_usd=D("0.5"))),
    ("tabs.csv", "\ufeffmodel\tprompt_tokens\tcompletion_tokens\ttimestamp\nsmall\t1\t2\t1793664000000\n",
     Entry("small", DAY, calls=1, input_tokens=1, output_tokens=2)),
]  # fmt: skip
BROKEN = [
    ("a,b\n1,2\n", "No column"),
    ("model,calls\nsmall\n", "Line 2 has 1 cells"),
    ("model,calls\nsmall,many\n", "Line 2: calls is 'many'"),
    ("model,calls\nsmall,1.5\n", "whole number"),
    ("model,input_tokens\nsmall,-1\n", "whole number"),
    ("model,cost\nsmall,NaN\n", "should be a number"),
    ("model;cost\nsmall;1,00\n", "Line 2: cost is '1,00'; it should be a number such as 1234.50"),
    ("model;cost\nsmall;0,123\n", "Line 2: cost is '0,123'"),
    ("model;cost\nsmall;1.234,50\n", "Line 2: cost is '1.234,50'"),
    ("model,cost,currency\nsmall,1.00,EUR\n", "Line 2: currency is 'EUR'; our books are in USD"),
    (json.dumps(OPENAI_COSTS).replace('"usd"', '"eur"'), "amount_currency is 'eur'"),
    (FOCUS_CSV.replace("SkuId", "BillingCurrency").replace("openai/small", "GBP"), "billingcurrency is 'GBP'"),
    ("model,calls,date\nsmall,1,yesterday\n", "should be a time"),
    ('{"model": "a", "calls": 1}\n[1]\n', "Line 2 is no JSON object"),
    ('{"model": "a", "calls": 1}\n{"model": \n', "Line 2 is no JSON"),
    ('{"model": "a", "calls": true}\n', "should be a number"),
    ("{\n", "no JSON"),
    ("[1, 2]\n", "no JSON object"),
]


def read(folder: Path, name: str, text: str) -> list[Entry]:
    file = folder / name
    file.write_text(text, encoding="utf-8")
    return list(entries(file))


@pytest.mark.parametrize(("name", "text", "expected"), CASES, ids=[case[0] for case in CASES])
def test_a_format_is_known_by_its_content(tmp_path: Path, name: str, text: str, expected: Entry) -> None:
    assert read(tmp_path, "whatever", text) == [expected]


@pytest.mark.parametrize(("text", "said"), BROKEN)
def test_what_cannot_be_read_names_the_line(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(Unreadable, match=said):
        read(tmp_path, "broken", text)


def test_what_is_no_text_is_said(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"\xff\xfe\x00model")
    with pytest.raises(Unreadable, match="UTF-8"):
        list(entries(tmp_path / "x"))


def test_the_mock_providers_own_ledger_is_read(tmp_path: Path) -> None:
    ledger = Ledger(file=tmp_path / "ledger.jsonl")
    for tokens, status in ((3, 200), (0, 500), (0, 429)):
        entry = ledger.open("chat", "mock-fast")
        entry.status, entry.prompt_tokens, entry.completion_tokens = status, tokens, tokens * 2
        ledger.close(entry, "finished")
    found = list(entries(tmp_path / "ledger.jsonl"))
    assert [(one.model, one.calls, one.input_tokens, one.output_tokens) for one in found] == [
        ("mock-fast", 1, 3, 6),
        ("mock-fast", 0, 0, 0),
        ("mock-fast", 0, 0, 0),
    ]
    assert all(one.day is not None for one in found)


@given(st.text(max_size=300))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_a_file_holds_it_is_read_or_refused(tmp_path: Path, text: str) -> None:
    try:
        found = read(tmp_path, "any", text)
    except Unreadable:
        return
    assert all(isinstance(one, Entry) for one in found)


@given(st.lists(st.tuples(st.integers(0, 10**9), st.decimals(0, 10**6, places=9)), min_size=1, max_size=30), st.randoms())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_nano_dollar_is_lost_in_reading(tmp_path: Path, calls: list[tuple[int, Decimal]], chance: random.Random) -> None:
    lines = [f'{{"model": "m", "input_tokens": {tokens}, "cost_usd": {cost:f}}}' for tokens, cost in calls]
    found = read(tmp_path, "ledger", "\n".join(lines) + chance.choice(("", "\n")))
    assert [(one.input_tokens, one.cost_usd) for one in found] == calls
