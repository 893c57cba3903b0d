"""What is said of a request, also when nobody embeds it."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.router.auto.classifier import TASKS, TIERS, WEIGHTS, Floats, load
from services.router.auto.judge import Judge
from services.router.auto.measures import NAMES, measure

OURS = load()

# By measures alone; with an embedding more is right (figures: services/router/auto/README.md).
PLAIN = [
    ("hi", "simple", "chat"),
    ("What's the capital of Peru?", "simple", "chat"),
    ("translate 'cheers' to Danish", "simple", "translation"),
    ("Write a Python function is_even(n)", "simple", "code"),
    ("12 * 7 = ?", "simple", "math"),
    ("Prove that every bounded monotone sequence converges, justify each step and weigh two alternative proofs.", "hard", "math"),
    (
        "Design a distributed lock service. Analyse the trade-offs of three consistency models, argue which invariants hold "
        "when a leader is lost, and give the core of the implementation in Rust.",
        "hard",
        "code",
    ),
]


@pytest.mark.parametrize(("text", "tier", "task"), PLAIN)
def test_plain_cases_are_judged_by_measures_alone(text: str, tier: str, task: str) -> None:
    found = OURS.judge(measure(text), None)
    assert (found.tier, found.task) == (tier, task)


@given(st.text(), st.booleans())
def test_any_text_is_judged_and_always_alike(text: str, embedded: bool) -> None:
    embedding = np.full(384, 384**-0.5, np.float32) if embedded else None
    found = OURS.judge(measure(text), embedding)
    assert found.tier in TIERS
    assert found.task in TASKS
    assert 1 / len(TIERS) <= found.tier_chance <= 1
    assert 1 / len(TASKS) - 1e-4 <= found.task_chance <= 1
    assert found == OURS.judge(measure(text), embedding)


def test_a_decision_names_what_spoke_for_it() -> None:
    found = OURS.judge(measure("Prove rigorously that p is prime and analyse the trade-offs of two proofs"), None)
    assert found.because[0] == "asks for thought"
    assert OURS.judge(measure("hi"), None).because == ("1 token",)
    found = OURS.judge(measure("hi"), np.zeros(384, np.float32))
    assert set(found.because) <= {"1 token", "its meaning"}


def test_measures_have_names() -> None:
    measures = dict(zip(NAMES, measure("1. must be\n2. übersetze die 3 Sätze, bitte?"), strict=True))
    assert {name for name, one in measures.items() if one.words} == {
        "tokens", "lines", "items", "digits", "questions", "foreign", "conditions", "translate",
    }  # fmt: skip
    assert measures["foreign"].words == "language de"
    assert measure("")[0].value == 0


@dataclass
class Embedder:
    """Embeds, or never ends, or fails."""

    hangs: bool = False
    broken: bool = False
    texts: list[str] = field(default_factory=list[str])

    async def embed(self, texts: Sequence[str]) -> Floats:
        self.texts += texts
        if self.hangs:
            await asyncio.Event().wait()
        if self.broken:
            raise RuntimeError("the text itself: " + texts[0])
        return np.full((len(texts), 384), 384**-0.5, np.float32)

    def count_tokens(self, text: str) -> int:
        return len(text)

    async def close(self) -> None: ...


TEXT = "Compare two cars"
PLAINLY = OURS.judge(measure(TEXT), None)
FULLY = OURS.judge(measure(TEXT), np.full(384, 384**-0.5, np.float32))


async def test_a_request_is_judged_by_its_embedding() -> None:
    embedder = Embedder()
    assert await Judge(embedder).judge(TEXT) == FULLY != PLAINLY
    assert embedder.texts == [TEXT]


@pytest.mark.parametrize("embedder", [Embedder(broken=True), Embedder(hangs=True)], ids=["broken", "slow"])
async def test_without_an_embedder_measures_decide_and_it_is_left_alone(
    embedder: Embedder, caplog: pytest.LogCaptureFixture
) -> None:
    judge = Judge(embedder, patience_s=0.01, leave_alone_s=3600)
    assert [await judge.judge(TEXT) for _ in range(3)] == [PLAINLY] * 3
    assert embedder.texts == [TEXT]
    assert "without an embedding" in caplog.text
    assert TEXT not in caplog.text


async def test_an_embedder_that_comes_back_is_asked_again() -> None:
    embedder = Embedder(broken=True)
    judge = Judge(embedder, leave_alone_s=0)
    assert await judge.judge(TEXT) == PLAINLY
    embedder.broken = False
    assert await judge.judge(TEXT) == FULLY


async def test_weights_of_ones_own_are_taken_and_broken_ones_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    own = tmp_path / "own.npz"
    own.write_bytes(b"nonsense")
    assert await Judge(Embedder(), own).judge(TEXT) == await Judge(Embedder()).judge(TEXT)
    assert "SLUICE_AUTO_WEIGHTS" in caplog.text
    with np.load(WEIGHTS) as kept:
        arrays = {name: kept[name] for name in kept.files}
    arrays["tier_bias"] = np.array([0, 0, 99], np.float32)
    np.savez(own, allow_pickle=False, **arrays)
    assert (await Judge(Embedder(), own).judge("hi")).tier == "hard"
