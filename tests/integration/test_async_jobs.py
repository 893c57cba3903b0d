"""Jobs that outlive their connection: asked for asynchronously, followed, resumed, listed, cancelled, sent again."""

import asyncio
import json
import time
from collections.abc import AsyncGenerator
from typing import Any

import httpx
import pytest

from tests.integration.endpoints import receiving
from tests.system import Provider, System, Team, chat, prompt, until

ASYNC = {"prefer": "respond-async"}
DRIP = "mock-words-200-chunkms-50"


@pytest.fixture(scope="module")
async def team(system: System) -> Team:
    return await system.create_team("async")


@pytest.fixture
async def client(team: Team) -> AsyncGenerator[httpx.AsyncClient]:
    async with team.http() as client:
        yield client


async def begin(client: httpx.AsyncClient, body: dict[str, object], **headers: str) -> str:
    """The URL of an asynchronous job."""
    answer = await client.post("/v1/chat/completions", json=body, headers=ASYNC | headers)
    assert answer.status_code == 202, answer.text
    assert answer.headers["preference-applied"] == "respond-async"
    assert answer.headers["location"] == f"/v1/jobs/{answer.json()['id']}"
    return answer.headers["location"]


async def ended(client: httpx.AsyncClient, url: str) -> dict[str, Any]:
    async def has_ended() -> dict[str, Any] | None:
        job = (await client.get(url)).json()
        return job if job["status"] not in ("queued", "in_progress") else None

    return await until(has_ended)


async def read_events(client: httpx.AsyncClient, url: str, *, after: str = "", most: int = 10**9) -> list[tuple[str, str]]:
    """(id, data) of the events of a job, at most so many."""
    headers = {"last-event-id": after} if after else {}
    events: list[tuple[str, str]] = []
    number = ""
    async with client.stream("GET", f"{url}/events", headers=headers) as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        async for line in stream.aiter_lines():
            if line.startswith("id: "):
                number = line[4:]
            elif line.startswith("data: "):
                events.append((number, line[6:]))
                number = ""
                if len(events) >= most:
                    break
    return events


async def test_an_answer_is_kept_for_who_asks_later(client: httpx.AsyncClient) -> None:
    url = await begin(client, chat("mock", text := prompt()))
    job = await ended(client, url)
    assert job["status"] == "completed"
    assert job["status_code"] == 200
    assert job["result"]["choices"][0]["message"]["content"]
    assert job["usage"]["total_tokens"] > 0
    assert job["attempts"] == 1
    assert text not in str({name: value for name, value in job.items() if name != "result"})


async def test_a_provider_that_fails_is_told_as_http_would(client: httpx.AsyncClient) -> None:
    job = await ended(client, await begin(client, chat("mock-400")))
    assert (job["status"], job["status_code"]) == ("failed", 400)
    assert set(job["error"]) == {"message", "type", "param", "code"}
    assert job["result"] is None


async def test_who_would_wait_a_little_gets_the_answer_itself(client: httpx.AsyncClient) -> None:
    at_once = {"prefer": "respond-async, wait=20"}
    answer = await client.post("/v1/chat/completions", json=chat("mock"), headers=at_once)
    assert answer.status_code == 200
    assert answer.json()["object"] == "chat.completion"
    later = await client.post("/v1/chat/completions", json=chat("mock-latency-5000"), headers={"prefer": "respond-async, wait=1"})
    assert later.status_code == 202
    await client.delete(later.headers["location"])


async def test_bad_requests_are_refused_before_they_become_jobs(client: httpx.AsyncClient) -> None:
    answer = await client.post("/v1/chat/completions", json={"model": "mock"}, headers=ASYNC)
    assert answer.status_code == 400
    for name, value in (
        ("x-sluice-deadline", "yesterday"),
        ("x-sluice-deadline", "2020-01-01T00:00:00Z"),
        ("x-sluice-not-before", "-1"),
    ):
        refused = await client.post("/v1/chat/completions", json=chat("mock"), headers=ASYNC | {name: value})
        assert (refused.status_code, refused.json()["error"]["param"]) == (400, name)


async def test_events_of_a_plain_job_end_with_the_job(client: httpx.AsyncClient) -> None:
    url = await begin(client, chat("mock-latency-50"))
    [(_, data)] = await read_events(client, url)
    assert '"status": "completed"' in data
    assert await read_events(client, url) == [(f"{url.rpartition('/')[2]}:1", data)], "the same again after its end"


async def test_g17_a_stream_is_resumed_in_the_middle_without_a_gap_or_a_repetition(client: httpx.AsyncClient) -> None:
    url = await begin(client, chat(DRIP, stream=True))
    before = await read_events(client, url, most=30)
    after = await read_events(client, url, after=before[-1][0])
    assert after[-1] == ("", "[DONE]")
    job = await ended(client, url)
    whole = await read_events(client, url)
    assert before + after == whole
    numbers = [int(number.rpartition(":")[2]) for number, _ in whole[:-1]]
    assert numbers == list(range(1, len(whole)))
    assert job["result"]["choices"][0]["message"]["content"].count(" ") >= 199


