"""What admission costs: round trips to Redis, and CPU of the ingress and of Redis, for a request under limits at every level.

    python -m benchmarks.admission [REQUESTS [RUNS]]

The real admission (who asks, policy, estimate, limits, signature) against a real redis-server, one request at a time and 64
at once; no HTTP, no Kafka. `none`: a caller without any limit; `usual`: requests and tokens a minute and a monthly USD budget
at team and key, USD budgets at organization and project, concurrency at the key; `all`: four rates, concurrency and a USD
budget at each of five levels, thirty limits. CPU by getrusage and, of Redis, by its own count of what its scripts took.
"""

import asyncio
import resource
import statistics
import sys
import tempfile
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any, cast

from infra.clock import now_ms
from infra.credentials import key_hash, new_key
from infra.embedded.ports import choose_ports
from infra.embedded.redis import start_redis
from infra.estimates import Estimator
from infra.kafka.loads import Loads
from infra.kafka.table import Control, ControlTable
from infra.oidc.tokens import IdentityTokens
from infra.pace import Pace
from infra.platform import Platform
from infra.prices import PriceBook
from infra.redis import ledger
from infra.redis.client import Argument, Redis, Script, Value
from infra.settings import Settings
from infra.signing import Signer
from schemas.base import JsonObject
from schemas.budget import Budget
from schemas.control import Deployment, Environment, Model, Organization, Price, Project, Team, VirtualKey
from schemas.job import Api, ReplyTo
from schemas.policy import Limits, Policy
from schemas.topics import Lane
from services.ingress.handler import Admissions, Request
from services.ingress.identities import Credentials

BODY: JsonObject = {
    "model": "small",
    "max_tokens": 200,
    "messages": [
        {"role": "system", "content": "You are a careful assistant of the fraud team. " * 4},
        {"role": "user", "content": "Is this payment of 412.50 EUR to a shop in Lisbon unusual for this customer? " * 6},
    ],
}
_MANY = 2_000_000_000


class CountingRedis(Redis):
    """Counts its calls: each is one round trip."""

    calls = 0

    async def run(self, script: Script, keys: Sequence[str], args: Sequence[Argument] = ()) -> Value:
        self.calls += 1
        return await super().run(script, keys, args)


Policies = Sequence[Policy]
"""Of organization, team, project, environment and key."""


def table(policies: Policies) -> tuple[ControlTable, str]:
    """A house with these policies, and the secret of its only key."""
    organization, team, project, environment, key = policies
    found, secret = ControlTable(), new_key()
    price = Price(input_usd=Decimal("0.00000015"), output_usd=Decimal("0.0000006"))
    deployments = tuple(Deployment(id=f"small-{n}", provider="openai", model="gpt", price=price) for n in range(2))
    for resource_ in (
        Organization(id="org_1", name="acme", policy=organization),
        Team(id="team_1", name="fraud", organization="acme", policy=team),
        Project(id="proj_1", team="fraud", name="cards", policy=project),
        Environment(id="env_1", team="fraud", project="cards", name="prod", policy=environment),
        VirtualKey(
            id="key_1",
            sha256=key_hash(secret),
            last4="0000",
            team="fraud",
            project="cards",
            environment="prod",
            policy=key,
        ),
        Model(name="small", deployments=deployments),
    ):
        found.put(resource_)
    return found, secret


def admissions(redis: Redis, control: ControlTable) -> Admissions:
    """Admission with nothing but Redis behind it."""

    class Watched:
        table = control

        def watch(self, _: object) -> None:
            return

    async def nothing(*_: object) -> None:
        return

    parts: dict[str, Any] = dict.fromkeys(Platform.__slots__)
    parts |= {
        "settings": Settings(),
        "redis": redis,
        "control": cast("Control", Watched()),
        "signer": Signer(b"0" * 32),
        "clock": now_ms,
        "loads": Loads(redis, now_ms),
        "pace": Pace(),
    }
    tokens = IdentityTokens(lambda: list(control.identity_providers.values()), now_ms)
    return Admissions(Platform(**parts), nothing, tokens, Estimator(control, PriceBook()))


