"""Metrics of a running system: few, whatever is asked for."""

import asyncio

import aiohttp

from tests.system import System, chat, prompt

NAMES = (
    "gen_ai_client_token_usage_bucket",
    "gen_ai_client_operation_duration_seconds_bucket",
    "gen_ai_client_operation_time_to_first_chunk_seconds_bucket",
    "gen_ai_client_operation_time_per_output_chunk_seconds_bucket",
    "gen_ai_server_request_duration_seconds_bucket",
    "gen_ai_server_time_to_first_token_seconds_bucket",
    "gen_ai_server_time_per_output_token_seconds_bucket",
    "sluice_queue_seconds_bucket",
    "sluice_lane_depth",
    "sluice_lane_age_seconds",
    "sluice_cost_usd_total",
    'sluice_errors_total{owner="caller",status="4xx"}',
    'sluice_errors_total{owner="provider",status="5xx"}',
    'sluice_http_requests_total{method="POST",route="/v1/chat/completions",status="2xx"}',
)


async def exposition(system: System) -> str:
    async with system.admin() as client:
        return (await client.get("/metrics")).text


async def test_thousands_of_junk_names_and_keys_make_no_new_series_and_errors_have_owners(system: System) -> None:
    team = await system.create_team("counted")
    async with team.http() as client:
        for body in (chat("mock", prompt()), chat("mock", prompt(), stream=True), chat("mock-500", prompt())):
            await client.post("/v1/chat/completions", json=body)
    url, limit = f"{system.url}/v1/chat/completions", asyncio.Semaphore(32)
    async with aiohttp.ClientSession() as http:

        async def send(number: int) -> int:
            key, model = (team.key, f"junk-{number}") if number % 2 else (f"sk-sluice-junk{number}", "mock")
            async with limit, http.post(url, json=chat(model, "x"), headers={"authorization": f"Bearer {key}"}) as answer:
                return answer.status

        assert {await send(0), await send(1)} == {401, 404}
        before = await exposition(system)
        assert set(await asyncio.gather(*map(send, range(2, 2_000)))) == {401, 404}
    after = await exposition(system)
    grown = {row.rpartition(" ")[0] for row in after.splitlines()} - {row.rpartition(" ")[0] for row in before.splitlines()}
    # What goes on beside it may show a metric for the first time.
    assert len(grown) <= 25
    assert "junk" not in after
    assert [name for name in NAMES if f"\n{name}" not in after] == []
