"""One Sluice in front of seven providers, each a mock that speaks its wire format and checks its credential."""

import asyncio
import json
from base64 import b64decode
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, cast

from joserfc.jwk import RSAKey

from benchmarks.mock_answers import answer_text
from tests.integration.matrix import wires
from tests.integration.matrix.talks import SYSTEM, Clients, clients_of
from tests.integration.matrix.wires import Arrived, Body, Reader
from tests.mocks import anthropic, bedrock, gemini
from tests.mocks.anthropic import MockAnthropic
from tests.mocks.azure import MockAzure
from tests.mocks.bedrock import MockBedrock, mock_bedrock
from tests.mocks.gemini import MockGemini
from tests.mocks.openai import MockOpenAI
from tests.system import System, Team

_PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAQAAAC1HAwCAAAAC0lEQVR42mNkYAAAAAYAAjCB0C8AAAAASUVORK5CYII="
PIXEL = b64decode(_PNG)
DATA_URL = f"data:image/png;base64,{_PNG}"
PUBLIC_URL = "https://images.example/cat.png"
EMBEDDERS = ("openai", "compatible", "azure", "gemini", "vertex", "titan")

_OPENAI, _VLLM, _AZURE = "sk-CANARY-openai", "sk-CANARY-own-server", "CANARY-azure-key"
_BEDROCK = "anthropic.claude-sonnet-4-5-20250929-v1:0"
_NOVA = "amazon.nova-pro-v1:0"
_BILL_S = 30.0


@dataclass(frozen=True, slots=True)
class Place:
    """A provider in the matrix; its name is the alias that is asked for. `says` what to a text, `sees` what on an image.

    `fetches`: it takes addresses of images; `thinks`: it is told to if the caller asks for it; `thought`: what it tells of that,
    `signs`: and wants to see again.
    """

    name: str
    read: Reader
    says: Callable[[str], str]
    sees: str
    fetches: bool = True
    thinks: bool = True
    thought: str = ""
    signs: bool = False


def _words(text: str) -> str:
    return answer_text(f"{SYSTEM}\n{text}")


_BYTES = f"I see images of [{len(PIXEL)}] bytes."
_SIZED = f"I see a png of {len(PIXEL)} bytes."
PLACES: Mapping[str, Place] = {
    place.name: place
    for place in (
        Place("openai", wires.openai, _words, _BYTES),
        Place("compatible", wires.openai, _words, _BYTES),
        Place("azure", wires.openai, _words, _BYTES),
        Place(
            "anthropic", wires.anthropic, lambda text: f"You said: {text}", "I see 1 image(s).", thought="Let me see.", signs=True
        ),
        Place("gemini", wires.gemini, _words, "I see image/png.", fetches=False, thought="I think."),
        Place("vertex", wires.gemini, _words, "I see image/png.", thought="I think."),
        Place(
            "bedrock",
            wires.bedrock,
            lambda _: f"Hello from {_BEDROCK}.",
            _SIZED,
            fetches=False,
            thought="Let me think about it.",
            signs=True,
        ),
        Place("nova", wires.bedrock, lambda _: f"Hello from {_NOVA}.", _SIZED, fetches=False, thinks=False),
    )
}


def price(alias: str) -> tuple[Decimal, Decimal]:
    """USD per token in and out, another one for each."""
    n = sum(alias.encode())
    return Decimal(n) / 10**8, Decimal(3 * n) / 10**8


@dataclass(frozen=True, slots=True)
class Mocks:
    """The providers."""

    openai: MockOpenAI
    compatible: MockOpenAI
    azure: MockAzure
    anthropic: MockAnthropic
    gemini: MockGemini
    vertex: MockGemini
    bedrock: MockBedrock

    def bodies(self, name: str) -> Sequence[Body]:
        """What a provider has taken, oldest first."""
        if name == "anthropic":
            return [asked.model_dump(mode="json", by_alias=True, exclude_unset=True) for asked in self.anthropic.requests]
        mock = self.bedrock if name in ("nova", "titan") else getattr(self, name)
        return cast("Sequence[Body]", mock.asked)


@dataclass(slots=True)
class Bills:
    """The usage rows of a team by their feature, read once for all who wait for theirs."""

    system: System
    team: Team
    _rows: Sequence[Mapping[str, Any]] = ()
    _reading: asyncio.Task[None] | None = None

    async def of(self, feature: str, count: int) -> Sequence[Mapping[str, Any]]:
        """Raises TimeoutError if there aren't so many of it within half a minute."""
        async with asyncio.timeout(_BILL_S):
            while len(found := [row for row in self._rows if row["feature"] == feature]) < count:
                if self._reading is None or self._reading.done():
                    self._reading = asyncio.create_task(self._read())
                await asyncio.shield(self._reading)
        return found

    async def _read(self) -> None:
        await asyncio.sleep(0.3)
        self._rows = await self.system.query(f"SELECT * FROM usage WHERE team = '{self.team.name}' ORDER BY job_id")


