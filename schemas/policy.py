"""What a policy is. What it means at a stage is that stage's own `policy.py`.

Policies may stand at each level of the hierarchy (organization, team, project, environment, key, user); `inherit` lays the
nearer over the farther. The result carries a version and travels with the job, so that every stage decides by the policy the
job was admitted under. Limits and budgets are not inherited: each holds at the level where it stands.
"""

from collections.abc import Sequence
from decimal import Decimal
from enum import StrEnum
from typing import Literal, TypeVar

from pydantic import Field

from schemas.base import Part
from schemas.budget import Budget
from schemas.topics import Lane

T = TypeVar("T")


class GuardAction(StrEnum):
    """What is done about a finding; the sterner stands later."""

    ALLOW = "allow"
    FLAG = "flag"
    REDACT = "redact"
    BLOCK = "block"


FindingKind = Literal[
    "api_key",
    "au_abn",
    "au_tfn",
    "br_cpf",
    "ca_sin",
    "card",
    "ch_ahv",
    "cn_ric",
    "connection_url",
    "crypto",
    "de_idnr",
    "dk_cpr",
    "email",
    "es_nif",
    "fi_hetu",
    "fr_nir",
    "gb_nhs",
    "gb_nino",
    "iban",
    "in_aadhaar",
    "in_pan",
    "ip",
    "it_codice_fiscale",
    "jwt",
    "kr_rrn",
    "mac",
    "mx_curp",
    "nl_bsn",
    "no_fodselsnummer",
    "password",
    "phone",
    "pl_pesel",
    "private_key",
    "se_personnummer",
    "sg_nric",
    "us_ssn",
    "za_id",
]
"""What the guard can find in a text."""


class GuardPolicy(Part):
    """What is done about each kind of finding. An empty map means that the guard stage is not on the slip at all."""

    actions: dict[FindingKind, GuardAction] = Field(default_factory=dict[FindingKind, GuardAction])


class CachePolicy(Part):
    """`ttl_s` in seconds; the namespace (default: the team) says who may share an answer.

    `similarity_threshold` (0 to 1): how like a question must be to get the answer of another; None: only equal ones do.
    """

    enabled: bool = True
    ttl_s: int = Field(default=3600, ge=1, le=30 * 86_400)
    namespace: str | None = None
    similarity_threshold: float | None = Field(default=None, ge=0, le=1)


class Limits(Part):
    """Rate limits, and how many jobs may be open at once. None: no limit at this level."""

    requests_per_minute: int | None = Field(default=None, ge=1)
    requests_per_day: int | None = Field(default=None, ge=1)
    tokens_per_minute: int | None = Field(default=None, ge=1)
    tokens_per_day: int | None = Field(default=None, ge=1)
    concurrency: int | None = Field(default=None, ge=1)


class RoutePolicy(Part):
    """Which deployments may be asked, and how often. None: as the model says.

    `on_broken_stream`: what becomes of a stream that breaks after its first token: it ends with an error event (`error`, as
    where nothing is said), or another call goes on where it broke off, marked as such (`continue`).
    """

    providers: tuple[str, ...] | None = None
    max_attempts: int | None = Field(default=None, ge=1, le=10)
    on_broken_stream: Literal["error", "continue"] | None = None


class DataPolicy(Part):
    """Where data may go. `regions`: only deployments that say they are in one of them; `hipaa`: only those that say they comply;
    `log`: whether prompts and answers may be kept (audit, traces)."""

    regions: tuple[str, ...] | None = None
    hipaa: bool = False
    log: bool = True


AuditContent = Literal["full", "redacted", "hashed", "none"]


class AuditPolicy(Part):
    """What is kept of a job for auditors, and for how long: `redacted`: without what the guard finds, whatever it does about it;
    `hashed`: salted digests instead of texts; `none`: nothing at all."""

    content: AuditContent = "none"
    retention_days: int = Field(default=90, ge=1, le=3650)


class Ceiling(Part):
    """What a token of a model without a known price is charged, in USD."""

    input_usd: Decimal = Field(ge=0)
    output_usd: Decimal = Field(ge=0)

    def cost_usd(self, input_tokens: int, output_tokens: int) -> Decimal:
        """What so many tokens are charged."""
        return self.input_usd * input_tokens + self.output_usd * output_tokens


