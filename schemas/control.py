"""What travels on the compacted control topic: one resource a record, its key `<kind>/<id>`; no value deletes it.

Nothing here is secret: virtual keys are there as SHA-256, provider credentials as references (`env:NAME`, `file:NAME`,
`vault:PATH#FIELD`) that the router resolves. A change's author and what stood before are in the record's headers
(schemas/event.py).
"""

from datetime import date
from decimal import Decimal
from typing import Annotated, ClassVar, Literal, TypeAlias

from pydantic import Field, StringConstraints, TypeAdapter, field_validator

from schemas.alerting import Alerting
from schemas.base import JsonObject, Message, Part
from schemas.budget import is_time_zone
from schemas.gates import Gate
from schemas.policy import Limits, Policy
from schemas.prices import PriceEntry
from schemas.roles import Role
from schemas.routing import Auto, Rule, Shadow, Split
from schemas.topics import Lane

Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$")]
"""A name that may stand in a topic's name: lower case letters, digits, dot, dash and underscore."""

Label = Annotated[str, StringConstraints(pattern=r"^[^/\x00-\x1f]{1,128}$")]
"""A name of a project or an environment: anything but slashes and control characters."""


class Organization(Message):
    """The root of the hierarchy. A house has one. `time_zone` (IANA) says when its days, weeks and months begin."""

    TYPE: ClassVar[str] = "io.sluice.control.v1"
    kind: Literal["organization"] = "organization"
    id: str
    name: Name
    version: int = 1
    policy: Policy = Policy()
    time_zone: str = "UTC"

    @field_validator("time_zone")
    @classmethod
    def _is_known(cls, name: str) -> str:
        if not is_time_zone(name):
            raise ValueError(f"{name!r} is no time zone; write one such as Europe/Berlin")
        return name


class Team(Message):
    """A team; `name` is what bills and topics show. Its webhook secrets are derived: only their version is known here."""

    TYPE: ClassVar[str] = "io.sluice.control.v1"
    kind: Literal["team"] = "team"
    id: str
    name: Name
    organization: str
    version: int = 1
    policy: Policy = Policy()
    created_ms: int = 0
    webhook_secret_version: int = Field(default=1, ge=1)


class Project(Message):
    """A piece of work of a team."""

    TYPE: ClassVar[str] = "io.sluice.control.v1"
    kind: Literal["project"] = "project"
    id: str
    team: Name
    name: Label
    version: int = 1
    policy: Policy = Policy()
    created_ms: int = 0


class Environment(Message):
    """Where a project runs: dev, staging, prod. A key without a project may have one too."""

    TYPE: ClassVar[str] = "io.sluice.control.v1"
    kind: Literal["environment"] = "environment"
    id: str
    team: Name
    project: str = ""
    name: Label
    version: int = 1
    policy: Policy = Policy()
    created_ms: int = 0


class Membership(Part):
    """A role in a team, or, without a team, in the organization."""

    role: Role
    team: str = ""


class User(Message):
    """A person, named as the identity provider names it. Its policy holds wherever it asks, whatever key pays."""

    TYPE: ClassVar[str] = "io.sluice.control.v1"
    kind: Literal["user"] = "user"
    id: str
    name: str = Field(min_length=1, max_length=256)
    version: int = 1
    policy: Policy = Policy()
    memberships: tuple[Membership, ...] = ()
    created_ms: int = 0


class OldSecret(Part):
    """A secret that was rotated, and until when it is still taken, in unix milliseconds."""

    sha256: str
    until_ms: int


class Hold(Part):
    """A key that runs away is held: paused, or throttled to so many requests a minute. Lifted by one command."""

    reason: str
    since_ms: int
    requests_per_minute: int | None = Field(default=None, ge=1, description="None: paused")


class VirtualKey(Message):
    """A credential of one environment. `sha256` is the hex digest of the secret, which is stored nowhere.

    The id stays when the secret rotates; the `old` ones are taken until their time is over. `ip_ranges`: networks (CIDR) it may
    be used from; none: any. Times in unix milliseconds; `expires_ms` 0: never.
    """

    TYPE: ClassVar[str] = "io.sluice.control.v1"
    kind: Literal["key"] = "key"
    id: str
    sha256: str
    last4: str
    team: str
    project: str = ""
    environment: str = ""
    user: str = ""
    name: str = ""
    version: int = 1
    policy: Policy = Policy()
    revoked: bool = False
    created_ms: int = 0
    expires_ms: int = 0
    rotated_ms: int = 0
    old: tuple[OldSecret, ...] = ()
    ip_ranges: tuple[str, ...] = ()
    held: Hold | None = None


