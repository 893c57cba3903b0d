"""A completion as rows: worked examples, and sums that hold whatever comes."""

import re
from collections.abc import Mapping
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.clickhouse.migrate import migrations
from schemas.completion import Completion
from schemas.errors import BudgetExceeded, Cancelled, Fault
from schemas.job import Caller, JobStatus, Labels
from schemas.usage import Usage
from services.accounting.policy import flaw
from services.accounting.rows import ATTEMPTS, ATTEMPTS_COLUMNS, USAGE, USAGE_COLUMNS, Bill, bill, tables
from tests.unit.services.accounting.examples import ACCEPTED_MS, JOB_ID, attempt, completion

NO_TOKENS = {
    "prompt_tokens": 0,
    "cached_tokens": 0,
    "cache_write_tokens": 0,
    "completion_tokens": 0,
    "reasoning_tokens": 0,
    "usage_source": "none",
}
TOKENS = {
    "prompt_tokens": 100,
    "cached_tokens": 20,
    "cache_write_tokens": 0,
    "completion_tokens": 50,
    "reasoning_tokens": 5,
    "usage_source": "provider",
}


def usage_of(one: Bill) -> dict[str, object]:
    return dict(zip(USAGE_COLUMNS, one.usage, strict=True))


def calls_of(one: Bill) -> list[dict[str, object]]:
    return [dict(zip(ATTEMPTS_COLUMNS, values, strict=True)) for values in one.attempts]


def columns_in_sql(table: str) -> list[str]:
    """The names of a table's columns, from the migrations."""
    texts = [text for m in migrations() for text in m.statements]
    created = next(text for text in texts if f"CREATE TABLE IF NOT EXISTS {table}\n" in text)
    added = [found[1] for text in texts if (found := re.match(rf"ALTER TABLE {table}\s+ADD COLUMN IF NOT EXISTS (\w+) ", text))]
    return re.findall(r"^    (\w+) ", created, re.MULTILINE) + added


@pytest.mark.parametrize("table", [USAGE, ATTEMPTS])
def test_rows_have_the_columns_of_the_table(table: str) -> None:
    assert sorted(tables([bill(completion(), 0)])[table]) == sorted(columns_in_sql(table))


RARER = dict.fromkeys(
    (
        "input_audio_tokens",
        "input_image_tokens",
        "cached_audio_tokens",
        "output_audio_tokens",
        "output_image_tokens",
        "rejected_prediction_tokens",
        "web_searches",
        "storage_searches",
        "code_executions",
        "audio_ms",
        "margin_usd",
    ),
    0,
)


def test_the_row_of_a_job() -> None:
    assert usage_of(bill(completion(), 5, 3)) == TOKENS | RARER | {
        "job_id": JOB_ID,
        "ts": ACCEPTED_MS,
        "organization": "acme",
        "team": "fraud",
        "project": "p",
        "environment": "prod",
        "key_id": "key_1",
        "user": "u",
        "feature": "chat",
        "segment": "s",
        "metadata": {"a": "b"},
        "lane": "batch",
        "api": "chat.completions",
        "model": "fast",
        "deployment": "fast-eu",
        "provider": "openai",
        "status": "completed",
        "error_type": "",
        "cache": "miss",
        "price_version": "genai-prices:0.2.3",
        "policy_version": "7",
        "service_tier": "default",
        "cost_usd": Decimal("0.0007895"),
        "saved_usd": Decimal(0),
        "ttft_ms": 130.5,
        "latency_ms": 600.0,
        "queue_ms": 40.0,
        "guard_verdict": "flag",
        "guard_findings": ["email"],
        "trace_id": "4bf92f3577b34da6a3ce929d0e0e4736",
        "custom_id": "line-1",
        "version": 2**63 - 5,
        "accepted": ACCEPTED_MS,
        "ended": ACCEPTED_MS + 600,
        "ended_by": "router",
        "steps": [("guard", ACCEPTED_MS + 2), ("router", ACCEPTED_MS + 9)],
        "identity": "",
        "cache_write_1h_tokens": 0,
        "route": (),
        "shadow_of": "",
        "guard_version": "",
        "partition": 3,
    }


def test_the_row_of_a_call() -> None:
    (row,) = calls_of(bill(completion(), 5, 3))
    assert row == TOKENS | RARER | {
        "attempt_id": f"att_{JOB_ID[4:]}_1",
        "job_id": JOB_ID,
        "n": 1,
        "ts": ACCEPTED_MS + 40,
        "team": "fraud",
        "lane": "batch",
        "model": "fast",
        "deployment": "fast-eu",
        "provider": "openai",
        "provider_model": "gpt-5",
        "status": "completed",
        "http_status": 200,
        "error_type": "",
        "cost_usd": Decimal("0.0007895"),
        "latency_ms": 500.5,
        "ttft_ms": 90.5,
        "raw_usage": '{"prompt_tokens":100}',
        "trace_id": "4bf92f3577b34da6a3ce929d0e0e4736",
        "job_ts": ACCEPTED_MS,
        "version": 2**63 - 5,
        "cache_write_1h_tokens": 0,
        "alias": "",
        "hedge": False,
        "price_version": "genai-prices:0.2.3",
        "service_tier": "default",
        "partition": 3,
        "organization": "acme",
        "project": "p",
        "environment": "prod",
        "key_id": "key_1",
        "user": "u",
        "counted": ACCEPTED_MS + 9,
    }


