"""What somebody should know now: a budget burns, a key runs away, a part is away."""

from typing import ClassVar, Literal

from pydantic import Field

from schemas.base import JsonObject, Message, Part

AlertKind = Literal[
    "approval",
    "budget_exhausted",
    "budget_share",
    "credential_refused",
    "deployment_down",
    "ledger_closed",
    "ledger_rebuilt",
    "runaway",
    "secrets_away",
    "shutdown_near",
]
Severity = Literal["info", "warning", "critical"]


class Alert(Message):
    """An alert. `scope`: what it is about, such as `team/fraud` or `key/key_…`; `what` names the kind; `facts`: its numbers."""

    TYPE: ClassVar[str] = "io.sluice.alert.v1"

    id: str
    at_ms: int
    what: AlertKind
    scope: str
    team: str = ""
    severity: Severity = "warning"
    message: str
    facts: JsonObject = Field(default_factory=dict)


class RunawayFacts(Part):
    """The facts of a `runaway` alert. `reason`: a sentence with numbers; `usual_requests_per_minute` 0: not known yet.

    `key_version`: of the key as it stood when it ran away; the key is held only while it still stands so.
    """

    action: Literal["alert", "throttle", "pause"]
    pattern: Literal["same_prompt", "requests", "spend"]
    reason: str
    key_id: str
    key_version: int
    usual_requests_per_minute: float = 0
