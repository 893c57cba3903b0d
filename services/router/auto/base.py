"""What is judged of a request."""

from dataclasses import dataclass

from schemas.routing import TaskType, Tier


@dataclass(frozen=True, slots=True)
class Judged:
    """The tier and the task with their probabilities, and in words what speaks most for the tier."""

    tier: Tier
    tier_chance: float
    task: TaskType
    task_chance: float
    because: tuple[str, ...] = ()
