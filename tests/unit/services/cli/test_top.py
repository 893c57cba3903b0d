"""What `sluice top` draws."""

from io import StringIO

from rich.console import Console

from schemas.base import JsonObject
from services.cli.top import screen

SEEN: JsonObject = {
    "at_ms": 1_800_000_000_000,
    "window_s": 60,
    "traffic": [
        {
            "team": "fraud",
            "model": "small",
            "jobs": 120,
            "failed": 3,
            "cached": 12,
            "tokens": 6000,
            "cost_usd": "0.012",
            "p50_ms": 240.4,
            "p95_ms": 1520.0,
            "ttft_p50_ms": None,
        }
    ],
    "today": [{"team": "fraud", "jobs": 5000, "cost_usd": "1.500000001", "saved_usd": "0.25"}],
    "lanes": [{"lane": "batch", "depth": 41, "wait_ms": 2500}],
    "deployments": [{"model": "small", "id": "small-1", "state": "open", "calls": 7, "errors": 7, "p50_ms": None, "p95_ms": 9.0}],
}


def drawn(seen: JsonObject) -> str:
    console = Console(width=160, file=(out := StringIO()))
    console.print(screen(seen))
    return out.getvalue()


def words_after(text: str, first: str) -> list[str]:
    """The cells of the line that begins with a word."""
    return next(line for line in text.splitlines() if line.strip("│ ").startswith(first)).strip("│ ").split()


def test_a_rate_is_by_the_second_and_spend_by_the_hour() -> None:
    text = drawn(SEEN)
    assert "2.0 jobs/s over the last 60 s" in text
    assert words_after(text, "fraud") == ["fraud", "small", "2.0", "3", "12", "100", "240", "ms", "1.52", "s", "0.7200"]
    assert words_after(text, "batch") == ["batch", "41", "2.50", "s"]
    assert words_after(text, "small") == ["small", "small-1", "open", "7", "7", "9", "ms"]


def test_where_nothing_goes_on_it_says_so() -> None:
    text = drawn({"at_ms": 1_800_000_000_000, "window_s": 60, "traffic": [], "today": [], "lanes": [], "deployments": []})
    assert text.count("nothing") == 4


def test_what_a_caller_named_can_not_move_the_cursor() -> None:
    assert "\x1b" not in drawn({**SEEN, "today": [{"team": "a\x1b[2Jb", "jobs": 1, "cost_usd": "1", "saved_usd": "0"}]})
