"""What may be asked of the admin API: bodies of new resources, and the members of standing ones that a patch may change."""

from ipaddress import ip_network
from typing import Annotated, Self

from pydantic import AfterValidator, BaseModel, Field, model_validator

from infra.credentials import MAX_LIFE_S
from schemas.budget import is_time_zone
from schemas.control import Algorithm, GroupRule, Label, Membership, Name
from schemas.policy import Policy
from schemas.roles import Role

YEAR_S = 366 * 86_400


def _network(written: str) -> str:
    try:
        return str(ip_network(written))
    except ValueError as error:
        raise ValueError(f"{error}; write a network such as 10.1.0.0/16 or 2001:db8::/48, or one address") from None


def _time_zone(name: str) -> str:
    if not is_time_zone(name):
        raise ValueError(f"{name!r} is no time zone; write one such as Europe/Berlin")
    return name


Network = Annotated[str, AfterValidator(_network)]
TimeZone = Annotated[str, AfterValidator(_time_zone)]
Place = Annotated[str, Field(pattern=r"^[^/\x00-\x1f]{0,128}$")]
"""A project or an environment, or none."""


class Lifetime(BaseModel):
    """How long a credential is good: `expires_in` seconds, or until `expires_at`, in unix seconds. Neither: for good."""

    expires_in: int | None = Field(default=None, ge=1, le=100 * YEAR_S)
    expires_at: int | None = Field(default=None, ge=1)

    @model_validator(mode="after")
    def _one_of_them(self) -> Self:
        if self.expires_in is not None and self.expires_at is not None:
            raise ValueError("say `expires_in` or `expires_at`, not both")
        return self

    def expires_ms(self, now_ms: int) -> int:
        """In unix milliseconds; 0: never."""
        if self.expires_in is not None:
            return now_ms + self.expires_in * 1000
        return (self.expires_at or 0) * 1000


class NewTeam(BaseModel):
    """POST /admin/v1/teams."""

    name: Name
    requests_per_minute: int | None = Field(default=None, ge=1)
    policy: Policy = Policy()


class NewProject(BaseModel):
    """POST /admin/v1/projects."""

    team: str
    name: Label
    policy: Policy = Policy()


class NewEnvironment(BaseModel):
    """POST /admin/v1/environments. A key without a project may have an environment too."""

    team: str
    project: Place = ""
    name: Label
    policy: Policy = Policy()


class NewUser(BaseModel):
    """POST /admin/v1/users. `name` as the identity provider names the person."""

    name: str = Field(min_length=1, max_length=256)
    memberships: tuple[Membership, ...] = ()
    policy: Policy = Policy()


class NewKey(Lifetime):
    """POST /admin/v1/keys. `ip_ranges`: networks that it may be used from; none: any."""

    team: str
    project: Place = ""
    environment: Place = Field(default="", max_length=64)
    user: str = Field(default="", max_length=256)
    name: str = Field(default="", max_length=256)
    ip_ranges: tuple[Network, ...] = Field(default=(), max_length=100)
    requests_per_minute: int | None = Field(default=None, ge=1)
    policy: Policy = Policy()


class Rotation(BaseModel):
    """POST /admin/v1/keys/{id}/rotate. `overlap_s`: seconds for which the secret before is taken too."""

    overlap_s: int = Field(default=86_400, ge=0, le=90 * 86_400)


class NewOperator(Lifetime):
    """POST /admin/v1/operators. `team`: where the role is held; empty: over all teams."""

    name: str = Field(min_length=1, max_length=256)
    role: Role
    team: str = ""

    @model_validator(mode="after")
    def _team_of_a_team_role(self) -> Self:
        if not self.team and self.role in (Role.TEAM_ADMIN, Role.MEMBER):
            raise ValueError(f"a {self.role.value} is one of a team: say which with `team`")
        return self


class NewJobToken(BaseModel):
    """POST /admin/v1/job_tokens."""

    team: str
    expires_in: int = Field(default=12 * 3600, ge=60, le=MAX_LIFE_S)


class PolicySettings(BaseModel):
    """What may be changed of a team, a project or an environment."""

    policy: Policy = Policy()


class OrganizationSettings(PolicySettings):
    """What may be changed of an organization."""

    time_zone: TimeZone = "UTC"


class UserSettings(PolicySettings):
    """What may be changed of a user."""

    memberships: tuple[Membership, ...] = ()


class KeySettings(PolicySettings):
    """What may be changed of a key. `expires_ms` in unix milliseconds; 0: never."""

    name: str = Field(default="", max_length=256)
    ip_ranges: tuple[Network, ...] = Field(default=(), max_length=100)
    expires_ms: int = Field(default=0, ge=0)


class OperatorSettings(BaseModel):
    """What may be changed of an operator's credential; for another role it takes another credential."""

    name: str = Field(min_length=1, max_length=256)
    expires_ms: int = Field(default=0, ge=0)


class ProviderSettings(BaseModel):
    """What may be changed of an identity provider."""

    issuer: str = Field(pattern=r"^https?://")
    jwks_url: str | None = Field(default=None, pattern=r"^https?://")
    audiences: tuple[str, ...] = Field(min_length=1)
    algorithms: tuple[Algorithm, ...] = Field(default=("RS256",), min_length=1)
    user_claim: str = "sub"
    groups_claim: str = "groups"
    groups: tuple[GroupRule, ...] = ()
    leeway_s: int = Field(default=30, ge=0, le=300)


class NewProvider(ProviderSettings):
    """POST /admin/v1/identity_providers."""

    name: Name
