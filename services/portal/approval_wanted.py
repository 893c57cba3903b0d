"""What can be asked for, and in what words: bodies of /admin/v1/approvals, checked. Pure."""

from decimal import Decimal
from typing import Annotated, Literal, Self, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, field_validator, model_validator

from schemas.base import JsonObject
from schemas.budget import Budget, Period, Usd
from schemas.errors import InvalidRequest

What = Literal["key", "budget", "model"]
_Place = Annotated[str, StringConstraints(pattern=r"^[^/\x00-\x1f]{0,128}$")]
"""A project or an environment, or none."""

Sentence = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=2000)]

DAY_S = 86_400


class _Exact(BaseModel):
    """What is misspelt must not look as if it had been said."""

    model_config = ConfigDict(extra="forbid")


class Ends(_Exact):
    """When what is granted ends: a moment in unix milliseconds (0: never), or so many seconds from now on."""

    until_ms: int | None = Field(default=None, ge=0, le=253_402_300_799_000)
    for_s: int | None = Field(default=None, ge=60, le=3650 * DAY_S)

    @model_validator(mode="after")
    def _one_of_them(self) -> Self:
        if self.until_ms is not None and self.for_s is not None:
            raise ValueError("say `until_ms` or `for_s`, not both")
        return self

    def at(self, now_ms: int) -> int | None:
        """The moment in unix milliseconds, 0: never; None: nothing was said."""
        return self.until_ms if self.for_s is None else now_ms + self.for_s * 1000


class AskFor(Ends):
    """POST /admin/v1/approvals. `wanted` is by `what`; `expires_in`: seconds in which somebody should decide."""

    what: What
    team: str = Field(max_length=128)
    wanted: JsonObject = Field(
        default_factory=dict,
        description="of a key: project, environment, user, name, models, budget; of a budget: level, period, usd, tokens; "
        "of a model: model, level",
    )
    why: Sentence
    expires_in: int = Field(default=7 * DAY_S, ge=3600, le=90 * DAY_S)


class Refusal(_Exact):
    """POST /admin/v1/approvals/{id}/refuse."""

    reason: Sentence


class Grant(Refusal, Ends):
    """POST /admin/v1/approvals/{id}/grant. Without an end of its own it ends as was asked for."""


class WantedKey(_Exact):
    """A virtual key. `models`: it may ask for no others; `budget`: of its own."""

    project: _Place = ""
    environment: _Place = ""
    user: str = Field(default="", max_length=256)
    name: str = Field(default="", max_length=128)
    models: tuple[str, ...] | None = Field(default=None, min_length=1, max_length=100)
    budget: Budget | None = None

    @field_validator("budget")
    @classmethod
    def _is_a_limit(cls, budget: Budget | None) -> Budget | None:
        if budget is not None and (budget.increases or not (budget.usd or budget.tokens)):
            raise ValueError("a key's budget has `usd` or `tokens`, above zero, and no increases")
        return budget


class AtLevel(_Exact):
    """`level`: a record key: `team/fraud`, `project/fraud/scores`, `environment/fraud/scores/prod`, `key/key_…`, `user/…`."""

    level: str = Field(default="", max_length=512)


class WantedBudget(AtLevel):
    """So much more a period, USD or tokens or both, at a level that has such a budget."""

    period: Period = Period.MONTH
    usd: Usd = Decimal(0)
    tokens: int = Field(default=0, ge=0, le=10**15)

    @model_validator(mode="after")
    def _is_more(self) -> Self:
        if not self.usd and not self.tokens:
            raise ValueError("say how much more: `usd` or `tokens`, above zero")
        return self


class WantedModel(AtLevel):
    """A model that the policy of the level doesn't allow."""

    model: str = Field(min_length=1, max_length=256)


Wanted: TypeAlias = WantedKey | WantedBudget | WantedModel
_WANTED: dict[What, type[Wanted]] = {"key": WantedKey, "budget": WantedBudget, "model": WantedModel}


def wanted_of(what: What, given: JsonObject, team: str) -> Wanted:
    """What is asked for, checked. Raises InvalidRequest that names the member."""
    try:
        wanted = _WANTED[what].model_validate(given)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        param = ".".join(("wanted", *map(str, first["loc"])))
        raise InvalidRequest(f"Invalid value for `{param}`: {first['msg']}", param=param) from None
    if isinstance(wanted, AtLevel) and not wanted.level:
        return wanted.model_copy(update={"level": f"team/{team}"})
    return wanted
