"""Five hundred requests at once against a budget that fits a hundred of them, over two ingresses: nothing is ever overshot.

`python -m tests.faults.budget --rounds 20` prints what each round spent; tests/faults/test_budget.py runs two of them.
"""

import argparse
import asyncio
import random
import sys
import tempfile
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
from rich.progress import track

from tests.faults.another import another_service
from tests.system import INPUT_USD, OUTPUT_USD, Provider, System, Team, chat, config, prompt, running_provider, until

CHAT = "/v1/chat/completions"
REQUESTS, FITTING = 500, 100
_MOST_WORDS, _MOST_TOKENS = 60, 60
_USUAL_INPUT = 100
"""Tokens that are held for a prompt: half of the words, what makes it one of its own, and the margin."""


@dataclass(frozen=True, slots=True)
class Round:
    """What became of one round. Money in USD."""

    seed: int
    budget: Decimal
    answered: int
    refused: int
    spent: Decimal
    provider_calls: int

    def __str__(self) -> str:
        return (
            f"seed {self.seed}: {self.answered} answered, {self.refused} refused, {self.provider_calls} calls; "
            f"spent {self.spent:f} of {self.budget:f} USD ({self.spent / self.budget:.1%})"
        )


async def play(system: System, provider: Provider, urls: list[str], seed: int) -> Round:
    """One round. Raises AssertionError when a promise is broken."""
    chance, before = random.Random(seed), await provider.last()
    # A word of the mock's is a token or more of ours; what is held has a margin besides.
    budget = FITTING * (_USUAL_INPUT * INPUT_USD + _MOST_TOKENS // 2 * OUTPUT_USD)
    policy = {"budgets": [{"usd": str(budget), "period": "month"}], "cache": {"enabled": False}}
    team = await system.create_team_under("budget", policy)
    async with team.http() as here, replace(team, url=urls[1]).http() as there:
        asked = [_ask((here, there)[n % 2], chance) for n in range(REQUESTS)]
        answers = await asyncio.gather(*asked)
        ended = [answer for answer in answers if answer.status_code == 200]
        refused = [answer for answer in answers if answer.status_code == 429]
        assert [answer.text for answer in answers if answer.status_code not in (200, 429)] == []
        for answer in refused:
            assert answer.json()["error"]["code"] == "budget_exceeded", answer.text
            assert answer.headers["x-should-retry"] == "false"
        spent = await _booked(system, team, len(ended))
        assert spent <= budget, f"seed {seed}: {spent} USD spent of {budget}"
        calls = [entry for entry in await provider.entries(after=before) if entry.status == 200]
        assert len(calls) == len(ended)
        # What fits is admitted as soon as nothing is held any more, and what doesn't is not.
        await _is_exact(system, team, here, budget - spent)
    return Round(seed, budget, len(ended), len(refused), spent, len(calls))


async def _ask(client: httpx.AsyncClient, chance: random.Random) -> httpx.Response:
    words = " ".join(prompt() for _ in range(chance.randint(1, 3)))
    filler = " word" * chance.randint(0, _MOST_WORDS)
    return await client.post(CHAT, json=chat("mock", words + filler, max_tokens=chance.randint(1, _MOST_TOKENS)))


async def _booked(system: System, team: Team, rows: int) -> Decimal:
    """What ClickHouse says was spent, once it has a row for each answer."""

    async def sums() -> dict[str, Any] | None:
        query = f"SELECT countIf(status = 'completed') AS jobs, sum(cost_usd) AS usd FROM usage WHERE team = '{team.name}'"
        found = (await system.query(query))[0]
        return found if int(found["jobs"]) >= rows else None

    return Decimal(str((await until(sums, 60))["usd"]))


async def _is_exact(system: System, team: Team, client: httpx.AsyncClient, left: Decimal) -> None:
    """With nothing held: as much as is left is granted, and a token more is not."""

    async def settled() -> bool:
        told = await system.json("budgets", "explain", "--team", team.name)
        return all(not Decimal(budget["held_usd"]) for budget in told["budgets"])

    assert await until(settled)
    beyond = int(left / OUTPUT_USD) + 1
    refused = await client.post(CHAT, json=chat("mock", "over", max_tokens=beyond))
    assert refused.status_code == 429, refused.text
    within = beyond - 40
    if within > 0:
        granted = await client.post(CHAT, json=chat("mock", "within", max_tokens=within))
        assert granted.status_code == 200, granted.text


async def main(rounds: int, seed: int) -> None:
    with tempfile.TemporaryDirectory(prefix="sluice-budget-") as folder:
        async with running_provider(Path(folder)) as provider:
            system = await System.start(Path(folder), config(provider), "--processes")
            try:
                async with another_service(system, "ingress", "1") as (_, url):
                    for n in track(range(seed, seed + rounds), "rounds"):
                        print(await play(system, provider, [system.url, url], n), flush=True)
            finally:
                await system.stop()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    sys.exit(asyncio.run(main(given.rounds, given.seed)))