async def test_a_synchronous_stream_can_be_followed_by_its_id_too(client: httpx.AsyncClient) -> None:
    async with client.stream("POST", "/v1/chat/completions", json=chat(DRIP, stream=True)) as stream:
        url = f"/v1/jobs/{stream.headers['x-sluice-job']}"
        others = asyncio.create_task(read_events(client, url))
        own = [line[6:] async for line in stream.aiter_lines() if line.startswith("data: ")]
    assert [data for _, data in await others] == own


async def test_a_cancelled_job_ends_the_call_of_the_provider(client: httpx.AsyncClient, provider: Provider) -> None:
    marker = prompt()
    url = await begin(client, chat("mock-latency-5000", user=marker))
    await until(lambda: provider.entries(marker=marker))
    job = (await client.delete(url)).json()
    assert job["status"] == "cancelled"

    async def is_closed() -> bool:
        [entry] = await provider.entries(marker=marker)
        return entry.outcome == "client_gone"

    assert await until(is_closed, timeout_s=2)
    assert (await client.delete(url)).json()["status"] == "cancelled", "again"


async def test_a_job_that_waits_for_its_time_can_be_cancelled_before_it(client: httpx.AsyncClient, provider: Provider) -> None:
    marker = prompt()
    soon = str(int(time.time()) + 4)
    url = await begin(client, chat("mock", user=marker), **{"x-sluice-not-before": soon})
    job = (await client.get(url)).json()
    assert (job["status"], job["not_before"]) == ("queued", int(soon))
    assert set(job["queue"]) == {"lane_depth", "lane_wait_s"}
    await client.delete(url)
    assert (await ended(client, url))["status"] == "cancelled"
    assert await provider.entries(marker=marker) == []


async def test_a_job_is_not_sent_out_before_its_time(client: httpx.AsyncClient, provider: Provider) -> None:
    marker, soon = prompt(), int(time.time()) + 2
    url = await begin(client, chat("mock", user=marker), **{"x-sluice-not-before": str(soon)})
    assert (await ended(client, url))["status"] == "completed"
    [entry] = await provider.entries(marker=marker)
    assert entry.at >= soon


async def test_a_list_is_filtered_and_paged(system: System) -> None:
    team = await system.create_team("listed")
    async with team.http() as client:
        urls = [await begin(client, chat(model)) for model in ("mock", "mock-400", "mock", "mock-400", "mock")]
        for url in urls:
            await ended(client, url)
        ids = [url.rpartition("/")[2] for url in reversed(urls)]
        first = (await client.get("/v1/jobs?limit=2")).json()
        assert ([job["id"] for job in first["data"]], first["has_more"]) == (ids[:2], True)
        rest = (await client.get(f"/v1/jobs?limit=10&after={first['last_id']}")).json()
        assert ([job["id"] for job in rest["data"]], rest["has_more"]) == (ids[2:], False)
        failed = (await client.get("/v1/jobs?status=failed")).json()
        assert [job["model"] for job in failed["data"]] == ["mock-400", "mock-400"]
        assert (await client.get("/v1/jobs?status=lost")).status_code == 400


async def test_g30_a_job_of_another_team_does_not_exist(system: System, client: httpx.AsyncClient) -> None:
    stranger = await system.create_team("stranger")
    url = await begin(client, chat("mock"))
    async with stranger.http() as other:
        answers = [await other.get(url), await other.delete(url), await other.get(f"{url}/events")]
        assert [answer.status_code for answer in answers] == [404, 404, 404]
        assert (await other.get("/v1/jobs")).json()["data"] == []


async def test_the_end_of_a_job_is_told_to_the_webhook_that_was_named(system: System) -> None:
    async with receiving() as receiver:
        policy = {"webhooks": {"internal": [f"127.0.0.1:{receiver.port}"]}}
        team = await system.create_team_under("hooked-jobs", policy)
        async with team.http() as client:
            url = await begin(client, chat("mock"), **{"x-sluice-webhook": f"http://127.0.0.1:{receiver.port}/jobs"})

            async def told() -> bool:
                return bool(receiver.posted)

            await until(told)
            event = json.loads(receiver.posted[0].body)
            assert (event["type"], event["data"]["id"]) == ("job.completed", url.rpartition("/")[2])
            assert receiver.posted[0].headers["webhook-signature"].startswith("v1,")
            assert (await client.get(url)).json()["status"] == "completed", "who is told finds it so"


@pytest.mark.parametrize(
    "target",
    ["http://127.0.0.1:1/", "https://169.254.169.254/latest/meta-data", "https://localhost/", "https://[::1]/", "ftp://x/"],
)
async def test_g32_a_webhook_that_leads_inside_is_refused_with_the_request(client: httpx.AsyncClient, target: str) -> None:
    answer = await client.post("/v1/chat/completions", json=chat("mock"), headers=ASYNC | {"x-sluice-webhook": target})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "x-sluice-webhook")


