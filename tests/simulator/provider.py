"""The provider of a world, and its own ledger of what it was asked and what it said."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field
from typing import Literal

from pydantic_core import to_json

from schemas.base import JsonObject
from schemas.errors import Fault
from services.router.providers.base import DONE, Provider, ProviderFailure, ProviderRequest
from tests.simulator.chaos import Chaos, Life, never

Whim = Literal["well", "unavailable", "throttled", "final", "hangs", "garbage", "cut"]
_WHIMS: tuple[Whim, ...] = ("unavailable", "unavailable", "throttled", "final", "hangs", "garbage", "cut")


@dataclass(slots=True)
class Asked:
    """A call that arrived."""

    attempt: str
    at_ms: int
    said: str = ""


@dataclass(slots=True)
class Ledger:
    """Every call that arrived, in order."""

    calls: list[Asked] = field(default_factory=list[Asked])

    def of(self, job_id: str) -> list[Asked]:
        mark = f"att_{job_id.removeprefix('job_')}_"
        return [call for call in self.calls if call.attempt.startswith(mark)]

    def by_job(self) -> dict[str, list[Asked]]:
        found: dict[str, list[Asked]] = {}
        for call in self.calls:
            found.setdefault(f"job_{call.attempt[4:].rpartition('_')[0]}", []).append(call)
        return found


class SimProvider(Provider):
    """One process' way to the provider. No two answers have the same text."""

    def __init__(self, ledger: Ledger, life: Life, chaos: Chaos) -> None:
        self._ledger, self._life, self._chaos = ledger, life, chaos

    async def call(self, request: ProviderRequest) -> str:
        asked, whim = await self._arrive(request)
        if whim in ("garbage", "cut"):
            return "<html>"
        asked.said = f"{request.id} says all"
        await self._life.point()
        message = {"role": "assistant", "content": asked.said}
        return _text({"choices": [{"index": 0, "message": message, "finish_reason": "stop"}], "usage": _USAGE})

    async def stream(self, request: ProviderRequest) -> AsyncGenerator[Sequence[str]]:
        asked, whim = await self._arrive(request)
        pieces = self._chaos.chance.randrange(1, 8)
        for n in range(pieces):
            await self._life.point()
            if whim in ("garbage", "cut") and n == pieces // 2:
                break
            text = f"{request.id} says {n}; "
            asked.said += text
            yield [_chunk(text)]
        else:
            await self._life.point()
            yield [_chunk(None, "stop"), DONE]
        if whim == "garbage":
            yield ["<html>"]

    async def _arrive(self, request: ProviderRequest) -> tuple[Asked, Whim]:
        await self._life.point()
        asked = Asked(request.id, self._chaos.now_ms())
        self._ledger.calls.append(asked)
        strikes = self._chaos.strikes(self._chaos.weather.provider)
        whim: Whim = self._chaos.chance.choice(_WHIMS) if strikes else "well"
        # Longer than one of the deployments may take, where providers are sick.
        await asyncio.sleep(self._chaos.chance.random() ** 4 * (8 if self._chaos.weather.provider else 5))
        await self._life.point()
        if whim == "hangs":
            await never()
        if whim in ("unavailable", "throttled", "final"):
            raise _failure(whim, self._chaos.chance.random() < 0.5)
        return asked, whim


_USAGE: JsonObject = {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}


def _failure(whim: Literal["unavailable", "throttled", "final"], billable: bool) -> ProviderFailure:
    fault = Fault(status=502, type="api_error", code="provider_error", message="it broke", owner="provider")
    return ProviderFailure(whim, fault, http_status=500, billable=billable, retry_after_s=1 if whim == "throttled" else None)


def _chunk(text: str | None, finish: str | None = None) -> str:
    delta: JsonObject = {} if text is None else {"content": text}
    return _text({"choices": [{"index": 0, "delta": delta, "finish_reason": finish}], "usage": _USAGE if finish else None})


def _text(body: object) -> str:
    return to_json(body).decode()
