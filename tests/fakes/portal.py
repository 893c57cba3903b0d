"""A portal in this process: the real admin API over a control table, a Redis and a log in memory, and people of every role."""

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, cast

import httpx
from starlette.applications import Starlette

from infra.credentials import JobTokens, key_hash
from infra.faults import on_error
from infra.kafka.neighbours import Neighbours
from infra.kafka.stage import Load
from infra.platform import Platform
from infra.settings import Settings
from infra.signing import Signer
from schemas.control import (
    Analyst,
    Deployment,
    Environment,
    IdentityProvider,
    Model,
    Operator,
    Organization,
    Project,
    Team,
    User,
    VirtualKey,
)
from schemas.errors import SluiceError
from schemas.roles import Role
from schemas.topics import Lane, Topic
from services.portal.app import Portal, build
from tests.fakes.clock import FakeClock
from tests.fakes.control import FakeControl
from tests.fakes.log import MemoryLog, MemorySource
from tests.fakes.redis import LuaRedis

ADMIN_KEY = "sk-sl-admin-for-tests"
OWN, OTHER = "fraud", "search"

_SETTINGS = Settings.model_validate({"admin_key": ADMIN_KEY})

OF_A_TEAM = (Role.TEAM_ADMIN, Role.MEMBER)


def secret_of(who: str) -> str:
    """The credential of somebody in the house: a role, or the name of a key."""
    return f"sk-sl-secret-of-{who}"


def house() -> list[Any]:
    """Two teams that have the same things, and an operator of each role; those of a team are in `fraud`."""
    resources: list[Any] = [
        Organization(id="org_1", name="default"),
        User(id="user_1", name="ada"),
        IdentityProvider(name="okta", issuer="https://okta.example", audiences=("sluice",)),
        Model(name="small", deployments=(Deployment(id="d", provider="echo", model="echo"),)),
        Analyst(name="ann", organization="default", sha256="0" * 64, last4="0000"),
        Operator(id="op_1", name="nobody", role=Role.AUDITOR, sha256="0" * 64, last4="0000"),
    ]
    for team in (OWN, OTHER):
        key = VirtualKey(
            id=f"key_{team}", sha256=key_hash(secret_of(team)), last4="abcd", team=team, project="p", environment="e"
        )
        resources += [
            Team(id=f"team_{team}", name=team, organization="default"),
            Project(id=f"proj_{team}", team=team, name="p"),
            Environment(id=f"env_{team}", team=team, project="p", name="e"),
            Environment(id=f"env_idle_{team}", team=team, project="p", name="idle"),
            Project(id=f"proj_idle_{team}", team=team, name="idle"),
            key,
        ]
    for role in Role:
        held_in = OWN if role in OF_A_TEAM else ""
        digest = key_hash(secret_of(role.value))
        operator = Operator(id=f"op_{role.value}", name=role.value, role=role, team=held_in, sha256=digest, last4="abcd")
        resources.append(operator)
    return resources


class FakeKafka(MemoryLog):
    """The log, and the topics that were made for teams."""

    def __init__(self) -> None:
        super().__init__()
        self.made: list[str] = []

    def source(self, group: str, topics: Collection[str], slot: str | None = None, may_wait_ms: int = 0) -> MemorySource:
        return super().source(group, topics, slot)

    async def create_for_team(self, topic: Topic, team: str, replication: int) -> None:
        """Notes that it was asked for."""
        self.made.append(team)


class House:
    """A portal, and what it wrote."""

    def __init__(self, data_dir: Path, *resources: Any) -> None:
        self.clock = FakeClock()
        self.control = FakeControl()
        self.control.put(*(resources or house()))
        self.kafka, self.redis = FakeKafka(), LuaRedis(self.clock)
        self.portal: Portal = build(self._platform(data_dir))
        handlers: Mapping[Any, Any] = dict.fromkeys((SluiceError, Exception), on_error)
        self.app = Starlette(routes=list(self.portal.routes), exception_handlers=handlers)

    def client(self, secret: str = ADMIN_KEY) -> httpx.AsyncClient:
        """Somebody with this credential; nobody where it is empty."""
        headers = {"authorization": f"Bearer {secret}"} if secret else {}
        transport = httpx.ASGITransport(self.app, raise_app_exceptions=False)
        return httpx.AsyncClient(transport=transport, base_url="http://sluice", headers=headers)

    def acts(self) -> list[dict[str, Any]]:
        """What was told on `sluice.events`."""
        return [json.loads(record.value or b"{}") for record in self.kafka.records("sluice.events")]

    def _platform(self, data_dir: Path) -> Platform:
        settings = _SETTINGS.model_copy(update={"data_dir": data_dir})
        nothing = cast("Any", None)
        return Platform(
            settings=settings,
            kafka=cast("Any", self.kafka),
            redis=self.redis,
            control=self.control,
            files=nothing,
            signer=Signer(b"tests"),
            tokens=JobTokens(b"tests"),
            tracing=nothing,
            clock=self.clock,
            life="life",
            neighbours=Neighbours(),
            results=nothing,
            loads=cast("Any", _Loads()),
            pace=nothing,
        )


class _Loads:
    def lightest(self, topic: str, partitions: Any, chance: int) -> int:
        return partitions[0]

    def lane(self, lane: Lane) -> Load:
        return Load(0, 0)
