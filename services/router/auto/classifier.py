"""Two multinomial logistic regressions, for the tier and for the task, on the embedding of a text and on its measures.

Without an embedding a second pair decides, trained on the measures alone. Weights: a .npz file (train.py), 25 kB.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast, get_args
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from schemas.routing import TaskType, Tier
from services.router.auto.base import Judged
from services.router.auto.measures import NAMES, Measure

WEIGHTS = Path(__file__).parent / "weights.npz"

TIERS: tuple[Tier, ...] = get_args(Tier)
TASKS: tuple[TaskType, ...] = get_args(TaskType)

Floats = NDArray[np.float32]

_BECAUSE = 3


@dataclass(frozen=True, slots=True)
class Model:
    """One regression: `weights` has a row a feature and a column a class, over features minus `mean` by `scale`."""

    mean: Floats
    scale: Floats
    weights: Floats
    bias: Floats

    def parts(self, row: Floats) -> Floats:
        """What each feature says for each class."""
        return ((row - self.mean) / self.scale)[:, None] * self.weights

    def chances(self, parts: Floats) -> Floats:
        scores = parts.sum(axis=0) + self.bias
        powers = np.exp(scores - scores.max())
        return powers / powers.sum()


class Classifier:
    """Judges texts. `tier` and `task` read measures and embedding, `plain_tier` and `plain_task` measures alone."""

    def __init__(self, tier: Model, task: Model, plain_tier: Model, plain_task: Model) -> None:
        self._with, self._without = (tier, task), (plain_tier, plain_task)

    def judge(self, measures: Sequence[Measure], embedding: Floats | None) -> Judged:
        """Without an `embedding` by the measures alone."""
        values = np.array([measure.value for measure in measures], np.float32)
        tier, task = self._without if embedding is None else self._with
        row = values if embedding is None else np.concatenate([values, embedding])
        parts = tier.parts(row)
        chances, tasks = tier.chances(parts), task.chances(task.parts(row))
        best, of_tasks = int(chances.argmax()), int(tasks.argmax())
        return Judged(
            tier=TIERS[best],
            tier_chance=round(float(chances[best]), 4),
            task=TASKS[of_tasks],
            task_chance=round(float(tasks[of_tasks]), 4),
            because=_because(measures, parts, best),
        )


def _because(measures: Sequence[Measure], parts: Floats, best: int) -> tuple[str, ...]:
    """What speaks most for the class, against the mean of the others; all of the embedding together is the meaning."""
    others = np.delete(parts, best, axis=1).mean(axis=1)
    lead = (parts[:, best] - others).tolist()
    said = [(lead[i], measure.words) for i, measure in enumerate(measures) if measure.words]
    if len(lead) > len(measures):
        said.append((sum(lead[len(measures) :]), "its meaning"))
    strongest = sorted((one for one in said if one[0] > 0), reverse=True)
    return tuple(words for _, words in strongest[:_BECAUSE])


_MODELS = ("tier", "task", "plain_tier", "plain_task")
_PARTS = ("mean", "scale", "weights", "bias")


def save(path: Path, models: dict[str, Model]) -> None:
    """Writes the four regressions, by the names of Classifier's arguments, and what they read and tell."""
    arrays = {f"{name}_{part}": cast("Floats", getattr(model, part)) for name, model in models.items() for part in _PARTS}
    with path.open("wb") as file:
        np.savez_compressed(
            file, allow_pickle=False, measures=np.array(NAMES), tiers=np.array(TIERS), tasks=np.array(TASKS), **arrays
        )


def load(path: Path = WEIGHTS) -> Classifier:
    """Raises OSError, or ValueError for a file that isn't of train.py, or of one that measured something else."""
    try:
        with np.load(path, allow_pickle=False) as kept:
            names = tuple(tuple(kept[name].tolist()) for name in ("measures", "tiers", "tasks"))
            of = {name: Model(*(kept[f"{name}_{part}"] for part in _PARTS)) for name in _MODELS}
    except (AttributeError, EOFError, KeyError, TypeError, BadZipFile) as error:
        raise ValueError(f"{path} holds no weights: {error}") from error
    if names != (NAMES, TIERS, TASKS):
        raise ValueError(f"{path} is of another version; train anew: python -m services.router.auto.train")
    return Classifier(**of)
