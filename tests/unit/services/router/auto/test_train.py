"""Training: the same weights from the same rows, honest figures, and files that are understood or refused."""

import json
from pathlib import Path
from zipfile import ZipFile

import numpy as np
import pytest

from services.router.auto.classifier import TASKS, TIERS, WEIGHTS, Floats, load, save
from services.router.auto.measures import NAMES, measure
from services.router.auto.train import FOLDS, Row, fit, folds, guesses, read, train

ROWS = WEIGHTS.with_name("rows.jsonl")


def few() -> list[Row]:
    texts = {
        "simple": "hi {}",
        "medium": "Write a letter of two pages on {}, and keep it polite",
        "hard": "Prove {}, analyse, compare",
    }
    return [
        Row(text.format(n), TIERS[i], TASKS[n % len(TASKS)], f"family {n % 7}")
        for n in range(32)
        for i, text in enumerate(texts.values())
    ]


def vectors(rows: list[Row]) -> Floats:
    """Embeddings that know the tier, a little."""
    made = np.random.default_rng(1).normal(size=(len(rows), 8)).astype(np.float32)
    made[:, 0] += [3 * TIERS.index(row.tier) for row in rows]
    return made


def test_the_same_rows_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one.npz", "two.npz"):
        models, _ = train(few(), vectors(few()))
        save(tmp_path / name, models)
    assert (tmp_path / "one.npz").read_bytes() == (tmp_path / "two.npz").read_bytes()
    judged = load(tmp_path / "one.npz").judge(measure("hi 3"), None)
    assert (judged.tier, judged.tier_chance > 0.8) == ("simple", True)


def test_figures_are_told_for_all_four() -> None:
    _, figures = train(few(), vectors(few()))
    assert [figure.partition(":")[0] for figure in figures] == ["tier", "tier", "task", "plain_tier", "plain_tier", "plain_task"]
    assert "tier: 100.0% right (the commonest alone: 33.3%)" in figures[0]


def test_a_family_is_never_on_both_sides() -> None:
    families = ["a"] * 50 + ["b"] * 9 + ["c"] * 9 + list("defghij")
    fold = folds(families)
    assert all(len({int(f) for f, name in zip(fold, families, strict=True) if name == family}) == 1 for family in families)
    assert set(fold.tolist()) == set(range(FOLDS))
    assert (fold == fold[0]).sum() == 50, "the largest is alone"


def test_what_only_resembles_its_family_is_not_guessed() -> None:
    """Features that name the family, and nothing else: by rows they would be right always, by families they never are."""
    families = [str(n // 10) for n in range(100)]
    x = np.eye(10, dtype=np.float32)[[int(name) for name in families]]
    y = np.array([int(name) % 2 for name in families])
    model = fit(x, y, 2)
    assert [int(model.chances(model.parts(row)).argmax()) for row in x] == y.tolist()
    assert (guesses(x, y, 2, folds(families)) == y).mean() <= 0.5


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("nonsense", ":2: Expecting value"),
        ('{"text": "a", "tier": "simple"}', ":2: 'task_type'"),
        ('{"text": "a", "tier": "easy", "task_type": "chat"}', ":2: tuple.index"),
        ("[]", ":2: list indices"),
    ],
)
def test_a_row_that_is_wrong_is_named(tmp_path: Path, line: str, words: str) -> None:
    good = json.dumps({"text": "a", "tier": "simple", "task_type": "chat"})
    path = tmp_path / "rows.jsonl"
    path.write_text(f"{good}\n{line}\n")
    with pytest.raises(ValueError, match=words):
        read(path)


def test_a_row_without_a_family_is_one_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"text": "a", "tier": "simple", "task_type": "chat", "more": 1}\n')
    assert read(path) == [Row("a", "simple", "chat", "a")]


def test_other_files_are_no_weights(tmp_path: Path) -> None:
    path = tmp_path / "w.npz"
    for wrong in (b"", b"text", b"PK\x03\x04 broken"):
        path.write_bytes(wrong)
        with pytest.raises(ValueError):
            load(path)
    np.savez(path, measures=np.array(NAMES))
    with pytest.raises(ValueError, match="holds no weights"):
        load(path)
    with pytest.raises(OSError):
        load(tmp_path / "gone.npz")


def test_weights_of_other_measures_are_not_taken(tmp_path: Path) -> None:
    with np.load(WEIGHTS) as kept:
        arrays = {name: kept[name] for name in kept.files}
    arrays["measures"] = np.array([*NAMES[:-1], "mood"])
    np.savez(tmp_path / "w.npz", allow_pickle=False, **arrays)
    with pytest.raises(ValueError, match="train anew"):
        load(tmp_path / "w.npz")


def test_our_weights_are_those_of_our_rows() -> None:
    """Whoever changes rows or measures has to train again. The part with the embedding takes ten seconds, so not here."""
    rows = read(ROWS)
    x = np.array([[one.value for one in measure(row.text)] for row in rows], np.float32)
    made = fit(x, np.array([TIERS.index(row.tier) for row in rows]), len(TIERS))
    with np.load(WEIGHTS) as kept:
        np.testing.assert_allclose(kept["plain_tier_weights"], made.weights, rtol=1e-3, atol=1e-4)
        assert kept["tier_weights"].shape == (len(NAMES) + 384, len(TIERS))
        assert kept["task_weights"].shape == (len(NAMES) + 384, len(TASKS))
    with ZipFile(WEIGHTS) as zipped:
        assert not any(name.endswith(".pkl") for name in zipped.namelist())
    assert WEIGHTS.stat().st_size < 100_000
    assert len({row.text for row in rows}) == len(rows)
