"""What a policy is. What it means at a stage is that stage's own `policy.py`.

Policies may stand at the organization, at a team and at a key; `inherit` lays the nearer over the farther. The result
carries a version and travels with the job, so that every stage decides by the policy the job was admitted under.
"""

from collections.abc import Sequence
from enum import StrEnum
from typing import Literal

from pydantic import Field

from schemas.base import Part


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
    """`ttl_s` in seconds; the namespace (default: the team) says who may share an answer."""

    enabled: bool = True
    ttl_s: int = Field(default=3600, ge=1, le=30 * 86_400)
    namespace: str | None = None


class Limits(Part):
    """Rate limits. None: no limit at this level."""

    requests_per_minute: int | None = Field(default=None, ge=1)


class WebhookPolicy(Part):
    """Hosts that webhooks may be sent to. `only`: no others; `internal`: these even at a private address (host or host:port)."""

    only: tuple[str, ...] | None = None
    internal: tuple[str, ...] = ()


class Policy(Part):
    """A policy as somebody wrote it at one level. A member left out (None) is inherited."""

    guard: GuardPolicy | None = None
    cache: CachePolicy | None = None
    models: tuple[str, ...] | None = Field(default=None, description="aliases that may be asked for; None: all")
    limits: Limits = Limits()
    timeout_s: float | None = Field(default=None, gt=0, le=86_400)
    keep_results_s: int | None = Field(default=None, ge=60, le=3 * 86_400, description="seconds that ends of jobs are kept")
    attach_retries: bool | None = Field(default=None, description="an SDK's own retry attaches to the running job")
    webhooks: WebhookPolicy | None = None


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
    timeout_s: float | None = None
    keep_results_s: int = 86_400
    attach_retries: bool = True
    webhooks: WebhookPolicy = WebhookPolicy()


def inherit(levels: Sequence[Policy], version: str) -> EffectivePolicy:
    """The effective policy of `levels`, the farthest (organization) first, the nearest (key) last.

    Guard actions are merged kind by kind, so that a team that adds one rule keeps the organization's others; allowed
    models narrow at each level and never widen; everything else is taken whole from the nearest level that says it.
    """
    guard: dict[FindingKind, GuardAction] = dict(DEFAULT_GUARD.actions)
    cache, models, timeout_s = CachePolicy(), None, None
    keep_results_s, attach_retries, webhooks = 86_400, True, WebhookPolicy()
    for level in levels:
        guard |= level.guard.actions if level.guard else {}
        cache = level.cache or cache
        timeout_s = level.timeout_s or timeout_s
        keep_results_s = level.keep_results_s or keep_results_s
        attach_retries = attach_retries if level.attach_retries is None else level.attach_retries
        webhooks = level.webhooks or webhooks
        if level.models is not None:
            models = level.models if models is None else tuple(m for m in level.models if m in models)
    actions: dict[FindingKind, GuardAction] = {kind: action for kind, action in guard.items() if action is not GuardAction.ALLOW}
    return EffectivePolicy(
        version=version,
        guard=GuardPolicy(actions=actions),
        cache=cache,
        models=models,
        timeout_s=timeout_s,
        keep_results_s=keep_results_s,
        attach_retries=attach_retries,
        webhooks=webhooks,
    )