class Operator(Message):
    """A credential for /admin/v1 with a role; `team`: of a team admin or a member. Never good for asking models."""

    TYPE: ClassVar[str] = "io.sluice.control.v1"
    kind: Literal["operator"] = "operator"
    id: str
    name: str = Field(min_length=1, max_length=256)
    role: Role
    team: str = ""
    sha256: str
    last4: str
    version: int = 1
    revoked: bool = False
    created_ms: int = 0
    expires_ms: int = 0


class Analyst(Message):
    """A user of ClickHouse who reads the rows of one organization, or of some of its teams. `name` is the user's."""

    TYPE: ClassVar[str] = "io.sluice.control.v1"
    kind: Literal["analyst"] = "analyst"
    name: str = Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")
    organization: str
    teams: tuple[str, ...] = Field(default=(), description="none: all of the organization")
    sha256: str
    last4: str
    version: int = 1
    revoked: bool = False
    created_ms: int = 0
    rotated_ms: int = 0


Algorithm = Literal["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"]
"""Asymmetric signatures (RFC 7518, RFC 8037): a shared secret, or none at all, is no identity."""


class GroupRule(Part):
    """What members of a group get: a team to bill when no key says another, a role, and a policy at the level of the user."""

    group: str
    team: str = ""
    project: str = ""
    environment: str = ""
    role: Role | None = None
    policy: Policy = Policy()


class IdentityProvider(Message):
    """An OIDC issuer (Okta, Entra ID, any) whose tokens say who asks. Without `jwks_url` it is discovered from the issuer."""

    TYPE: ClassVar[str] = "io.sluice.control.v1"
    kind: Literal["identity_provider"] = "identity_provider"
    name: Name
    issuer: str = Field(pattern=r"^https?://")
    jwks_url: str | None = Field(default=None, pattern=r"^https?://")
    audiences: tuple[str, ...] = Field(min_length=1)
    algorithms: tuple[Algorithm, ...] = ("RS256",)
    user_claim: str = "sub"
    groups_claim: str = "groups"
    groups: tuple[GroupRule, ...] = ()
    leeway_s: int = Field(default=30, ge=0, le=300)
    version: int = 1
    created_ms: int = 0


class Approval(Message):
    """Somebody asks for a key, more budget, or a model; somebody with the right to decides.

    `wanted` is checked by the portal when it is asked for and again when it is granted. `expires_ms`: of the request;
    `until_ms`: of what is granted, 0: for good. `ticket`: number in an ITSM system.
    """

    TYPE: ClassVar[str] = "io.sluice.control.v1"
    kind: Literal["approval"] = "approval"
    id: str
    what: Literal["key", "budget", "model"]
    team: str
    wanted: JsonObject = Field(default_factory=dict)
    why: str = ""
    requester: str
    status: Literal["pending", "granted", "refused", "expired", "collected"] = "pending"
    decided_by: str = ""
    reason: str = ""
    ticket: str = ""
    result: str = Field(default="", description="record key of what the grant made or changed")
    version: int = 1
    created_ms: int = 0
    decided_ms: int = 0
    expires_ms: int = 0
    until_ms: int = 0


class SomePrices(Part):
    """USD per token, of those kinds that are given."""

    input_usd: Decimal | None = Field(default=None, ge=0)
    output_usd: Decimal | None = Field(default=None, ge=0)
    cache_read_usd: Decimal | None = Field(default=None, ge=0)
    cache_write_usd: Decimal | None = Field(default=None, ge=0)


class Cliff(SomePrices):
    """What all tokens of a call cost with more than so many tokens of input."""

    above_tokens: int = Field(ge=1)


class Price(Message):
    """A price somebody wrote beside a deployment, in USD per token (LiteLLM's `model_info`).

    What isn't given costs what the whole costs that it is a part of. `tiers`: by the service tier in the answer.
    """

    TYPE: ClassVar[str] = "io.sluice.control.v1"
    input_usd: Decimal = Field(ge=0)
    output_usd: Decimal = Field(ge=0)
    cache_read_usd: Decimal | None = Field(default=None, ge=0)
    cache_write_usd: Decimal | None = Field(default=None, ge=0)
    cache_write_1h_usd: Decimal | None = Field(default=None, ge=0)
    reasoning_usd: Decimal | None = Field(default=None, ge=0)
    input_audio_usd: Decimal | None = Field(default=None, ge=0)
    input_image_usd: Decimal | None = Field(default=None, ge=0)
    output_audio_usd: Decimal | None = Field(default=None, ge=0)
    output_image_usd: Decimal | None = Field(default=None, ge=0)
    request_usd: Decimal = Field(default=Decimal(0), ge=0)
    audio_second_usd: Decimal = Field(default=Decimal(0), ge=0)
    cliffs: tuple[Cliff, ...] = ()
    tiers: dict[str, SomePrices] = Field(default_factory=dict[str, SomePrices])


