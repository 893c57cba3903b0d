"""What `sluice submit` says before it sends anything."""

import json
from pathlib import Path

import pytest

from services.cli.output import Failed
from services.cli.submit.tokens import Token, Tokens
from tests.unit.services.cli.conftest import Invoke, Stub

LINE: dict[str, object] = {
    "custom_id": "1",
    "method": "POST",
    "url": "/v1/chat/completions",
    "body": {"model": "m", "messages": []},
}


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SLUICE_KAFKA", "127.0.0.1:9")
    path = tmp_path / "f.jsonl"
    path.write_text(json.dumps(LINE))
    return path


def test_questions_are_no_batch_lines(invoke: Invoke, file: Path) -> None:
    file.write_text("What is love?\n")
    result = invoke("submit", str(file))
    assert result.exit_code == 1
    assert "Each line must be a request of OpenAI's Batch API" in result.stderr


def test_results_must_not_overwrite_the_file(invoke: Invoke, file: Path) -> None:
    assert "give another --out" in invoke("submit", str(file), "--out", str(file)).stderr


@pytest.mark.parametrize(
    ("teams", "says"), [([], "create one with `sluice teams create NAME`"), (["a", "b"], "by --team or SLUICE_KEY. Teams: a, b.")]
)
def test_whose_bill(invoke: Invoke, stub: Stub, file: Path, teams: list[str], says: str) -> None:
    stub.on("GET", "/admin/v1/teams", 200, {"data": [{"name": name} for name in teams]})
    result = invoke("submit", str(file))
    assert result.exit_code == 1
    assert says in result.stderr


def test_no_broker(invoke: Invoke, stub: Stub, file: Path) -> None:
    stub.on("GET", "/admin/v1/teams", 200, {"data": [{"name": "a"}]})
    stub.on("POST", "/admin/v1/job_tokens", 201, {"token": "t", "expires_at": 9_999_999_999, "team": "a"})
    result = invoke("submit", str(file))
    assert result.exit_code == 1
    assert "no Kafka broker answers at 127.0.0.1:9" in result.stderr


def test_a_virtual_key_will_do(invoke: Invoke, stub: Stub, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLUICE_KEY", "sk-sl-mine")
    stub.on("POST", "/v1/job_tokens", 401, {"error": {"message": "Unknown key"}})
    assert "Unknown key" in invoke("submit", str(file)).stderr
    assert stub.seen[0].authorization == "Bearer sk-sl-mine"


async def test_tokens_are_renewed_at_half_of_their_life() -> None:
    now_s, minted = [0.0], [0]

    def mint() -> Token:
        minted[0] += 1
        return Token(token=f"t{minted[0]}", expires_at=int(now_s[0]) + 100, team="a")

    tokens = Tokens(mint, lambda: now_s[0])
    for now_s[0], expected in [(0, "t1"), (49, "t1"), (50, "t2"), (99, "t2"), (100, "t3")]:
        assert await tokens.fresh() == expected


def test_failed_says_what_to_do() -> None:
    assert Failed("x").status == 1
