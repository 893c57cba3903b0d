"""Bills worked out by hand, from what a provider says to the header, the books and the budget.

Every deployment here costs 3 micro-dollars a token in, 15 out, 0.3 from a cache, 3.75 into one (6 for an hour); half of that
in the tier `batch`, twice in `priority`. All amounts below are written in micro-dollars.
"""

import asyncio
import json
import os
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from infra.kafka.broker import Kafka
from infra.kafka.table import Control
from schemas.control import AwsSettings, Deployment, Hedge, Model, Price, SomePrices
from tests.kafka_client import bearer, line, publish
from tests.mocks.bedrock import ACCESS_KEY, REGION, SECRET_KEY, MockBedrock, mock_bedrock
from tests.mocks.serving import Serving
from tests.system import System, Team, chat, until

CHAT = "/v1/chat/completions"
TEXT = "one two three four"
"""4 tokens, and 7 of a chat around them: 3 of the message, 1 of its role, 3 of the answer's beginning."""
TEXT_TOKENS = 11

MICRO = Decimal("0.000001")


def tier(factor: Decimal) -> SomePrices:
    return SomePrices(
        input_usd=3 * MICRO * factor,
        output_usd=15 * MICRO * factor,
        cache_read_usd=Decimal("0.3") * MICRO * factor,
        cache_write_usd=Decimal("3.75") * MICRO * factor,
    )


PRICE = Price(
    input_usd=3 * MICRO,
    output_usd=15 * MICRO,
    cache_read_usd=Decimal("0.3") * MICRO,
    cache_write_usd=Decimal("3.75") * MICRO,
    cache_write_1h_usd=6 * MICRO,
    tiers={"batch": tier(Decimal("0.5")), "priority": tier(Decimal(2))},
)

Answer = Callable[[], Response]


class Scripted:
    """A provider that answers what it was told to, whoever asks in whichever form; each answer once, the last one for ever.

    `arrived` counts the calls for a model; `over` is set when one of its endless streams has been closed.
    """

    def __init__(self) -> None:
        self.answers: dict[str, list[Answer]] = {}
        self.arrived: dict[str, int] = {}
        self.app = Starlette(routes=[Route("/{path:path}", self._serve, methods=["POST"])])

    async def _serve(self, request: Request) -> Response:
        body = await request.json()
        name = body.get("model") or request.url.path.rpartition("/")[2].partition(":")[0]
        self.arrived[name] = self.arrived.get(name, 0) + 1
        left = self.answers[name]
        return (left.pop(0) if len(left) > 1 else left[0])()


def says(body: Mapping[str, object], status: int = 200) -> Answer:
    return lambda: JSONResponse(dict(body), status)