BLOCKED = completion(
    status=JobStatus.FAILED, fault=BudgetExceeded("no money").fault(), attempts=(), verdict=None, ended_by="guard"
)
HIT = completion(attempts=(), cache="hit", saved_usd=Decimal("0.25"), ended_by="cache")
FELL_BACK = completion(
    attempts=(
        attempt(1, deployment="fast-us", status="failed", http_status=429, error="rate_limit_exceeded", cost_usd=Decimal("0.1")),
        attempt(2, price_version="config:1", cost_usd=Decimal("0.2"), started_ms=ACCEPTED_MS + 200, ttft_ms=None),
    )
)

HEDGED = completion(
    attempts=(attempt(1, deployment="fast-eu"), attempt(2, deployment="fast-us", status="cancelled", error="hedged", hedge=True))
)


def test_of_two_calls_at_once_the_job_is_told_by_the_one_that_answered() -> None:
    made = bill(HEDGED, 1)
    assert usage_of(made)["deployment"] == "fast-eu"
    assert [row["hedge"] for row in calls_of(made)] == [False, True]


WHO_ASKED = Caller(organization="acme", team="fraud", key_id="key_1", user="ada", identity="okta:00u1")
CASES: list[tuple[str, Completion, Mapping[str, object]]] = [
    ("a cached answer costs nothing and spends no tokens", HIT, NO_TOKENS | {"cost_usd": 0, "saved_usd": Decimal("0.25")}),
    ("a cached answer had no call", HIT, {"deployment": "", "provider": "", "price_version": "", "ttft_ms": None}),
    (
        "who fails says why",
        BLOCKED,
        {"status": "failed", "error_type": "budget_exceeded", "guard_verdict": "", "guard_findings": []},
    ),
    (
        "a fault without a code has its type",
        completion(fault=Fault(status=400, type="a_type", message="")),
        {"error_type": "a_type"},
    ),
    ("a cancelled job", completion(status=JobStatus.CANCELLED, fault=Cancelled("").fault()), {"error_type": "cancelled"}),
    ("every call costs", FELL_BACK, {"cost_usd": Decimal("0.3"), "prompt_tokens": 200, "completion_tokens": 100}),
    ("the last call answered", FELL_BACK, {"deployment": "fast-eu", "price_version": "config:1", "ttft_ms": None}),
    ("half a nano-dollar", completion(attempts=(attempt(cost_usd=Decimal("5e-10")),)), {"cost_usd": Decimal("1e-9")}),
    ("clocks that disagree", completion(accepted_ms=ACCEPTED_MS + 1000), {"ttft_ms": 0.0, "ts": ACCEPTED_MS}),
    ("who asked", completion(caller=WHO_ASKED), {"user": "ada", "identity": "okta:00u1"}),
    ("no labels", completion(labels=Labels()), {"feature": "", "metadata": {}}),
]


@pytest.mark.parametrize(("fact", "told"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_the_row_of_a_job_says(fact: Completion, told: Mapping[str, object]) -> None:
    row = usage_of(bill(fact, 0))
    assert {name: row[name] for name in told} == told


def test_a_failed_call_has_its_own_row() -> None:
    first, second = calls_of(bill(FELL_BACK, 0))
    assert (first["n"], first["status"], first["http_status"], first["error_type"]) == (1, "failed", 429, "rate_limit_exceeded")
    assert (second["n"], second["status"], second["ttft_ms"]) == (2, "completed", None)


def test_of_two_completions_of_a_job_the_earlier_has_the_higher_version() -> None:
    early, late = bill(completion(), 3), bill(completion(), 4)
    assert int(str(usage_of(early)["version"])) > int(str(usage_of(late)["version"]))
    assert calls_of(early)[0]["version"] == usage_of(early)["version"]


def test_a_block_without_calls_has_no_columns_for_them() -> None:
    assert tables([bill(HIT, 0)])[ATTEMPTS] == {}
    assert tables([]) == {USAGE: {}, ATTEMPTS: {}}


counts = st.integers(0, 10**9)
usages = st.builds(Usage, input_tokens=counts, output_tokens=counts, source=st.sampled_from(["provider", "estimated", "none"]))
costs = st.decimals(0, 1000, places=9)


@st.composite
def facts(draw: st.DrawFn) -> Completion:
    count = draw(st.integers(0, 4))
    return completion(attempts=tuple(attempt(n + 1, usage=draw(usages), cost_usd=draw(costs)) for n in range(count)))


@given(st.lists(facts(), max_size=20))
def test_the_row_of_a_job_is_the_sum_of_its_calls(block: list[Completion]) -> None:
    assert not any(map(flaw, block))
    bills = [bill(fact, offset) for offset, fact in enumerate(block)]
    for one in bills:
        assert_sums(one)
    filled = tables(bills)
    assert len(filled[USAGE].get("job_id", ())) == len(block)
    assert len(filled[ATTEMPTS].get("job_id", ())) == sum(len(fact.attempts) for fact in block)


def assert_sums(one: Bill) -> None:
    for name in ("prompt_tokens", "completion_tokens", "cost_usd"):
        assert usage_of(one)[name] == sum((Decimal(str(call[name])) for call in calls_of(one)), Decimal(0))
