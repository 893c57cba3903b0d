"""What somebody should know now: a budget burns, a key runs away, a part is away."""

from typing import ClassVar, Literal

from pydantic import Field

from schemas.base import JsonObject, Message, Part

AlertKind = Literal[
    "approval",
    "books_differ",
    "budget_exhausted",
    "budget_forecast",
    "budget_share",
    "cost_anomaly",
    "credential_refused",
    "deployment_down",
    "fallback_rate",
    "ledger_closed",
    "ledger_rebuilt",
    "provider_errors",
    "runaway",
    "secrets_away",
    "shutdown_near",
    "slo_burn",
    "test",
]
Severity = Literal["info", "warning", "critical"]


class Alert(Message):
    """An alert. `scope`: what it is about, such as `team/fraud` or `key/key_…`; `what` names the kind; `facts`: its numbers.

    `same`: alerts with the same say the same thing again, whoever raised them; empty: like no other. `link`: where it is shown;
    only a path where nobody has said what our public URL is.
    """

    TYPE: ClassVar[str] = "io.sluice.alert.v1"

    id: str
    at_ms: int
    what: AlertKind
    scope: str
    team: str = ""
    severity: Severity = "warning"
    message: str
    facts: JsonObject = Field(default_factory=dict)
    same: str = ""
    link: str = ""


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