class EchoSettings(Message):
    """How the echo provider behaves: latency in ms, tokens to answer with, share of calls (0 to 1) that fail."""

    TYPE: ClassVar[str] = "io.sluice.control.v1"
    latency_ms: float = Field(default=0, ge=0)
    token_ms: float = Field(default=0, ge=0)
    tokens: int | None = Field(default=None, ge=1)
    failure_rate: float = Field(default=0, ge=0, le=1)


class AwsSettings(Message):
    """How Bedrock is asked; the region is the deployment's. Without keys botocore finds credentials as AWS's own tools do.

    The keys are references, never the secrets.
    """

    TYPE: ClassVar[str] = "io.sluice.control.v1"
    access_key_id: str | None = None
    secret_access_key: str | None = None
    session_token: str | None = None
    profile: str | None = None
    role_arn: str | None = Field(default=None, description="role to assume")


class VertexSettings(Message):
    """How Vertex AI is asked; the location is the deployment's region.

    `credentials`: reference to a service account's JSON; without one google-auth finds them as Google's own tools do.
    """

    TYPE: ClassVar[str] = "io.sluice.control.v1"
    project: str | None = None
    credentials: str | None = None


Capability = Literal["audio", "images", "json_schema", "reasoning", "streaming", "tools"]
"""What a request may need of a model."""


class Deployment(Message):
    """One concrete target of a model: provider, real model, address, credential reference, price.

    `reserved`: capacity that is paid for whether it is used or not, such as provisioned throughput. `order`: LiteLLM's, the
    lowest is asked first and the next only when that one can't. `capabilities` None: nobody knows, so anything may be asked.
    """

    TYPE: ClassVar[str] = "io.sluice.control.v1"
    id: str
    provider: str
    model: str
    api_base: str | None = None
    api_key: str | None = Field(default=None, description="a reference, never the secret")
    weight: float = Field(default=1, gt=0)
    timeout_s: float | None = Field(default=None, gt=0)
    price: Price | None = None
    echo: EchoSettings = EchoSettings()
    max_parallel_requests: int | None = Field(default=None, ge=1, description="calls at once, of one router")
    rpm: int | None = Field(default=None, ge=1, description="calls a minute, of all routers together")
    tpm: int | None = Field(default=None, ge=1, description="tokens a minute, of all routers together")
    region: str | None = Field(default=None, max_length=64, description="where it runs, such as eu-central-1")
    hipaa: bool = Field(default=False, description="it may be given health data")
    max_output_tokens: int | None = Field(default=None, ge=1, description="most tokens of an answer")
    max_input_tokens: int | None = Field(default=None, ge=1, description="most tokens of a prompt")
    capabilities: tuple[Capability, ...] | None = None
    reserved: bool = False
    order: int = 0
    lanes: tuple[Lane, ...] | None = Field(default=None, description="lanes that it serves; None: both")
    first_token_timeout_s: float | None = Field(default=None, gt=0, description="of a stream; None: timeout_s")
    silence_timeout_s: float | None = Field(default=None, gt=0, description="of a stream that has begun; None: 30 s")
    api_version: str | None = Field(default=None, max_length=64, description="of Azure OpenAI's dated API")
    aws: AwsSettings = AwsSettings()
    vertex: VertexSettings = VertexSettings()
    health_check: bool = Field(
        default=False,
        description="while it is down it is asked for its list of models, which is free, to see when it is up",
    )
    shutdown_date: date | None = Field(default=None, description="the day on which its provider shuts it down")
    on_disconnect: Literal["abort", "drain"] = Field(
        default="abort", description="of a call that nobody waits for: closed at once, or let end so that its usage is known"
    )

    @property
    def references(self) -> tuple[str, ...]:
        """All that it refers to for its credentials."""
        aws = self.aws
        given = (self.api_key, aws.access_key_id, aws.secret_access_key, aws.session_token, self.vertex.credentials)
        return tuple(reference for reference in given if reference)


