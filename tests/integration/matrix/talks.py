"""What is asked and told in a conversation, the same whichever SDK holds it."""

import json
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Literal, Protocol

from anthropic import AsyncAnthropic
from openai import AsyncOpenAI
from pydantic import BaseModel

from tests.system import Team

SYSTEM = "You are brief."
MOST_TOKENS = 4096
BUDGET = 1024


class Where(BaseModel):
    """A place"""

    city: Literal['Zürich "Kreis 4"', "Bern"]


class Weather(BaseModel):
    """Tells how the weather is, and will be"""

    where: Where
    days: Literal[42, 43]


class Clock(BaseModel):
    """Tells the time"""

    zone: Literal["CET", "UTC"]


class Street(BaseModel):
    """A street"""

    name: Literal["Rue de l'Été\n\\ 7", "Gasse"]


class City(BaseModel):
    """A city"""

    name: Literal["São Paulo", "Lima"]
    street: Street
    size: Literal[12, 13]


class Town(City):
    """A city of which more may be told"""

    mayor: str | None = None


WEATHER = Weather(where=Where(city='Zürich "Kreis 4"'), days=42)
CLOCK = Clock(zone="CET")
CITY = City(name="São Paulo", street=Street(name="Rue de l'Été\n\\ 7"), size=12)
TOWN = Town(**dict(CITY), mayor="Paris")
"""What the mocks make of the schemas: the first of each choice."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What a conversation is about. `tools` are offered under their names; the answer has to be a `form`, which is made of the
    arguments of a tool of that name if `by_tool`."""

    model: str
    marker: str
    stream: bool = False
    tools: Sequence[type[BaseModel]] = ()
    form: type[BaseModel] | None = None
    by_tool: bool = False
    thinks: bool = False
    most_tokens: int = MOST_TOKENS

    @property
    def headers(self) -> dict[str, str]:
        """A label by which the usage rows are found."""
        return {"x-sluice-metadata": json.dumps({"feature": self.marker})}


@dataclass(frozen=True, slots=True)
class Call:
    """A tool is to be called."""

    id: str
    name: str
    given: object = field(hash=False)


@dataclass(frozen=True, slots=True)
class Said:
    """An answer, as the SDK tells it. `stop` in the words of chats; `given`, `made`: tokens; `parsed`: the form."""

    text: str
    stop: str
    given: int
    made: int
    calls: list[Call] = field(default_factory=list[Call])
    parsed: object = None
    thoughts: str = ""


class Talk(Protocol):
    """A conversation: something is said, with the URL of an image, or the results of calls are told, and an answer comes."""

    async def say(self, text: str, image: str = "") -> Said: ...
    async def tell(self, results: Mapping[Call, str]) -> Said: ...


@dataclass(frozen=True, slots=True)
class Clients:
    """SDKs of a team's, from which conversations are begun: to make one takes a while."""

    team: Team
    openai: AsyncOpenAI
    anthropic: AsyncAnthropic


@asynccontextmanager
async def clients_of(team: Team) -> AsyncGenerator[Clients]:
    """Made and closed."""
    to_anthropic = AsyncAnthropic(base_url=team.url, api_key=team.key, max_retries=0, timeout=60)
    async with team.openai() as openai, to_anthropic as anthropic:
        yield Clients(team, openai, anthropic)


Sdk = Callable[[Clients, Wish], Talk]
