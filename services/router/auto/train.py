"""Trains the classifier: `python -m services.router.auto.train FILE.jsonl --out WEIGHTS.npz`.

A row is {"text", "tier", "task_type"} and, if it is one of several that resemble one another, "family": rows of a family are
never on both sides when the figures are made. The same file gives the same weights.
"""

import argparse
import asyncio
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from infra.embeddings.lazy import LazyEmbedder
from infra.settings import Settings
from schemas.routing import TaskType, Tier
from services.router.auto.classifier import TASKS, TIERS, WEIGHTS, Floats, Model, save
from services.router.auto.measures import NAMES, measure
from services.router.features import GIST_CHARACTERS

Ints = NDArray[np.int64]
T = TypeVar("T")

FOLDS = 5
_STEPS = 400
_DECAY = 2e-3
_EMBEDDING = 0.1
"""L2, and how much a dimension of the embedding weighs against a measure: 384 of them outshout seventeen measures otherwise.
Both found by the figures of rows.jsonl, which are a little better for it than they would be on rows never seen."""


@dataclass(frozen=True, slots=True)
class Row:
    """One example."""

    text: str
    tier: Tier
    task: TaskType
    family: str


def read(path: Path) -> list[Row]:
    """Raises ValueError with the number of the line that isn't as it should be."""
    rows = list[Row]()
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            given = json.loads(line)
            text = str(given["text"])[:GIST_CHARACTERS]
            tier, task = TIERS[TIERS.index(given["tier"])], TASKS[TASKS.index(given["task_type"])]
            rows.append(Row(text, tier, task, str(given.get("family") or text)))
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path}:{number}: {error}") from error
    return rows


def fit(rows: Floats, classes: Ints, count: int) -> Model:
    """Multinomial logistic regression with L2, by Nesterov's accelerated descent from nought: no chance in it."""
    mean, scale = rows.mean(axis=0), rows.std(axis=0) + 1e-6
    if rows.shape[1] > len(NAMES):
        # One scale for all: they are of one kind, and those that hardly vary would be blown up.
        scale[len(NAMES) :] = scale[len(NAMES) :].mean() / _EMBEDDING
    x = np.hstack([(rows - mean) / scale, np.ones((len(rows), 1), np.float32)]).astype(np.float64)
    wanted = np.eye(count)[classes]
    kept = np.full((x.shape[1], 1), _DECAY)
    kept[-1] = 0
    step = 1 / (0.5 * np.linalg.eigvalsh(x.T @ x / len(x))[-1] + _DECAY)
    weights = before = np.zeros((x.shape[1], count))
    for n in range(_STEPS):
        ahead = weights + n / (n + 3) * (weights - before)
        scores = x @ ahead
        powers = np.exp(scores - scores.max(axis=1, keepdims=True))
        slope = x.T @ (powers / powers.sum(axis=1, keepdims=True) - wanted) / len(x) + kept * ahead
        before, weights = weights, ahead - step * slope
    as_floats = weights.astype(np.float32)
    return Model(mean.astype(np.float32), scale.astype(np.float32), as_floats[:-1], as_floats[-1])


def folds(families: Sequence[str]) -> Ints:
    """The fold of each row: families whole, the largest first, each to the fold that has the fewest rows."""
    sizes, of = [0] * FOLDS, dict[str, int]()
    for family, size in sorted(Counter(families).items(), key=lambda one: (-one[1], one[0])):
        of[family] = sizes.index(min(sizes))
        sizes[of[family]] += size
    return np.array([of[family] for family in families])


def guesses(rows: Floats, classes: Ints, count: int, fold: Ints) -> Ints:
    """What each row is taken for by a model that has seen no row of its fold."""
    guessed = np.empty_like(classes)
    for n in range(FOLDS):
        out = fold == n
        if out.any():
            model = fit(rows[~out], classes[~out], count)
            guessed[out] = [int(model.chances(model.parts(row)).argmax()) for row in rows[out]]
    return guessed


def _report(what: str, classes: Ints, guessed: Ints, names: Sequence[str], fold: Ints) -> str:
    right = guessed == classes
    each = ", ".join(f"{name} {right[classes == i].mean():.0%}" for i, name in enumerate(names) if (classes == i).any())
    by_fold = " ".join(f"{right[fold == n].mean():.0%}" for n in range(FOLDS) if (fold == n).any())
    most = np.bincount(classes).max() / len(classes)
    return f"{what}: {right.mean():.1%} right (the commonest alone: {most:.1%}); of {each}; by fold {by_fold}"


async def _embedded(texts: Sequence[str]) -> Floats:
    embedder = LazyEmbedder(Settings().data_dir / "models")
    try:
        return await embedder.embed(texts)
    finally:
        await embedder.close()


def train(rows: Sequence[Row], embeddings: Floats) -> tuple[dict[str, Model], list[str]]:
    """The four regressions, and the figures of cross-validation."""
    plain = np.array([[one.value for one in measure(row.text)] for row in rows], np.float32)
    both = np.hstack([plain, embeddings])
    fold = folds([row.family for row in rows])
    tiers, tasks = np.array([TIERS.index(row.tier) for row in rows]), np.array([TASKS.index(row.task) for row in rows])
    models, figures = dict[str, Model](), list[str]()
    for name, x, y, names in (
        ("tier", both, tiers, TIERS),
        ("task", both, tasks, TASKS),
        ("plain_tier", plain, tiers, TIERS),
        ("plain_task", plain, tasks, TASKS),
    ):
        models[name] = fit(x, y, len(names))
        guessed = guesses(x, y, len(names), fold)
        figures.append(_report(name, y, guessed, names, fold))
        if names is TIERS:
            far = np.abs(guessed - y) == 2
            figures.append(f"{name}: {far.mean():.1%} simple taken for hard, or hard for simple")
    return models, figures


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m services.router.auto.train", description=__doc__)
    parser.add_argument("file", type=Path, help="JSON lines: text, tier, task_type, and family where rows resemble one another")
    parser.add_argument("--out", type=Path, default=WEIGHTS, help="where the weights go (.npz)")
    given = parser.parse_args()
    rows = read(given.file)
    print(f"{len(rows)} rows of {len({row.family for row in rows})} families; {FOLDS} folds, families whole")
    models, figures = train(rows, asyncio.run(_embedded([row.text for row in rows])))
    print(*figures, sep="\n")
    save(given.out, models)
    print(f"{given.out}: {given.out.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