def openai(given: int, made: int, cached: int = 0, **more: object) -> Answer:
    """A whole answer of OpenAI's."""
    message = {"role": "assistant", "content": "Well.", "refusal": None}
    usage: dict[str, object] = {"prompt_tokens": given, "completion_tokens": made, "total_tokens": given + made}
    usage |= {"prompt_tokens_details": {"cached_tokens": cached}} if cached else {}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}
    head = {"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "m"}
    return says({**head, "choices": [choice], "usage": usage, **more})


def refuses(status: int, **usage: int) -> Answer:
    """An error of OpenAI's, perhaps with usage."""
    error = {"message": "no", "type": "server_error" if status >= 500 else "requests", "param": None, "code": None}
    return says({"error": error, **({"usage": usage} if usage else {})}, status)


def embedded(given: int) -> Answer:
    data = [{"object": "embedding", "index": 0, "embedding": [0.5, 0.25]}]
    return says({"object": "list", "data": data, "model": "m", "usage": {"prompt_tokens": given, "total_tokens": given}})


def streams(words: int, usage: Mapping[str, int] | None = None, *, ends: bool = True) -> Answer:
    """A stream of so many words, `usage` with each of them; it ends, or goes silent."""

    async def events() -> AsyncIterator[str]:
        for n in range(words):
            delta = {"content": " word"} if n else {"role": "assistant", "content": "word"}
            chunk: dict[str, object] = {"choices": [{"index": 0, "delta": delta, "finish_reason": None}]}
            chunk |= {"usage": usage} if usage else {}
            yield _event(chunk)
        if not ends:
            await asyncio.sleep(30)
        yield _event({"choices": [{"index": 0, "delta": dict[str, str](), "finish_reason": "stop"}]})
        yield "data: [DONE]\n\n"

    return lambda: StreamingResponse(events(), media_type="text/event-stream")


def silent() -> Answer:
    """Takes a call, and never answers."""

    async def nothing() -> AsyncIterator[str]:
        await asyncio.sleep(30)
        yield ""

    return lambda: StreamingResponse(nothing(), media_type="application/json")


def later(seconds: float, answer: Answer) -> Answer:
    """A whole answer that comes so late."""

    async def waiting() -> AsyncIterator[bytes]:
        await asyncio.sleep(seconds)
        yield bytes(answer().body)

    return lambda: StreamingResponse(waiting(), media_type="application/json")


def _event(chunk: Mapping[str, object]) -> str:
    head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    return f"data: {json.dumps({**head, **chunk})}\n\n"


@dataclass
class Office:
    """The system, a provider that says what it is told to, and models that lead there."""

    system: System
    control: Control
    scripted: Scripted
    base_url: str
    known: set[str] = field(default_factory=set[str])

    async def model(self, name: str, *answers: Answer, provider: str = "openai", **more: Any) -> str:
        """A model of one deployment that gives these answers."""
        deployment = self.deployment(name, *answers, provider=provider, **more)
        await self.control.write(Model(name=name, deployments=(deployment,)))
        return name

    def deployment(self, name: str, *answers: Answer, provider: str = "openai", **more: Any) -> Deployment:
        self.scripted.answers[name] = list(answers)
        base = self.base_url + ("/v1" if provider == "openai" else "")
        told: dict[str, Any] = {"api_base": base, "api_key": "file:bills", "price": PRICE, **more}
        return Deployment(id=f"{name}@scripted", provider=provider, model=name, **told)

    async def called(self, name: str, times: int = 1) -> None:
        """Returns when the provider was called so often."""

        async def enough() -> bool:
            return self.scripted.arrived.get(name, 0) >= times

        assert await until(enough)

    async def team(self, **policy: object) -> Team:
        budgets = [{"usd": "100", "period": "total"}]
        return await self.system.create_team_under("bills", {"budgets": budgets, "cache": {"enabled": False}, **policy})

    async def billed(self, team: Team, *jobs: Sequence[tuple[str, str, str]], saved: str = "0") -> list[dict[str, Any]]:
        """Checks the bill: of each job its calls by status, source of the usage, and micro-dollars. Gives the usage rows.

        In the books as attempts and as jobs, and at the budget, where nothing stays held.
        """
        rows = await self.system.usage(team.name, len(jobs))
        assert len(rows) == len(jobs)
        total = Decimal(0)
        for row, calls in zip(rows, jobs, strict=True):
            attempts = await self.system.attempts(row["job_id"])
            found = [(one["status"], one["usage_source"], Decimal(str(one["cost_usd"])) / MICRO) for one in attempts]
            assert found == [(status, source, Decimal(micro)) for status, source, micro in calls], row
            cost = sum((Decimal(micro) * MICRO for _, _, micro in calls), Decimal(0))
            assert Decimal(str(row["cost_usd"])) == cost
            total += cost
        assert sum((Decimal(str(row["saved_usd"])) for row in rows), Decimal(0)) / MICRO == Decimal(saved)

        async def at_the_budget() -> bool:
            async with self.system.admin() as admin:
                told = (await admin.get("/admin/v1/budgets/explain", params={"team": team.name})).json()
            (budget,) = told["budgets"]
            return (Decimal(budget["spent_usd"]), Decimal(budget["held_usd"])) == (total, 0)

        assert await until(at_the_budget)
        return rows


@pytest.fixture(scope="module")
async def office(system: System) -> AsyncGenerator[Office]:
    secret = system.data_dir / "secrets" / "bills"
    secret.parent.mkdir(exist_ok=True)
    secret.write_text("sk-bills")
    os.chmod(secret, 0o600)
    kafka, scripted = Kafka(system.kafka), Scripted()
    await kafka.start()
    control = Control(kafka)
    await control.start()
    async with Serving(scripted.app) as serving:
        yield Office(system, control, scripted, serving.base_url)
    await control.stop()
    await kafka.stop()


async def ask(team: Team, model: str, path: str = CHAT, status: int = 200, **more: Any) -> dict[str, str]:
    """The headers of an answer, once the model is known everywhere."""
    body = chat(model, TEXT) if path == CHAT else {"model": model, "input": TEXT}
    async with team.http() as client:

        async def answered() -> Any:
            answer = await client.post(path, json=body | more)
            return None if answer.status_code == 404 else answer

        answer = await until(answered)
    assert answer.status_code == status, answer.text
    return dict(answer.headers)


ANTHROPIC = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "m",
    "content": [{"type": "text", "text": "Well."}],
    "stop_reason": "end_turn",
    "stop_sequence": None,
}
GEMINI = {"candidates": [{"content": {"role": "model", "parts": [{"text": "Well."}]}, "finishReason": "STOP", "index": 0}]}

