"""What tests of approvals share: a house with two teams, and people in it."""

from infra.clock import Clock
from infra.redis.client import Redis
from infra.redis.once import Once
from schemas.budget import Budget, Period
from schemas.control import Deployment, Environment, Membership, Model, Organization, Project, Resource, Team, User, VirtualKey
from schemas.policy import Policy
from schemas.roles import Role
from services.portal.access import Actor
from services.portal.approval_wanted import AskFor
from services.portal.approvals import Approvals
from services.portal.store import Store
from tests.fakes.control import FakeControl

DAY_MS = 86_400_000

MEMBER = Actor("operator/op_member", ((Role.MEMBER, "fraud"),))
COLLEAGUE = Actor("user/ada@corp.example", ((Role.MEMBER, "fraud"),))
TEAM_ADMIN = Actor("operator/op_lead", ((Role.TEAM_ADMIN, "fraud"),))
OUTSIDER = Actor("operator/op_other", ((Role.TEAM_ADMIN, "search"),))
APPROVER = Actor("operator/op_boss", ((Role.ORGANIZATION_ADMIN, ""),))
SECOND = Actor("user/grace@corp.example", ((Role.ORGANIZATION_ADMIN, ""),))
FINANCE = Actor("operator/op_money", ((Role.FINANCE, ""),))
AUDITOR = Actor("operator/op_eyes", ((Role.AUDITOR, ""),))

_BUDGETS = Policy(budgets=(Budget(usd=100), Budget(tokens=1_000_000), Budget(usd=10, period=Period.DAY)))  # type: ignore[arg-type]

HOUSE: tuple[Resource, ...] = (
    Organization(id="org_1", name="default", policy=_BUDGETS),
    Team(id="team_1", name="fraud", organization="default", policy=_BUDGETS),
    Team(id="team_2", name="search", organization="default", policy=_BUDGETS),
    Project(id="proj_1", team="fraud", name="scores"),
    Environment(id="env_1", team="fraud", project="scores", name="prod", policy=_BUDGETS),
    VirtualKey(id="key_1", sha256="1", last4="0001", team="fraud", policy=_BUDGETS),
    VirtualKey(id="key_2", sha256="2", last4="0002", team="search", policy=_BUDGETS),
    User(id="user_1", name="ada@corp.example", policy=_BUDGETS),
    User(id="user_2", name="bob@corp.example", policy=_BUDGETS, memberships=(Membership(role=Role.MEMBER, team="fraud"),)),
    Model(name="dear", deployments=(Deployment(id="d", provider="echo", model="echo"),)),
)


def approvals(control: FakeControl, redis: Redis, clock: Clock) -> Approvals:
    """Without alerts."""
    return Approvals(Store(control, clock), Once(redis))


def key(**more: object) -> AskFor:
    return AskFor.model_validate({"what": "key", "team": "fraud", "wanted": {"project": "scores"}, "why": "a proof"} | more)


def budget(level: str = "", usd: str = "50", **more: object) -> AskFor:
    wanted = {"level": level, "usd": usd}
    return AskFor.model_validate({"what": "budget", "team": "fraud", "wanted": wanted, "why": "launch", "for_s": 86_400} | more)


def model(level: str = "", **more: object) -> AskFor:
    wanted = {"level": level, "model": "dear"}
    return AskFor.model_validate({"what": "model", "team": "fraud", "wanted": wanted, "why": "a test", "for_s": 86_400} | more)