StrategyName = Literal[
    "simple-shuffle",
    "least-busy",
    "usage-based-routing",
    "latency-based-routing",
    "cost-based-routing",
    "usage-priority",
    "lane-aware",
]
"""Which deployment is asked, by LiteLLM's names where it has one; `simple-shuffle` is by weight, `usage-priority` asks reserved
capacity first and pay-as-you-go for what is beyond it, `lane-aware` the fastest for interactive and the cheapest for batch."""


class Hedge(Message):
    """A second call, to another deployment, of a request whose first one is slow: the first answer wins, the other is cancelled.

    After `after_s`, or else after the 95th percentile of what the deployment's calls take. At most a share of calls is hedged.
    """

    TYPE: ClassVar[str] = "io.sluice.control.v1"
    after_s: float | None = Field(default=None, gt=0)
    most_share: float = Field(default=0.1, gt=0, le=1)


class Model(Message):
    """What an application asks for (LiteLLM's `model_name`), and the deployments that may serve it.

    `rules`, `split` and `auto` may send a request to another model instead: the first rule that fits, else the split, else what
    the classifier chooses. Such a model needs no deployments of its own.
    """

    TYPE: ClassVar[str] = "io.sluice.control.v1"
    kind: Literal["model"] = "model"
    name: str = Field(min_length=1, max_length=256)
    deployments: tuple[Deployment, ...]
    version: int = 1
    owned_by: str = "sluice"
    created_ms: int = 0
    gates: tuple[Gate, ...] = Field(default=(), description="what holds batch jobs back; all must be open")
    strategy: StrategyName = "simple-shuffle"
    fallbacks: tuple[str, ...] = Field(default=(), description="models to ask instead when this one fails, in order")
    context_window_fallbacks: tuple[str, ...] = Field(default=(), description="models to ask when the prompt is too long")
    content_policy_fallbacks: tuple[str, ...] = Field(default=(), description="models to ask when a provider refuses the content")
    num_retries: int | None = Field(
        default=None, ge=0, le=10, description="further calls after a failed one; None: as the router does"
    )
    allowed_fails: int | None = Field(default=None, ge=0, description="failures a minute before a deployment cools down")
    cooldown_s: float | None = Field(default=None, gt=0, le=3600, description="how long it cools down")
    rules: tuple[Rule, ...] = ()
    split: Split | None = None
    auto: Auto | None = None
    hedge: Hedge | None = None
    shadow: Shadow | None = None

    @property
    def shutdown_date(self) -> date | None:
        """The day on which the first of its deployments is shut down."""
        return min((d.shutdown_date for d in self.deployments if d.shutdown_date), default=None)


class DeploymentState(Message):
    """What an operator has said of a deployment, apart from its configuration: a drained one gets no new calls."""

    TYPE: ClassVar[str] = "io.sluice.control.v1"
    kind: Literal["deployment_state"] = "deployment_state"
    id: str = Field(min_length=1, max_length=256, description="of the deployment")
    drained: bool = False
    why: str = Field(default="", max_length=1024)
    since_ms: int = 0
    version: int = 1


AnyResource: TypeAlias = (
    Organization
    | Team
    | Project
    | Environment
    | User
    | VirtualKey
    | Operator
    | IdentityProvider
    | Approval
    | Model
    | DeploymentState
    | Analyst
    | PriceEntry
    | Alerting
)
Resource = Annotated[AnyResource, Field(discriminator="kind")]
RESOURCE: TypeAdapter[AnyResource] = TypeAdapter(Resource)


def resource_name(resource: Resource) -> str:
    """What names a resource among its kind: an id where the name isn't unique, else the name with the path that leads to it."""
    match resource:
        case VirtualKey() | Operator() | Approval() | DeploymentState():
            return resource.id
        case Project():
            return f"{resource.team}/{resource.name}"
        case Environment():
            return f"{resource.team}/{resource.project}/{resource.name}"
        case _:
            return resource.name


def resource_key(resource: Resource) -> str:
    """The record key of a resource."""
    return f"{resource.kind}/{resource_name(resource)}"


__all__ = [
    "RESOURCE",
    "Alerting",
    "Algorithm",
    "Approval",
    "AwsSettings",
    "Capability",
    "Cliff",
    "Deployment",
    "DeploymentState",
    "EchoSettings",
    "Environment",
    "GroupRule",
    "Hedge",
    "Hold",
    "IdentityProvider",
    "Label",
    "Limits",
    "Membership",
    "Model",
    "Name",
    "OldSecret",
    "Operator",
    "Organization",
    "Price",
    "PriceEntry",
    "Project",
    "Resource",
    "SomePrices",
    "StrategyName",
    "Team",
    "User",
    "VertexSettings",
    "VirtualKey",
    "resource_key",
    "resource_name",
]
