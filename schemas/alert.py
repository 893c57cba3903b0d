"""What somebody should know now: a budget burns, a key runs away, a part is away."""

from typing import ClassVar, Literal

from pydantic import Field

from schemas.base import JsonObject, Message


class Alert(Message):
    """An alert. `scope`: what it is about, such as `team/fraud` or `key/key_…`; `what` names the kind; `facts`: its numbers."""

    TYPE: ClassVar[str] = "io.sluice.alert.v1"

    id: str
    at_ms: int
    what: Literal["budget_share", "budget_exhausted", "runaway", "ledger_closed", "ledger_rebuilt", "approval"]
    scope: str
    team: str = ""
    severity: Literal["info", "warning", "critical"] = "warning"
    message: str
    facts: JsonObject = Field(default_factory=dict)
