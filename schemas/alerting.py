"""What is worth an alert, and who is told: the section `alerts` of a sluice.yaml. Credentials are references."""

from decimal import Decimal
from typing import Annotated, ClassVar, Literal

from pydantic import Field, StringConstraints

from schemas.alert import AlertKind, Severity
from schemas.base import Message, Part

LONGEST_MINUTES = 15
"""Rates are worked out over so many minutes at most."""

MOST_CHANNELS = 20

ANY_MODEL = "*"

ChannelName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")]
Address = Annotated[str, StringConstraints(pattern=r"^[^\s\x00-\x20\x7f@<>,;:\"()\[\]\\]{1,64}@[A-Za-z0-9.-]{1,253}$")]
"""An e-mail address in its plain form: nothing in it can end a header, or begin another recipient."""

Minutes = Annotated[int, Field(ge=1, le=LONGEST_MINUTES)]
Rate = Annotated[float, Field(gt=0, le=1)]


class ForecastRule(Part):
    """A budget that will be overrun before its period ends, if spend goes on as so far.

    `over`: the forecast is so many times the budget; `least_elapsed`: share of the period that must be over before.
    """

    enabled: bool = True
    over: float = Field(default=1.1, ge=1)
    least_elapsed: float = Field(default=0.1, gt=0, lt=1)


class CostRule(Part):
    """Spend of a feature, project or team that jumps, in the interactive lane.

    `z_score`: standard deviations above its own ten minutes; `least_usd` in ten minutes: nothing below is looked at.
    """

    enabled: bool = True
    z_score: float = Field(default=8, gt=0)
    least_usd: Decimal = Field(default=Decimal(5), ge=0)


class ErrorRule(Part):
    """Calls that a deployment, or all of a provider's together, failed: share of those made in the last minutes."""

    enabled: bool = True
    share: Rate = 0.25
    least_calls: int = Field(default=20, ge=1)
    minutes: Minutes = 5


class FallbackRule(Part):
    """Jobs of a model that needed a second call: share of those that ended in the last minutes."""

    enabled: bool = True
    share: Rate = 0.3
    least_jobs: int = Field(default=20, ge=1)
    minutes: Minutes = 10


class Slo(Part):
    """Of a model's streams, how many (`objective`) are to bring their first token within `ttft_ms` of being asked for.

    The objective is 0.95 at least: a lower one leaves so many late ones that no burn rate of 14.4 can ever be seen.
    `least`: first tokens that the longer window must have.
    """

    ttft_ms: int = Field(ge=1, le=600_000)
    objective: float = Field(default=0.99, ge=0.95, lt=1)
    least: int = Field(default=50, ge=1)


class AlertRules(Part):
    """When an alert is raised. `slos` by model; `*`: all others."""

    forecast: ForecastRule = ForecastRule()
    cost: CostRule = CostRule()
    errors: ErrorRule = ErrorRule()
    fallbacks: FallbackRule = FallbackRule()
    slos: dict[str, Slo] = Field(default_factory=dict[str, Slo])

    def slo(self, model: str) -> Slo | None:
        """What a model is held to, if to anything."""
        return self.slos.get(model) or self.slos.get(ANY_MODEL)


class Only(Part):
    """Which alerts a channel gets. None: all of them."""

    kinds: tuple[AlertKind, ...] | None = None
    severities: tuple[Severity, ...] | None = None
    teams: tuple[str, ...] | None = None


class _Channel(Part):
    name: ChannelName
    only: Only = Only()


class WebhookChannel(_Channel):
    """Signed as standard-webhooks has it. `url`: or a reference to it; `secret`: reference to a `whsec_…`."""

    kind: Literal["webhook"] = "webhook"
    url: str = Field(min_length=1, max_length=2048)
    secret: str = Field(min_length=1, max_length=1024)


class SlackChannel(_Channel):
    """An incoming webhook of Slack's, or of what speaks like it. `url`: a reference, for whoever knows it may post."""

    kind: Literal["slack"] = "slack"
    url: str = Field(min_length=1, max_length=1024)


class EmailChannel(_Channel):
    """Sent by the server that SLUICE_SMTP names."""

    kind: Literal["email"] = "email"
    to: tuple[Address, ...] = Field(min_length=1, max_length=50)


Channel = Annotated[WebhookChannel | SlackChannel | EmailChannel, Field(discriminator="kind")]


class Alerting(Message):
    """The house's rules for alerts, and its channels: one resource, `alerting/default`.

    `since_ms`: when each channel was made; what was raised before isn't sent to it.
    """

    TYPE: ClassVar[str] = "io.sluice.control.v1"
    kind: Literal["alerting"] = "alerting"
    name: Literal["default"] = "default"
    rules: AlertRules = AlertRules()
    channels: tuple[Channel, ...] = Field(default=(), max_length=MOST_CHANNELS)
    since_ms: dict[str, int] = Field(default_factory=dict[str, int])
    version: int = 1
