"""A desk at which tokens of a fake issuer are checked."""

import pytest

from infra.oidc.tokens import Identified, IdentityTokens
from schemas.control import IdentityProvider
from schemas.errors import InvalidKey
from tests.fakes.clock import FakeClock
from tests.fakes.issuer import NOW_S, FakeIssuer


class Desk:
    """Checks tokens of `issuer`; `providers` are those configured now."""

    def __init__(self, issuer: FakeIssuer | None = None, **members: object) -> None:
        self.issuer = issuer or FakeIssuer()
        self.clock = FakeClock(NOW_S * 1000)
        self.providers: list[IdentityProvider] = [self.issuer.provider(**members)]
        self.tokens = IdentityTokens(lambda: self.providers, self.clock, self.issuer.client)

    async def verify(self, token: str) -> Identified:
        return await self.tokens.verify(token)

    async def refuses(self, token: str, why: str) -> None:
        """The token is refused, twice, with a sentence in which `why` stands and nothing of the token does."""
        for _ in range(2):
            with pytest.raises(InvalidKey, match=why) as refusal:
                await self.tokens.verify(token)
            said = refusal.value.message
            assert said.startswith("The identity token ")
            assert said.endswith(".")
            assert not any(part and part in said for part in token.split("."))