WHOLE: Mapping[str, tuple[str, Answer, str]] = {
    # 1000 x 3 + 200 x 15
    "plain": ("openai", openai(1000, 200), "6000"),
    # 200 x 3 + 800 x 0.3 + 100 x 15
    "cached": ("openai", openai(1000, 100, cached=800), "2340"),
    # What a provider says is nothing is nothing.
    "zero": ("openai", openai(0, 0), "0"),
    # (1000 x 3 + 200 x 15) / 2: its Batch API served it.
    "batch-tier": ("openai", openai(1000, 200, service_tier="batch"), "3000"),
    # (1000 x 3 + 200 x 15) x 2
    "priority-tier": ("openai", openai(1000, 200, service_tier="priority"), "12000"),
    # 100 x 3 + 400 x 0.3 + 200 x 3.75 + 100 x 6 + 50 x 15: its input tokens come beside those of the cache.
    "anthropic": (
        "anthropic",
        says(
            {
                **ANTHROPIC,
                "usage": {
                    "input_tokens": 100,
                    "cache_read_input_tokens": 400,
                    "cache_creation_input_tokens": 300,
                    "cache_creation": {"ephemeral_5m_input_tokens": 200, "ephemeral_1h_input_tokens": 100},
                    "output_tokens": 50,
                },
            }
        ),
        "2520",
    ),
    # 400 x 3 + 100 x 0.3 + (40 + 60) x 15: thoughts come beside what is said.
    "gemini": (
        "gemini",
        says(
            {
                **GEMINI,
                "usageMetadata": {
                    "promptTokenCount": 500,
                    "cachedContentTokenCount": 100,
                    "candidatesTokenCount": 40,
                    "thoughtsTokenCount": 60,
                    "totalTokenCount": 600,
                },
            }
        ),
        "2730",
    ),
}


@pytest.mark.parametrize("name", WHOLE)
async def test_a_whole_answer(office: Office, name: str) -> None:
    provider, answer, micro = WHOLE[name]
    team, model = await office.team(), await office.model(f"bill-{name}", answer, provider=provider)
    headers = await ask(team, model)
    assert Decimal(headers["x-sluice-cost-usd"]) / MICRO == Decimal(micro)
    await office.billed(team, [("completed", "provider", micro)])


@pytest.mark.parametrize("asked", ["flex", "priority"])
async def test_the_tier_that_was_served_is_billed_whatever_was_asked_for(office: Office, asked: str) -> None:
    team = await office.team()
    model = await office.model(f"bill-downgraded-{asked}", openai(1000, 200, service_tier="default"))
    assert Decimal((await ask(team, model, service_tier=asked))["x-sluice-cost-usd"]) == 6000 * MICRO
    (row,) = await office.billed(team, [("completed", "provider", "6000")])
    assert row["service_tier"] == "default"


