"""A repeated prompt costs nothing; a card number never reaches a provider. Both by the policy of whoever asks."""

from decimal import Decimal

import httpx
import openai
import pytest
from openai.types.chat import ChatCompletionChunk

from benchmarks.mock_answers import answer_text
from tests.fakes.recorder import Recorder
from tests.system import Provider, System, Team, chat, cost_usd, prompt, until

CARD = "4111 1111 1111 1111"
CHAT = "/v1/chat/completions"
NO_CACHE = {"cache-control": "no-cache"}
NO_STORE = {"cache-control": "no-store"}


@pytest.fixture(scope="module")
async def team(system: System) -> Team:
    return await system.create_team("cached")


async def ask(client: httpx.AsyncClient, body: dict[str, object], headers: dict[str, str] | None = None) -> httpx.Response:
    answer = await client.post(CHAT, json=body, headers=headers)
    assert answer.status_code == 200, answer.text
    return answer


async def streamed(client: openai.AsyncOpenAI, text: str) -> list[ChatCompletionChunk]:
    """A stream's chunks, to its end."""
    stream = await client.chat.completions.create(model="mock", messages=[{"role": "user", "content": text}], stream=True)
    return [chunk async for chunk in stream]


async def ask_until_hit(client: httpx.AsyncClient, body: dict[str, object]) -> tuple[httpx.Response, list[httpx.Response]]:
    """The first answer from the cache, and the misses before it: an entry is made when the completion has been read."""
    misses: list[httpx.Response] = []

    async def hit() -> httpx.Response | None:
        answer = await ask(client, body)
        if answer.headers["x-sluice-cache"] == "hit":
            return answer
        misses.append(answer)
        return None

    return await until(hit), misses


async def test_a_repeated_prompt_is_answered_by_the_cache_and_costs_nothing(
    team: Team, system: System, provider: Provider
) -> None:
    marker = prompt("repeated")
    async with team.http() as client:
        hit, misses = await ask_until_hit(client, chat("mock", user=marker))
    assert hit.content in [miss.content for miss in misses]
    assert len(await provider.entries(marker=marker)) == len(misses)
    assert Decimal(hit.headers["x-sluice-cost-usd"]) == 0
    assert int(hit.headers["age"]) >= 0
    row = await system.job(hit.headers["x-sluice-job"])
    assert (row["status"], row["cache"], row["cost_usd"]) == ("completed", "hit", 0)
    assert row["saved_usd"] == cost_usd(1, 12)
    assert await system.attempts(row["job_id"]) == []


async def test_a_repeated_stream_is_the_same_stream(team: Team, provider: Provider) -> None:
    marker, body = prompt("stream"), chat("mock", stream=True, stream_options={"include_usage": True})
    async with team.http() as client:
        hit, misses = await ask_until_hit(client, body | {"user": marker})
    assert data(hit) in [data(miss) for miss in misses]
    assert hit.text.endswith("data: [DONE]\n\n")
    assert len(await provider.entries(marker=marker)) == len(misses)


def data(answer: httpx.Response) -> list[str]:
    """What the events say: their ids name the job."""
    return [line for line in answer.text.split("\n") if line.startswith("data:")]


async def test_what_differs_in_anything_that_matters_is_asked_again(team: Team) -> None:
    body = chat("mock")
    async with team.http() as client:
        await ask_until_hit(client, body)
        for other in ({"temperature": 0.5}, {"seed": 1}, {"model": "mock-latency-50"}, {"a_member_of_tomorrow": 1}):
            assert (await ask(client, body | other)).headers["x-sluice-cache"] == "miss"


async def test_no_store_neither_reads_nor_keeps(team: Team, provider: Provider) -> None:
    marker, body = prompt("no-store"), chat("mock")
    async with team.http() as client:
        for _ in range(2):
            assert (await ask(client, body | {"user": marker}, NO_STORE)).headers["x-sluice-cache"] == "bypass"
        assert (await ask(client, body | {"user": marker})).headers["x-sluice-cache"] == "miss"
    assert len(await provider.entries(marker=marker)) == 3


async def test_no_cache_asks_anew_and_keeps_the_new_answer(team: Team) -> None:
    body = chat("mock")
    async with team.http() as client:
        await ask_until_hit(client, body)
        fresh = await ask(client, body, NO_CACHE)
        assert fresh.headers["x-sluice-cache"] == "bypass"

        async def new_one() -> bool:
            return (await ask(client, body)).content == fresh.content

        assert await until(new_one)


async def test_a_kept_answer_ends_with_its_time_to_live(team: Team) -> None:
    body, brief = chat("mock"), {"x-sluice-cache-ttl": "1"}
    async with team.http() as client:
        await ask(client, body, brief)

        async def asked_anew() -> bool:
            return (await ask(client, body)).headers["x-sluice-cache"] == "miss"

        assert await until(asked_anew)


async def test_another_team_never_gets_the_answer(team: Team, system: System) -> None:
    other, body = await system.create_team_under("other", {}), chat("mock")
    async with team.http() as ours, other.http() as theirs:
        hit, _ = await ask_until_hit(ours, body)
        foreign = await ask(theirs, body)
    assert foreign.headers["x-sluice-cache"] == "miss"
    assert foreign.content != hit.content