def cpu_us() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return (used.ru_utime + used.ru_stime) * 1e6


async def script_us(redis: CountingRedis) -> float:
    """Microseconds that Redis' scripts took so far."""
    asked = Script("info", "return redis.call('INFO', 'commandstats')", "")
    told = cast("bytes", await Redis.run(redis, asked, ())).decode()
    lines = [line for line in told.splitlines() if line.startswith(("cmdstat_evalsha:", "cmdstat_eval:"))]
    return sum(float(line.split("usec=")[1].split(",")[0]) for line in lines)


async def measure(redis: CountingRedis, policies: Policies, requests: int, at_once: int) -> tuple[float, float, float]:
    """Of one request: CPU of this process, of Redis' scripts (µs), and round trips."""
    control, secret = table(policies)
    admitting, given = admissions(redis, control), Credentials(secret)
    request = Request(api=Api.CHAT, body=BODY, lane=Lane.INTERACTIVE)

    async def one(_: int) -> str:
        identity = await admitting.identify(given)
        return (await admitting.admit(identity, request, ReplyTo(kind="inbox"))).job.id

    for n in range(50):
        await ledger.release(redis, await one(n), 300)
    before_calls, before_redis, before = redis.calls, await script_us(redis), cpu_us()
    jobs: list[str] = []
    for start in range(0, requests, at_once):
        jobs += await asyncio.gather(*map(one, range(start, start + at_once)))
    spent, calls = cpu_us() - before, redis.calls - before_calls
    redis_spent = await script_us(redis) - before_redis
    for job_id in jobs:
        await ledger.release(redis, job_id, 300)
    return spent / len(jobs), redis_spent / len(jobs), calls / len(jobs)


async def main(requests: int, runs: int) -> None:
    limits = Limits(
        requests_per_minute=_MANY, requests_per_day=_MANY, tokens_per_minute=_MANY, tokens_per_day=_MANY, concurrency=_MANY
    )
    budget = (Budget(usd=Decimal(1_000_000)),)
    paced = Limits(requests_per_minute=_MANY, tokens_per_minute=_MANY)
    key = paced.model_copy(update={"concurrency": _MANY})
    cases: dict[str, Policies] = {
        "none": (Policy(),) * 5,
        "usual": (
            Policy(budgets=budget),
            Policy(limits=paced, budgets=budget),
            Policy(budgets=budget),
            Policy(),
            Policy(limits=key, budgets=budget),
        ),
        "all": (Policy(limits=limits, budgets=budget),) * 5,
    }
    print(f"{runs} runs of {requests} requests each; medians (smallest to largest), µs of CPU a request")
    with tempfile.TemporaryDirectory(prefix="sluice-admission-") as folder:
        port = choose_ports(Path(folder), ["redis"])["redis"]
        child = await start_redis(Path(folder), port)
        redis = CountingRedis(f"redis://127.0.0.1:{port}", 2.0)
        try:
            await ledger.open_ledger(redis, "benchmark", {}, {})
            for name, policies in cases.items():
                for at_once in (1, 64):
                    found = [await measure(redis, policies, requests, at_once) for _ in range(runs)]
                    ours, theirs, trips = (sorted(column) for column in zip(*found, strict=True))
                    print(
                        f"limits: {name:5}  at once: {at_once:2}  ingress {statistics.median(ours):6.1f} "
                        f"({ours[0]:.1f} to {ours[-1]:.1f})  Redis {statistics.median(theirs):6.1f} "
                        f"({theirs[0]:.1f} to {theirs[-1]:.1f})  round trips {trips[-1]:.2f}"
                    )
        finally:
            await redis.close()
            await child.stop()


if __name__ == "__main__":
    given = [int(word) for word in sys.argv[1:]]
    asyncio.run(main(*(given + [2_000, 5][len(given) :])))