class RunawayPolicy(Part):
    """When a key's pattern counts as running away, and what is done then: `throttle` to a tenth of its usual pace, or `pause`.

    `same_prompt`: equal requests within a minute; `z_score`: standard deviations above the key's own history, of requests or
    USD a minute; `least_requests` and `least_usd` a minute: nothing below both is looked at.
    """

    action: Literal["off", "alert", "throttle", "pause"] = "alert"
    same_prompt: int = Field(default=200, ge=2)
    z_score: float = Field(default=8, gt=0)
    least_requests: int = Field(default=120, ge=1)
    least_usd: Decimal = Field(default=Decimal(1), ge=0)


class ModelGrant(Part):
    """A model that may be asked for until `until_ms`, though it is not among those allowed."""

    model: str
    until_ms: int
    approval: str = ""


class WebhookPolicy(Part):
    """Hosts that webhooks may be sent to. `only`: no others; `internal`: these even at a private address (host or host:port)."""

    only: tuple[str, ...] | None = None
    internal: tuple[str, ...] = ()


class TracingPolicy(Part):
    """What is told to who collects traces. `sample`: share of requests that are recorded, where their caller hasn't decided it
    already; 0: none, whatever callers say. `content`: prompts and answers too, unless `data.log` forbids it. `to_providers`: the
    trace goes on in the headers of provider calls.
    """

    sample: float = Field(default=1.0, ge=0, le=1)
    content: bool = False
    to_providers: bool = True


class Policy(Part):
    """A policy as somebody wrote it at one level. A member left out (None) is inherited."""

    guard: GuardPolicy | None = None
    cache: CachePolicy | None = None
    models: tuple[str, ...] | None = Field(default=None, description="aliases that may be asked for; None: all")
    granted_models: tuple[ModelGrant, ...] = Field(default=(), description="aliases besides, for a time")
    lanes: tuple[Lane, ...] | None = Field(default=None, description="lanes that may be used; None: both")
    limits: Limits = Limits()
    budgets: tuple[Budget, ...] = ()
    route: RoutePolicy | None = None
    data: DataPolicy | None = None
    metadata_required: tuple[str, ...] = Field(default=(), description="members that x-sluice-metadata must have")
    max_output_tokens: int | None = Field(default=None, ge=1, description="cap given to requests that name none")
    unpriced: Ceiling | None = Field(default=None, description="price of models without one; None: refused under a USD budget")
    when_redis_is_away: Literal["closed", "open"] | None = None
    concurrency_wait_s: float | None = Field(default=None, ge=0, le=60, description="wait for a free place before a 429")
    runaway: RunawayPolicy | None = None
    identity: Literal["optional", "required"] | None = Field(default=None, description="must a request say who asks?")
    weight: float | None = Field(default=None, gt=0, le=1000, description="share of a provider's quota when it is short")
    timeout_s: float | None = Field(default=None, gt=0, le=86_400)
    keep_results_s: int | None = Field(default=None, ge=60, le=3 * 86_400, description="seconds that ends of jobs are kept")
    attach_retries: bool | None = Field(default=None, description="an SDK's own retry attaches to the running job")
    webhooks: WebhookPolicy | None = None
    tracing: TracingPolicy | None = None
    audit: AuditPolicy | None = None


DEFAULT_GUARD = GuardPolicy(
    actions={
        "card": GuardAction.REDACT,
        "iban": GuardAction.REDACT,
        "us_ssn": GuardAction.REDACT,
        "api_key": GuardAction.REDACT,
        "private_key": GuardAction.REDACT,
        "email": GuardAction.FLAG,
        "phone": GuardAction.FLAG,
        "ip": GuardAction.FLAG,
    },
)


