"""One deployment half of whose calls fail, and a healthy one beside it: what 2,000 clients see, and what is called for them.

    python -m tests.faults.sick [--requests 500] [--at-once 64] [--seed 1]

Four kinds of failure, each with an alias of its own, whole answers and streams in turn: status 500; 429 with Retry-After;
silence; a connection that closes before the first token.
"""

import argparse
import asyncio
import json
import random
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from benchmarks.load import quantiles
from tests.system import INPUT_USD, OUTPUT_USD, PROVIDER_KEY, Provider, System, Team, chat, prompt, running_provider

TIMEOUT_S, FIRST_TOKEN_S = 2.0, 1.0
FAULTS = {"error": "500", "throttled": "429-retry-1", "silent": "hang", "cut": "cut-words-0"}


def config(provider: Provider) -> str:
    """An alias for each kind of failure, over two deployments of the same weight."""
    price = {"input_cost_per_token": str(INPUT_USD), "output_cost_per_token": str(OUTPUT_USD)}

    def deployment(kind: str, how: str) -> dict[str, object]:
        params = {
            "model": f"mocked/mock-{how}-{kind}" if how == "sick" else f"mocked/well-{kind}",
            "api_base": provider.base_url,
            "api_key": PROVIDER_KEY,
            "timeout": TIMEOUT_S,
            "stream_timeout": FIRST_TOKEN_S,
        }
        return {"model_name": kind, "litellm_params": params, "model_info": {"id": f"{how}-{kind}", **price}}

    return json.dumps({"model_list": [deployment(kind, how) for kind in FAULTS for how in ("sick", "well")]})


@dataclass
class Seen:
    """Of one kind of failure: what the clients got, and what the provider was asked, in all and in the second half."""

    kind: str
    requests: int = 0
    errors: Counter[str] = field(default_factory=Counter[str])
    seconds: list[float] = field(default_factory=list[float])
    calls: Counter[str] = field(default_factory=Counter[str])
    later_requests: int = 0
    later_calls: int = 0

    @property
    def calls_a_request(self) -> float:
        """Once the breaker has had its time."""
        return self.later_calls / self.later_requests

    def __str__(self) -> str:
        spread = quantiles(self.seconds)
        return (
            f"{self.kind}: {self.requests} requests, errors {dict(self.errors) or 0}, p50 {spread.p50:.0f} ms, "
            f"p99 {spread.p99:.0f} ms, longest {spread.max:.0f} ms; called {dict(self.calls)}; "
            f"second half {self.calls_a_request:.3f} calls a request"
        )


async def measure(team: Team, provider: Provider, kind: str, requests: int, at_once: int, seed: int) -> Seen:
    """Sends so many requests, in two halves."""
    draw = random.Random(f"{kind} {seed}")
    script = [draw.choice((FAULTS[kind], "ok")) for _ in range(3 * requests)]
    async with httpx.AsyncClient(trust_env=False) as http:
        told = await http.post(f"{provider.base_url.removesuffix('/v1')}/faults", json={f"mock-sick-{kind}": script})
        assert told.status_code == 200
    seen, begun = Seen(kind), await provider.last()
    async with team.http() as client:
        await _half(client, seen, kind, requests // 2, at_once)
        middle, before = await provider.last(), seen.requests
        await _half(client, seen, kind, requests - requests // 2, at_once)
    entries = await provider.entries(after=begun)
    seen.calls = Counter(entry.model for entry in entries)
    seen.later_requests = seen.requests - before
    seen.later_calls = sum(entry.seq > middle for entry in entries)
    return seen


async def _half(client: httpx.AsyncClient, seen: Seen, kind: str, requests: int, at_once: int) -> None:
    numbers = iter(range(requests))

    async def work() -> None:
        for number in numbers:
            began = time.monotonic()
            error = await (_streamed if number % 2 else _whole)(client, kind)
            seen.requests += 1
            seen.seconds.append(time.monotonic() - began)
            if error:
                seen.errors[error] += 1

    await asyncio.gather(*(work() for _ in range(at_once)))


async def _whole(client: httpx.AsyncClient, kind: str) -> str:
    answer = await client.post("/v1/chat/completions", json=chat(kind, prompt()))
    return "" if answer.status_code == 200 else f"{answer.status_code} {answer.text[:200]}"


async def _streamed(client: httpx.AsyncClient, kind: str) -> str:
    async with client.stream("POST", "/v1/chat/completions", json=chat(kind, prompt(), stream=True)) as answer:
        text = (await answer.aread()).decode()
    if answer.status_code != 200:
        return f"{answer.status_code} {text[:200]}"
    return "" if text.rstrip().endswith("data: [DONE]") and '"error"' not in text else f"stream: {text[-200:]}"


async def run(folder: Path, requests: int, at_once: int, seed: int) -> list[Seen]:
    """Starts everything, measures each kind, and prints what was seen."""
    async with running_provider(folder) as provider:
        system = await System.start(folder, config(provider))
        try:
            team = await system.create_team("sick")
            found: list[Seen] = []
            for kind in FAULTS:
                found.append(await measure(team, provider, kind, requests, at_once, seed))
                print(found[-1], flush=True)
            return found
        finally:
            assert await system.stop() == 0, system.log_tail


def main() -> None:
    """Run, and exit 1 if a client saw an error."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.sick", description=__doc__)
    parser.add_argument("--requests", type=int, default=500, help="of each kind")
    parser.add_argument("--at-once", type=int, default=64)
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = asyncio.run(run(Path(folder), asked.requests, asked.at_once, asked.seed))
    raise SystemExit(any(seen.errors for seen in found))


if __name__ == "__main__":
    main()