@dataclass(frozen=True, slots=True)
class Stand:
    """Everything that a case needs."""

    clients: Clients
    mocks: Mocks
    bills: Bills

    def arrived(self, place: Place, marker: str) -> list[Arrived]:
        """The requests with this marker in them that reached a provider, oldest first."""
        return [place.read(body) for body in self.mocks.bodies(place.name) if marker in json.dumps(body)]


@asynccontextmanager
async def standing(folder: Path) -> AsyncGenerator[Stand]:
    """Starts all of it."""
    async with AsyncExitStack() as stack:
        mocks = Mocks(
            openai=await stack.enter_async_context(MockOpenAI(_OPENAI)),
            compatible=await stack.enter_async_context(MockOpenAI(_VLLM, knows=("top_k",))),
            azure=await stack.enter_async_context(MockAzure(_AZURE)),
            anthropic=await stack.enter_async_context(MockAnthropic()),
            gemini=await stack.enter_async_context(MockGemini()),
            vertex=await stack.enter_async_context(MockGemini()),
            bedrock=await stack.enter_async_context(mock_bedrock()),
        )
        account, stranger = folder / "vertex.json", folder / "stranger.json"
        account.write_text(mocks.vertex.account())
        stranger.write_text(mocks.vertex.account(RSAKey.generate_key(2048)))
        keys = {
            "MATRIX_OPENAI": _OPENAI,
            "MATRIX_AWS_ID": bedrock.ACCESS_KEY,
            "MATRIX_AWS_SECRET": bedrock.SECRET_KEY,
            "MATRIX_AWS_WRONG": bedrock.SECRET_KEY[::-1],
        }
        system = await System.start(folder, _config(mocks, account, stranger), **keys)
        try:
            team = await system.create_team("matrix")
            async with clients_of(team) as clients:
                yield Stand(clients, mocks, Bills(system, team))
        finally:
            assert await system.stop() == 0, system.log_tail


def _config(mocks: Mocks, account: Path, stranger: Path) -> str:
    """Each place, each place as somebody with a wrong credential asks it, and the places that make embeddings."""
    openai = {"api_base": mocks.openai.base_url, "api_key": "env:MATRIX_OPENAI"}
    vllm = {"api_base": mocks.compatible.base_url, "api_key": _VLLM}
    azure = {"api_base": mocks.azure.endpoint, "api_key": _AZURE, "api_version": "2024-10-21"}
    google = {"api_base": mocks.gemini.base_url, "api_key": gemini.KEY}
    cloud = {"api_base": mocks.vertex.host, "vertex_project": gemini.PROJECT, "vertex_location": "europe-west4"}
    vertex = {**cloud, "vertex_credentials": f"file:{account}"}
    aws = {
        "api_base": mocks.bedrock.base_url,
        "aws_region_name": bedrock.REGION,
        "aws_access_key_id": "env:MATRIX_AWS_ID",
        "aws_secret_access_key": "env:MATRIX_AWS_SECRET",
    }
    chats = {
        "openai": ("openai/mock", openai),
        "compatible": ("hosted_vllm/mock", vllm),
        "azure": ("azure/mock", azure),
        "anthropic": ("anthropic/claude-mock-sonnet-4-5", {"api_base": mocks.anthropic.base_url, "api_key": anthropic.KEY}),
        "gemini": ("gemini/mock-gemini-3-pro", google),
        "vertex": ("vertex_ai/mock-gemini-2.5-pro", vertex),
        "bedrock": (f"bedrock/{_BEDROCK}", aws),
        "nova": (f"bedrock/{_NOVA}", aws),
    }
    wrong = {"aws_secret_access_key": "env:MATRIX_AWS_WRONG"}
    others = {"vertex": {"vertex_credentials": f"file:{stranger}"}, "bedrock": wrong, "nova": wrong}
    models = [
        *(_entry(place, *asked) for place, asked in chats.items()),
        *(
            _entry(f"{place}-stranger", model, {**params, **others.get(place, {"api_key": "sk-somebody-elses"})})
            for place, (model, params) in chats.items()
        ),
        _entry("openai-embeddings", "openai/mock-embed", openai),
        _entry("compatible-embeddings", "hosted_vllm/mock-embed", vllm),
        _entry("azure-embeddings", "azure/mock-embed", azure),
        _entry("gemini-embeddings", "gemini/mock-embedding-001", google),
        _entry("vertex-embeddings", "vertex_ai/mock-text-embedding-005", vertex),
        _entry("titan-embeddings", "bedrock/amazon.titan-embed-text-v2:0", aws),
    ]
    return json.dumps({"model_list": models}, indent=1)


def _entry(alias: str, model: str, params: Mapping[str, object]) -> object:
    given, made = price(alias)
    info = {"id": alias, "input_cost_per_token": str(given), "output_cost_per_token": str(made)}
    return {"model_name": alias, "litellm_params": {"model": model, **params}, "model_info": info}