class EffectivePolicy(Part):
    """What applies to a caller after inheritance; `version` names the documents it was made from."""

    version: str
    guard: GuardPolicy = GuardPolicy()
    cache: CachePolicy = CachePolicy()
    models: tuple[str, ...] | None = None
    granted_models: tuple[ModelGrant, ...] = ()
    lanes: tuple[Lane, ...] | None = None
    route: RoutePolicy = RoutePolicy()
    data: DataPolicy = DataPolicy()
    metadata_required: tuple[str, ...] = ()
    max_output_tokens: int | None = None
    unpriced: Ceiling | None = None
    when_redis_is_away: Literal["closed", "open"] = "closed"
    concurrency_wait_s: float = 2.0
    runaway: RunawayPolicy = RunawayPolicy()
    identity: Literal["optional", "required"] = "optional"
    weight: float = 1.0
    timeout_s: float | None = None
    keep_results_s: int = 86_400
    attach_retries: bool = True
    webhooks: WebhookPolicy = WebhookPolicy()
    tracing: TracingPolicy = TracingPolicy()
    audit: AuditPolicy = AuditPolicy()

    @property
    def audited(self) -> AuditContent:
        """What is kept for auditors: no words where prompts and answers may not be kept."""
        wanted = self.audit.content
        return "hashed" if wanted in ("full", "redacted") and not self.data.log else wanted

    def allows(self, model: str, now_ms: int) -> bool:
        """True if this model may be asked for."""
        if self.models is None or model in self.models:
            return True
        return any(grant.model == model and grant.until_ms > now_ms for grant in self.granted_models)


def inherit(levels: Sequence[Policy], version: str) -> EffectivePolicy:
    """The effective policy of `levels`, the farthest (organization) first, the nearest (key, then user) last.

    Guard actions are merged kind by kind, so that a team that adds one rule keeps the organization's others. What is allowed
    (models, lanes, providers, regions) narrows at each level and never widens, and what is demanded (metadata, HIPAA, no log,
    identity) adds up. A model granted at any level is granted. All else is taken whole from the nearest level that says it.
    """
    guard: dict[FindingKind, GuardAction] = dict(DEFAULT_GUARD.actions)
    told: dict[str, object] = {}
    models, lanes, route, data = None, None, RoutePolicy(), DataPolicy()
    metadata: tuple[str, ...] = ()
    grants: tuple[ModelGrant, ...] = ()
    for level in levels:
        guard |= level.guard.actions if level.guard else {}
        for name in _NEAREST:
            if (value := getattr(level, name)) is not None:
                told[name] = value
        if told.get("identity") != "required" and level.identity:
            told["identity"] = level.identity
        models, lanes = _narrowed(models, level.models), _narrowed(lanes, level.lanes)
        route, data = _narrower_route(route, level.route), _narrower_data(data, level.data)
        metadata += tuple(name for name in level.metadata_required if name not in metadata)
        grants += level.granted_models
    actions: dict[FindingKind, GuardAction] = {kind: action for kind, action in guard.items() if action is not GuardAction.ALLOW}
    return EffectivePolicy.model_validate(
        {
            **told,
            "version": version,
            "guard": GuardPolicy(actions=actions),
            "models": models,
            "granted_models": grants,
            "lanes": lanes,
            "route": route,
            "data": data,
            "metadata_required": metadata,
        }
    )


def narrowed_by(rules: EffectivePolicy, others: EffectivePolicy) -> EffectivePolicy:
    """The rules, with those of others too about where data may go and who may be asked."""
    data, route = _narrower_data(rules.data, others.data), _narrower_route(rules.route, others.route)
    return rules.model_copy(update={"data": data, "route": route})


_NEAREST = (
    "cache",
    "max_output_tokens",
    "unpriced",
    "when_redis_is_away",
    "concurrency_wait_s",
    "runaway",
    "weight",
    "timeout_s",
    "keep_results_s",
    "attach_retries",
    "webhooks",
    "tracing",
    "audit",
)


def _narrowed(before: tuple[T, ...] | None, level: tuple[T, ...] | None) -> tuple[T, ...] | None:
    if before is None or level is None:
        return before if level is None else level
    return tuple(one for one in level if one in before)


def _narrower_route(before: RoutePolicy, level: RoutePolicy | None) -> RoutePolicy:
    if level is None:
        return before
    tries = [most for most in (before.max_attempts, level.max_attempts) if most is not None]
    return RoutePolicy(
        providers=_narrowed(before.providers, level.providers),
        max_attempts=min(tries, default=None),
        on_broken_stream=level.on_broken_stream or before.on_broken_stream,
    )


def _narrower_data(before: DataPolicy, level: DataPolicy | None) -> DataPolicy:
    if level is None:
        return before
    return DataPolicy(
        regions=_narrowed(before.regions, level.regions),
        hipaa=before.hipaa or level.hipaa,
        log=before.log and level.log,
    )