async def test_our_batch_lane_over_live_calls_costs_the_full_price(office: Office) -> None:
    team, model = await office.team(), await office.model("bill-batch-lane", openai(1000, 200))
    await ask(team, model)
    token = await office.system.job_token(team)
    await publish(office.system.kafka, "sluice.jobs.batch", [line("one", chat(model, TEXT))], bearer(token))
    rows = await office.billed(team, *[[("completed", "provider", "6000")]] * 2)
    assert sorted(row["lane"] for row in rows) == ["batch", "interactive"]


async def test_embeddings(office: Office) -> None:
    team, model = await office.team(), await office.model("bill-embeddings", embedded(50))
    headers = await ask(team, model, "/v1/embeddings")
    # 50 x 3
    assert Decimal(headers["x-sluice-cost-usd"]) / MICRO == 150
    await office.billed(team, [("completed", "provider", "150")])


async def test_a_retry_that_succeeds_costs_what_it_costs(office: Office) -> None:
    team, model = await office.team(), await office.model("bill-retried", refuses(500), openai(1000, 200))
    headers = await ask(team, model)
    assert Decimal(headers["x-sluice-cost-usd"]) / MICRO == 6000
    await office.billed(team, [("failed", "none", "0"), ("completed", "provider", "6000")])


async def test_a_refusal_that_tells_of_usage_is_billed_beside_the_fallback(office: Office) -> None:
    team, rest = await office.team(), await office.model("bill-rest", openai(1000, 200))
    full = office.deployment("bill-full", refuses(429, prompt_tokens=70, completion_tokens=0, total_tokens=70))
    await office.control.write(Model(name="bill-full", deployments=(full,), fallbacks=(rest,), num_retries=0))
    headers = await ask(team, "bill-full")
    # 70 x 3 + (1000 x 3 + 200 x 15)
    assert Decimal(headers["x-sluice-cost-usd"]) / MICRO == 6210
    await office.billed(team, [("failed", "provider", "210"), ("completed", "provider", "6000")])


async def test_an_exact_hit_costs_nothing_and_saves_what_its_answer_cost(office: Office) -> None:
    team = await office.team(cache={"enabled": True})
    model = await office.model("bill-cached-answer", openai(1000, 200))
    first, again = [await ask(team, model, temperature=0) for _ in range(2)]
    assert (first["x-sluice-cache"], again["x-sluice-cache"]) == ("miss", "hit")
    assert Decimal(again["x-sluice-cost-usd"]) == 0
    await office.billed(team, [("completed", "provider", "6000")], [], saved="6000")


CUT: Mapping[str, tuple[Answer, str, str]] = {
    # Estimated: 11 x 3 + 5 words x 15
    "silent": (streams(5, ends=False), "estimated", "108"),
    # As told with the last word that came: 20 x 3 + 5 x 15
    "telling": (streams(5, {"prompt_tokens": 20, "completion_tokens": 5, "total_tokens": 25}, ends=False), "provider", "135"),
}


@pytest.mark.parametrize("name", CUT)
async def test_a_stream_that_its_client_leaves(office: Office, name: str) -> None:
    answer, source, micro = CUT[name]
    team, model = await office.team(), await office.model(f"bill-cut-{name}", streams(1), answer)
    await ask(team, model, stream=True, max_tokens=1)
    async with team.openai() as client:
        messages: Any = [{"role": "user", "content": TEXT}]
        stream = await client.chat.completions.create(model=model, messages=messages, stream=True)
        words = 0
        async for chunk in stream:
            words += bool(chunk.choices[0].delta.content)
            if words == 5:
                break
        await stream.close()
    # The first one came to its end untold: 11 x 3 + 1 x 15
    await office.billed(team, [("completed", "estimated", "48")], [("cancelled", source, micro)])


async def test_a_stream_that_is_drained_costs_what_its_provider_says_in_the_end(office: Office) -> None:
    """AWS bills the whole answer, whoever has left."""
    async with mock_bedrock() as bedrock:
        model = await bedrock_model(office, bedrock)
        team = await office.team()
        await ask(team, model)
        async with team.openai() as client:
            messages: Any = [{"role": "user", "content": TEXT}]
            stream = await client.chat.completions.create(model=model, messages=messages, stream=True)
            async for _ in stream:
                break
            await stream.close()
        # 11 x 3 + 7 x 15, both times
        rows = await office.system.usage(team.name, 2)
        assert [Decimal(str(row["cost_usd"])) / MICRO for row in rows] == [138, 138]


