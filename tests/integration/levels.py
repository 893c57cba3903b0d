"""A caller with a place at every level of the hierarchy; limits and budgets are set at any of them by the admin API."""

import json
import re
import uuid
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx

from tests.system import INPUT_USD, OUTPUT_USD, PROVIDER_KEY, Provider, System, Team, config, until

CHAT = "/v1/chat/completions"
LEVELS = ("organization", "team", "project", "environment", "key", "user")
LONG, BOUNDED, UNPRICED = "mock-words-3000-chunkms-1", "bounded", "unpriced"
BOUND = 64
"""Most tokens of an answer of BOUNDED, as its configuration says. It has 200 words all the same."""

_ENVIRONMENT, _PROJECT = "dev", "p"


@dataclass(frozen=True, slots=True)
class Place:
    """A team with a key of its own, in a project, an environment, and of a user."""

    system: System
    team: Team
    key_id: str
    organization: str
    user: str

    @classmethod
    async def create(cls, system: System, **policy: object) -> "Place":
        """A new team under a policy of its own."""
        name = f"place-{uuid.uuid4().hex[:6]}"
        user = f"ada of {name}"
        async with system.admin() as admin:
            organization = (await admin.get("/admin/v1/organization")).json()["name"]
            made = await admin.post("/admin/v1/teams", json={"name": name, "policy": policy})
            assert made.status_code == 201, made.text
            key = await _new_key(admin, name, user)
        return cls(system, Team(name, key["key"], system.url), key["id"], organization, user)

    async def other_key(self) -> Team:
        """The same team and user by another key, outside of the project."""
        async with self.system.admin() as admin:
            made = await admin.post("/admin/v1/keys", json={"team": self.team.name})
        return Team(self.team.name, made.json()["key"], self.system.url)

    def scope(self, level: str) -> dict[str, object]:
        """A level as the admin API names it."""
        team, place = {"team": self.team.name}, {"project": _PROJECT}
        scopes: dict[str, dict[str, object]] = {
            "organization": {"organization": True},
            "team": {**team},
            "project": {**team, **place},
            "environment": {**team, **place, "environment": _ENVIRONMENT},
            "key": {"key": self.key_id},
            "user": {"user": self.user},
        }
        return scopes[level]

    def name(self, level: str) -> str:
        """A level as those are told of it who are refused."""
        project = f"project {_PROJECT} of team {self.team.name}"
        names = {
            "organization": f"organization {self.organization}",
            "team": f"team {self.team.name}",
            "project": project,
            "environment": f"{project} in environment {_ENVIRONMENT}",
            "key": "this key",
            "user": f"user {self.user}",
        }
        return names[level]

    @asynccontextmanager
    async def limited(self, level: str, **limits: int) -> AsyncGenerator[None]:
        """With these limits at a level; they are lifted in the end, for the organization is everybody's."""
        await self._put("limits", {"scope": self.scope(level), "limits": limits})
        try:
            yield
        finally:
            await self._put("limits", {"scope": self.scope(level), "limits": dict.fromkeys(limits)})

    async def budget(self, level: str = "team", **members: object) -> None:
        """Sets a budget: hard, for a month, unless said otherwise."""
        await self._put("budgets", {"scope": self.scope(level), **members})

    async def drop_budget(self, level: str) -> None:
        """Takes the budget of the month away."""
        async with self.system.admin() as admin:
            params = {name: str(value).lower() if value is True else str(value) for name, value in self.scope(level).items()}
            answer = await admin.delete("/admin/v1/budgets", params=params)
        assert answer.status_code == 200, answer.text

    async def explained(self, level: str = "team") -> dict[str, Any]:
        """The budget of a level, with the reservations there: as `sluice budgets explain` shows it."""
        async with self.system.admin() as admin:
            params = {name: str(value).lower() if value is True else str(value) for name, value in self.scope(level).items()}
            answer = await admin.get("/admin/v1/budgets/explain", params=params)
        assert answer.status_code == 200, answer.text
        told = json.loads(answer.text)
        (budget,) = [one for one in told["budgets"] if one["scope"] == self.scope(level)]
        return budget | {"reservations": told["reservations"]}

    async def settled(self, level: str = "team") -> dict[str, Any]:
        """The same, once nothing is held there any more."""

        async def found() -> dict[str, Any] | None:
            told = await self.explained(level)
            return told if not Decimal(told["held_usd"]) and not told["held_tokens"] else None

        return await until(found)

    async def change(self, **policy: object) -> None:
        """Changes members of the team's policy."""
        async with self.system.admin() as admin:
            answer = await admin.patch(f"/admin/v1/teams/{self.team.name}", json={"policy": policy})
        assert answer.status_code == 200, answer.text

    async def _put(self, what: str, body: Mapping[str, object]) -> None:
        async with self.system.admin() as admin:
            answer = await admin.put(f"/admin/v1/{what}", json=body)
        assert answer.status_code == 200, answer.text


async def _new_key(admin: httpx.AsyncClient, team: str, user: str) -> dict[str, Any]:
    body = {"team": team, "project": _PROJECT, "environment": _ENVIRONMENT, "user": user}
    made = await admin.post("/admin/v1/keys", json=body)
    assert made.status_code == 201, made.text
    return made.json()


async def started(folder: Path, provider: Provider) -> System:
    """A system of its own: its organization can be limited, and its Redis stopped. With models that the others don't need."""
    written = json.loads(config(provider))
    price = {"input_cost_per_token": str(INPUT_USD), "output_cost_per_token": str(OUTPUT_USD)}
    params = {"api_base": provider.base_url, "api_key": PROVIDER_KEY}
    written["model_list"] += [
        {"model_name": LONG, "litellm_params": {**params, "model": f"mocked/{LONG}"}, "model_info": price},
        {
            "model_name": BOUNDED,
            "litellm_params": {**params, "model": "mocked/mock-words-200-chunkms-50"},
            "model_info": {**price, "max_output_tokens": BOUND},
        },
        {"model_name": UNPRICED, "litellm_params": {**params, "model": "mocked/mock-unpriced"}},
    ]
    return await System.start(folder, json.dumps(written))


def refused(answer: httpx.Response, status: int, code: str) -> str:
    """The sentence in a refusal, which has OpenAI's shape."""
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    assert error["code"] == code, answer.text
    return str(error["message"])


def seconds(duration: str) -> float:
    """A duration as OpenAI writes it: `1s`, `6m0s`, `120ms`."""
    found = re.fullmatch(r"(?:(\d+)m)?(?:(\d+)s)?|(\d+)ms", duration)
    assert found, duration
    minutes, whole, thousandths = (int(part or 0) for part in found.groups())
    return 60 * minutes + whole + thousandths / 1000