async def test_errors_are_not_kept(team: Team, provider: Provider) -> None:
    marker, body = prompt("errors"), chat("mock-400")
    async with team.http() as client:
        for _ in range(2):
            assert (await client.post(CHAT, json=body | {"user": marker})).status_code == 400
    assert len(await provider.entries(marker=marker)) == 2


async def test_a_team_without_a_cache(system: System) -> None:
    team, body = await system.create_team_under("uncached", {"cache": {"enabled": False}}), chat("mock")
    async with team.http() as client:
        for _ in range(3):
            assert (await ask(client, body)).headers["x-sluice-cache"] == "bypass"


@pytest.mark.parametrize("card", [CARD, "4111111111111111", "4111-1111-1111-1111", "3782 822463 10005"])
async def test_a_card_number_is_redacted_before_it_reaches_the_provider(
    team: Team, system: System, recorder: Recorder, card: str
) -> None:
    user = prompt("card")
    async with team.http() as client:
        answer = await ask(client, chat("recorded", f"Charge {card} now. {user}", user=user))
    (seen,) = recorder.with_user(user)
    assert seen.body["messages"] == [{"role": "user", "content": f"Charge [CARD] now. {user}"}]
    assert answer.headers["x-sluice-guard"] == "redact; card=1"
    row = await system.job(answer.headers["x-sluice-job"])
    assert (row["status"], row["guard_verdict"], row["guard_findings"]) == ("completed", "redact", ["card"])


async def test_a_card_number_is_found_wherever_it_stands(team: Team, recorder: Recorder) -> None:
    user = prompt("hidden")
    call = {"id": "c", "type": "function", "function": {"name": "pay", "arguments": f'{{"card": "{CARD}"}}'}}
    messages: list[dict[str, object]] = [
        {"role": "system", "content": f"You know {CARD}."},
        {"role": "user", "content": [{"type": "text", "text": f"and 5555 5555 5555 4444, {user}"}]},
        {"role": "assistant", "content": None, "tool_calls": [call]},
    ]
    async with team.http() as client:
        answer = await ask(client, {"model": "recorded", "messages": messages, "user": user})
    (seen,) = recorder.with_user(user)
    assert "4111" not in str(seen.body)
    assert "5555" not in str(seen.body)
    assert str(seen.body).count("[CARD]") == 3
    assert answer.headers["x-sluice-guard"] == "redact; card=3"


async def test_what_only_looks_like_a_card_number_passes(team: Team, recorder: Recorder) -> None:
    user = prompt("order")
    async with team.http() as client:
        answer = await ask(client, chat("recorded", f"Order 4111 1111 1111 1112, {user}", user=user))
    (seen,) = recorder.with_user(user)
    assert "4111 1111 1111 1112" in str(seen.body)
    assert answer.headers["x-sluice-guard"] == "allow"


async def test_a_team_that_blocks_card_numbers(system: System, recorder: Recorder) -> None:
    team, user = await system.create_team_under("blocking", {"guard": {"actions": {"card": "block"}}}), prompt("blocked")
    async with team.openai() as client:
        with pytest.raises(openai.BadRequestError) as caught:
            await client.chat.completions.create(
                model="recorded", messages=[{"role": "user", "content": f"Charge {CARD}"}], user=user
            )
        assert (await client.chat.completions.create(model="mock", messages=[{"role": "user", "content": user}])).choices
    error = caught.value
    assert error.code == "content_filter"
    assert "payment card number" in error.message
    assert "4111" not in error.message
    assert recorder.with_user(user) == []
    row = await system.job(error.response.headers["x-sluice-job"])
    assert (row["status"], row["guard_verdict"], row["cost_usd"]) == ("failed", "block", 0)
    assert row["error_type"] == "content_filter"
    assert await system.attempts(row["job_id"]) == []


async def test_a_blocked_stream_is_an_error(system: System) -> None:
    team = await system.create_team_under("blocking", {"guard": {"actions": {"card": "block"}}})
    async with team.openai() as client:
        with pytest.raises(openai.APIError) as caught:
            await streamed(client, f"Charge {CARD}")
    assert caught.value.code == "content_filter"


async def test_a_team_that_lets_card_numbers_pass(system: System, recorder: Recorder) -> None:
    user, team = prompt("allowed"), await system.create_team_under("open", {"guard": {"actions": {"card": "allow"}}})
    async with team.http() as client:
        await ask(client, chat("recorded", f"Charge {CARD}", user=user))
    (seen,) = recorder.with_user(user)
    assert CARD in str(seen.body)


async def test_the_cache_keeps_what_was_redacted_and_not_the_card(team: Team) -> None:
    """Two cards in the same words are one question once both are redacted."""
    text = prompt("Is this a Visa?")
    async with team.http() as client:
        await ask_until_hit(client, chat("mock", f"{text} {CARD}"))
        other = await ask(client, chat("mock", f"{text} 4012 8888 8888 1881"))
    assert other.headers["x-sluice-cache"] == "hit"
    assert other.json()["choices"][0]["message"]["content"] == answer_text(f"{text} [CARD]")