async def bedrock_model(office: Office, bedrock: MockBedrock) -> str:
    folder = office.system.data_dir / "secrets"
    for name, secret in (("bills_aws", SECRET_KEY), ("bills_aws_id", ACCESS_KEY)):
        (folder / name).write_text(secret)
        os.chmod(folder / name, 0o600)
    aws = AwsSettings(access_key_id="file:bills_aws_id", secret_access_key="file:bills_aws")
    deployment = Deployment(
        id="bill-bedrock@mock",
        provider="bedrock",
        model="amazon.nova-pro-v1:0",
        api_base=bedrock.base_url,
        region=REGION,
        aws=aws,
        price=PRICE,
        on_disconnect="drain",
    )
    await office.control.write(Model(name="bill-bedrock", deployments=(deployment,)))
    return "bill-bedrock"


async def test_a_job_that_is_cancelled_in_its_call_costs_its_input(office: Office) -> None:
    team, model = await office.team(), await office.model("bill-cancelled", openai(1000, 200), silent())
    await ask(team, model)
    async with team.http() as client:
        accepted = await client.post(CHAT, json=chat(model, TEXT), headers={"prefer": "respond-async"})
        assert accepted.status_code == 202
        await office.called(model, 2)
        await client.delete(accepted.headers["location"])
    # 11 x 3
    await office.billed(team, [("completed", "provider", "6000")], [("cancelled", "estimated", "33")])


async def test_a_job_that_is_cancelled_before_its_call_costs_nothing(office: Office) -> None:
    """It ends when its time would have come."""
    team, model = await office.team(), await office.model("bill-never-called", openai(1000, 200))
    await ask(team, model)
    async with team.http() as client:
        headers = {"prefer": "respond-async", "x-sluice-not-before": str(int(time.time()) + 3)}
        accepted = await client.post(CHAT, json=chat(model, TEXT), headers=headers)
        assert accepted.status_code == 202, accepted.text
        await client.delete(accepted.headers["location"])
    rows = await office.billed(team, [("completed", "provider", "6000")], [])
    assert rows[1]["status"] == "cancelled"


async def test_a_deadline_that_passes_in_the_call_costs_its_input(office: Office) -> None:
    team, model = await office.team(), await office.model("bill-late", openai(1000, 200), silent())
    await ask(team, model)
    async with team.http() as client:
        answer = await client.post(CHAT, json=chat(model, TEXT), headers={"x-sluice-timeout": "1"})
    assert answer.status_code == 504
    # 11 x 3
    (_, row) = await office.billed(team, [("completed", "provider", "6000")], [("cancelled", "estimated", "33")])
    assert row["status"] == "expired"


@pytest.mark.parametrize("on_disconnect", ["abort", "drain"])
async def test_the_loser_of_a_hedge_is_billed_for_what_it_was_asked(office: Office, on_disconnect: Any) -> None:
    """It is cancelled before it says what it costs: its input at least, and the winner's words where all is billed anyhow."""
    name = f"bill-hedged-{on_disconnect}"
    slow = office.deployment(f"{name}-slow", later(20, openai(1000, 200)), on_disconnect=on_disconnect, order=0)
    quick = office.deployment(f"{name}-quick", openai(1000, 200), order=1)
    model = Model(name=name, deployments=(slow, quick), hedge=Hedge(after_s=0.1, most_share=1))
    await office.control.write(model)
    team = await office.team()
    headers = await ask(team, name)
    # abort: 11 x 3; drain: 11 x 3 + the 2 tokens of "Well." x 15
    lost = {"abort": "33", "drain": "63"}[on_disconnect]
    assert Decimal(headers["x-sluice-cost-usd"]) / MICRO == 6000 + Decimal(lost)
    await office.billed(team, [("cancelled", "estimated", lost), ("completed", "provider", "6000")])
