"""What travels on the compacted control topic: one resource a record, its key `<kind>/<id>`; no value deletes it.

Nothing here is secret: virtual keys are there as SHA-256, provider credentials as references (`os.environ/NAME`,
`file/NAME`) that the router resolves.
"""

from decimal import Decimal
from typing import Annotated, ClassVar, Literal

from pydantic import Field, StringConstraints, TypeAdapter

from schemas.base import Message
from schemas.gates import Gate
from schemas.policy import Limits, Policy

Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$")]
"""A name that may stand in a topic's name: lower case letters, digits, dot, dash and underscore."""


class Organization(Message):
    """The root of the hierarchy. A house has one."""

    TYPE: ClassVar[str] = "io.sluice.control.v1"
    kind: Literal["organization"] = "organization"
    id: str
    name: Name
    version: int = 1
    policy: Policy = Policy()


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


class VirtualKey(Message):
    """A credential of one environment. `sha256` is the hex digest of the secret, which is stored nowhere."""

    TYPE: ClassVar[str] = "io.sluice.control.v1"
    kind: Literal["key"] = "key"
    id: str
    sha256: str
    last4: str
    team: str
    project: str = ""
    environment: str = ""
    user: str = ""
    version: int = 1
    policy: Policy = Policy()
    revoked: bool = False
    created_ms: int = 0


class Price(Message):
    """A price somebody wrote beside a deployment, in USD per token (LiteLLM's `model_info`)."""

    TYPE: ClassVar[str] = "io.sluice.control.v1"
    input_usd: Decimal = Field(ge=0)
    output_usd: Decimal = Field(ge=0)
    cache_read_usd: Decimal | None = Field(default=None, ge=0)


class EchoSettings(Message):
    """How the echo provider behaves: latency in ms, tokens to answer with, share of calls (0 to 1) that fail."""

    TYPE: ClassVar[str] = "io.sluice.control.v1"
    latency_ms: float = Field(default=0, ge=0)
    token_ms: float = Field(default=0, ge=0)
    tokens: int | None = Field(default=None, ge=1)
    failure_rate: float = Field(default=0, ge=0, le=1)


class Deployment(Message):
    """One concrete target of a model: provider, real model, address, credential reference, price."""

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
    on_disconnect: Literal["abort", "drain"] = Field(
        default="abort", description="of a call that nobody waits for: closed at once, or let end so that its usage is known"
    )


class Model(Message):
    """What an application asks for (LiteLLM's `model_name`), and the deployments that may serve it."""

    TYPE: ClassVar[str] = "io.sluice.control.v1"
    kind: Literal["model"] = "model"
    name: str = Field(min_length=1, max_length=256)
    deployments: tuple[Deployment, ...]
    version: int = 1
    owned_by: str = "sluice"
    created_ms: int = 0
    gates: tuple[Gate, ...] = Field(default=(), description="what holds batch jobs back; all must be open")


Resource = Annotated[Organization | Team | VirtualKey | Model, Field(discriminator="kind")]
RESOURCE: TypeAdapter[Organization | Team | VirtualKey | Model] = TypeAdapter(Resource)


def resource_key(resource: Organization | Team | VirtualKey | Model) -> str:
    """The record key of a resource. Teams and models go by name, since their names are unique."""
    match resource:
        case VirtualKey():
            return f"key/{resource.id}"
        case Team() | Organization() | Model():
            return f"{resource.kind}/{resource.name}"


__all__ = [
    "RESOURCE",
    "Deployment",
    "EchoSettings",
    "Limits",
    "Model",
    "Name",
    "Organization",
    "Price",
    "Resource",
    "Team",
    "VirtualKey",
    "resource_key",
]