async def test_g13_the_same_key_is_one_job_with_one_answer(client: httpx.AsyncClient, provider: Provider) -> None:
    body, key = chat("mock-latency-50", user=(marker := prompt())), {"idempotency-key": prompt()}
    answers = await asyncio.gather(*(client.post("/v1/chat/completions", json=body, headers=key) for _ in range(50)))
    answers.append(await client.post("/v1/chat/completions", json=body, headers=key))
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.headers["x-sluice-job"] for answer in answers}) == 1
    assert len({answer.text for answer in answers}) == 1
    assert [answer.headers.get("idempotent-replayed") for answer in answers].count(None) == 1
    assert len(await provider.entries(marker=marker)) == 1


async def test_g13_a_stream_with_a_key_is_told_again_from_its_first_event(client: httpx.AsyncClient, provider: Provider) -> None:
    body, key = chat("mock", stream=True, user=(marker := prompt())), {"idempotency-key": prompt()}
    first = await client.post("/v1/chat/completions", json=body, headers=key)
    again = await client.post("/v1/chat/completions", json=body, headers=key)
    assert first.text.removeprefix(": keep-alive\n\n") == again.text.removeprefix(": keep-alive\n\n")
    assert len(await provider.entries(marker=marker)) == 1


async def test_g14_a_key_is_of_one_body_and_one_team(system: System, client: httpx.AsyncClient) -> None:
    key = {"idempotency-key": prompt()}
    assert (await client.post("/v1/chat/completions", json=chat("mock"), headers=key)).status_code == 200
    other_body = await client.post("/v1/chat/completions", json=chat("mock"), headers=key)
    assert (other_body.status_code, other_body.json()["error"]["code"]) == (422, "idempotency_key_reused")
    async with (await system.create_team("other")).http() as other:
        assert (await other.post("/v1/chat/completions", json=chat("mock"), headers=key)).status_code == 200
    too_long = await client.post("/v1/chat/completions", json=chat("mock"), headers={"idempotency-key": "k" * 256})
    assert too_long.status_code == 400


async def test_a_request_that_was_refused_leaves_its_key_free(client: httpx.AsyncClient) -> None:
    key = {"idempotency-key": prompt()}
    assert (await client.post("/v1/chat/completions", json={"model": "mock"}, headers=key)).status_code == 400
    assert (await client.post("/v1/chat/completions", json=chat("mock"), headers=key)).status_code == 200


async def test_a_client_that_left_finds_its_answer_by_its_key(client: httpx.AsyncClient, provider: Provider) -> None:
    body, key = chat("mock-latency-1500", user=(marker := prompt())), {"idempotency-key": prompt()}
    with pytest.raises(httpx.ReadTimeout):
        await client.post("/v1/chat/completions", json=body, headers=key, timeout=0.5)
    answer = await client.post("/v1/chat/completions", json=body, headers=key)
    assert (answer.status_code, answer.headers["idempotent-replayed"]) == (200, "true")
    assert [entry.outcome for entry in await provider.entries(marker=marker)] == ["finished"]


async def test_retries_of_an_sdk_that_lost_patience_cause_one_provider_call(team: Team, provider: Provider) -> None:
    """OpenAI's SDK with its defaults tries three times."""
    marker = prompt()
    async with team.openai(timeout=0.7, max_retries=2) as sdk:
        answer = await sdk.chat.completions.create(
            model="mock-latency-1500", messages=[{"role": "user", "content": prompt()}], user=marker
        )
    assert answer.choices[0].message.content
    assert [entry.outcome for entry in await provider.entries(marker=marker)] == ["finished"]


async def test_an_sdk_whose_user_cancels_ends_the_call_at_once(team: Team, provider: Provider) -> None:
    marker = prompt()
    async with team.openai(timeout=60, max_retries=2) as sdk:
        asked = sdk.chat.completions.create(
            model="mock-latency-5000", messages=[{"role": "user", "content": prompt()}], user=marker
        )
        task = asyncio.ensure_future(asked)
        await until(lambda: provider.entries(marker=marker))
        task.cancel()

        async def is_closed() -> bool:
            [entry] = await provider.entries(marker=marker)
            return entry.outcome == "client_gone"

        assert await until(is_closed, timeout_s=2)


async def test_two_requests_that_only_look_alike_are_two(team: Team, provider: Provider) -> None:
    marker, text = prompt(), prompt()
    async with team.openai() as sdk:
        for _ in range(2):
            await sdk.chat.completions.create(
                model="mock",
                messages=[{"role": "user", "content": text}],
                user=marker,
                extra_headers={"cache-control": "no-store"},
            )
    assert len(await provider.entries(marker=marker)) == 2
