"""How a model leads a request to another one: by rules, by a split, by a classifier; and who gets a copy of it.

All of it is data of a `Model` (schemas/control.py); what it means is the router's (services/router/choice.py).
"""

from collections.abc import Mapping
from typing import Literal, Self

from pydantic import Field, model_validator

from schemas.base import Part
from schemas.topics import Lane

ModelName = str

TaskType = Literal["chat", "classification", "code", "extraction", "math", "summary", "translation", "writing"]
"""What a request wants done: as `x-sluice-metadata` says under `task_type`, or as the classifier judges it."""

Tier = Literal["simple", "medium", "hard"]


class When(Part):
    """Conditions over a request and its caller; all that are given must hold, and of a list any.

    Tokens are of the prompt, as our tokenizer counts them. `languages` are ISO 639-1 codes. `metadata` and `feature` and
    `segment` are the caller's labels.
    """

    task_types: tuple[TaskType, ...] | None = None
    languages: tuple[str, ...] | None = None
    has_code: bool | None = None
    has_tools: bool | None = None
    has_images: bool | None = None
    min_prompt_tokens: int | None = Field(default=None, ge=0)
    max_prompt_tokens: int | None = Field(default=None, ge=0)
    contains: tuple[str, ...] | None = Field(default=None, description="words, in any case, of the last message of the user")
    lanes: tuple[Lane, ...] | None = None
    teams: tuple[str, ...] | None = None
    projects: tuple[str, ...] | None = None
    environments: tuple[str, ...] | None = None
    users: tuple[str, ...] | None = None
    features: tuple[str, ...] | None = None
    segments: tuple[str, ...] | None = None
    metadata: Mapping[str, tuple[str, ...]] = Field(default_factory=dict)


class Rule(Part):
    """Requests for which `when` holds go to `model`."""

    name: str = Field(min_length=1, max_length=64)
    when: When = When()
    model: ModelName = Field(min_length=1, max_length=256)


class Arm(Part):
    """One way of a split, taken by its weight."""

    model: ModelName = Field(min_length=1, max_length=256)
    weight: float = Field(gt=0)


class Split(Part):
    """An A/B test or a canary: requests are divided by weight. `sticky`: whose requests always take the same way.

    Another `name` divides them anew.
    """

    name: str = Field(default="", max_length=64)
    arms: tuple[Arm, ...] = Field(min_length=1)
    sticky: Literal["user", "key", "team", "request"] = "user"


class Auto(Part):
    """The model of each tier; a classifier chooses which. A tier left out is served by the next harder one that is there."""

    simple: ModelName | None = None
    medium: ModelName | None = None
    hard: ModelName | None = None

    @model_validator(mode="after")
    def _serves_the_hardest(self) -> Self:
        if not (self.hard or self.medium):
            raise ValueError("auto needs a model for `hard`, or at least for `medium`")
        return self


class Shadow(Part):
    """A share of requests is sent to `model` too, in the batch lane: nobody waits for it, and its answer goes nowhere.

    `team` pays for it, and its policy holds.
    """

    model: ModelName = Field(min_length=1, max_length=256)
    share: float = Field(gt=0, le=1)
    team: str = Field(min_length=1, max_length=63)
