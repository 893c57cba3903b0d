"""Job tokens for a long run: minted by the admin key for a team, or from a virtual key; renewed in time."""

import asyncio
import time
from collections.abc import Callable

from pydantic import BaseModel, ValidationError

from schemas.base import JsonObject
from services.cli.client import Api, System
from services.cli.output import Failed, listed, text

LIFE_S = 24 * 3600
"""As long as a token may last: a line in the queue needs its token until it is admitted."""


class Token(BaseModel):
    """What POST …/job_tokens answers; `expires_at` in unix seconds."""

    token: str
    expires_at: int
    team: str


class Tokens:
    """`fresh` gives a token with more than half of its life before it. `team` is whose it is."""

    def __init__(self, mint: Callable[[], Token], now_s: Callable[[], float] = time.time) -> None:
        self._mint = mint
        self._now_s = now_s
        self._token = mint()
        self._renew_at_s = self._half()
        self.team = self._token.team

    async def fresh(self) -> str:
        """Raises Failed if a new one is needed and can't be had."""
        if self._now_s() >= self._renew_at_s:
            self._token = await asyncio.to_thread(self._mint)
            self._renew_at_s = self._half()
        return self._token.token

    def _half(self) -> float:
        now_s = self._now_s()
        return now_s + (self._token.expires_at - now_s) / 2


def tokens(system: System, team: str | None) -> Tokens:
    """Tokens for `team` by the admin key; without one, from SLUICE_KEY, or for the only team. Raises Failed."""
    key = system.settings.key.get_secret_value()
    if team is None and key:
        return _minted(Api(system.address("http"), key), "/v1/job_tokens", {})
    api = Api.admin(system)
    return _minted(api, "/admin/v1/job_tokens", {"team": team if team is not None else _only_team(api)})


def _minted(api: Api, path: str, body: JsonObject) -> Tokens:
    def mint() -> Token:
        try:
            return Token.model_validate(api.post(path, {**body, "expires_in": LIFE_S}))
        except ValidationError as error:
            raise Failed(f"The answer of {path} can't be read: is that Sluice of another version?") from error

    return Tokens(mint)


def _only_team(api: Api) -> str:
    names = [text(team, "name") for team in listed(api.get("/admin/v1/teams"))]
    match names:
        case [name]:
            return name
        case []:
            raise Failed("There is no team yet: create one with `sluice teams create NAME`.")
        case _:
            raise Failed(f"Say whose lines they are, by --team or SLUICE_KEY. Teams: {', '.join(names)}.")
