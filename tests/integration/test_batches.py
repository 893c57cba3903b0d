"""`/v1/files` and `/v1/batches` with OpenAI's own SDK, unmodified, against the whole system."""

import asyncio
import json
import time
from collections.abc import Sequence
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI
from openai.types import Batch, FileObject

from tests.integration.endpoints import receiving
from tests.system import Provider, System, Team, chat, prompt, until

OVER = ("completed", "failed", "expired", "cancelled")


@pytest.fixture(scope="module")
async def team(system: System) -> Team:
    return await system.create_team("batches")


def line(custom_id: str, model: str = "mock", url: str = "/v1/chat/completions", **more: Any) -> dict[str, Any]:
    return {"custom_id": custom_id, "method": "POST", "url": url, "body": chat(model, **more)}


def jsonl(lines: Sequence[object]) -> bytes:
    return b"".join(json.dumps(line).encode() + b"\n" for line in lines)


async def ordered(client: AsyncOpenAI, lines: Sequence[object], **options: Any) -> Batch:
    file = await client.files.create(file=("in.jsonl", jsonl(lines)), purpose="batch")
    wanted: dict[str, Any] = {"endpoint": "/v1/chat/completions", "completion_window": "24h"}
    return await client.batches.create(input_file_id=file.id, **(wanted | options))


async def over(client: AsyncOpenAI, batch: Batch, timeout_s: float = 60) -> Batch:
    """The batch when it is over; fails with where it stands if it isn't after `timeout_s`."""
    ends = time.monotonic() + timeout_s
    while (found := await client.batches.retrieve(batch.id)).status not in OVER:
        assert time.monotonic() < ends, f"{found.status} with {found.request_counts} after {timeout_s:g} s"
        await asyncio.sleep(0.05)
    return found


async def results(client: AsyncOpenAI, file_id: str | None) -> dict[str, Any]:
    """The lines of a file by their custom_id; none may stand in it twice."""
    if file_id is None:
        return {}
    text = (await client.files.content(file_id)).text
    found = [json.loads(text) for text in text.splitlines()]
    by_id = {result["custom_id"]: result for result in found}
    assert len(by_id) == len(found)
    return by_id


async def test_a_file_is_kept_listed_given_back_and_deleted(team: Team) -> None:
    content = jsonl([line("1")])
    async with team.openai() as client:
        expires: Any = {"anchor": "created_at", "seconds": 3600}
        file = await client.files.create(file=("my lines.jsonl", content), purpose="batch", expires_after=expires)
        assert (file.object, file.bytes, file.filename, file.purpose, file.status) == (
            "file",
            len(content),
            "my lines.jsonl",
            "batch",
            "processed",
        )
        assert file.expires_at == file.created_at + 3600
        assert await client.files.retrieve(file.id) == file
        assert (await client.files.content(file.id)).read() == content
        assert file.id in [found.id async for found in client.files.list(limit=1, purpose="batch")]
        assert (await client.files.delete(file.id)).deleted
        with pytest.raises(openai.NotFoundError):
            await client.files.retrieve(file.id)
        with pytest.raises(openai.NotFoundError):
            await client.files.content(file.id)


async def test_files_are_listed_page_by_page_in_both_directions(system: System) -> None:
    team = await system.create_team("pages")
    async with team.openai() as client:
        made = [(await client.files.create(file=(f"{n}.jsonl", b"{}"), purpose="batch")).id for n in range(5)]
        assert [file.id async for file in client.files.list(limit=2, order="asc")] == made
        assert [file.id async for file in client.files.list(limit=2)] == made[::-1]
        assert [file.id async for file in client.files.list(purpose="batch_output")] == []


async def test_a_file_above_the_spool_comes_back_whole(team: Team) -> None:
    content = bytes(range(256)) * 16 * 1024
    async with team.openai() as client:
        file = await client.files.create(file=("big.jsonl", content), purpose="batch")
        assert (await client.files.content(file.id)).read() == content


async def test_forms_that_cant_be_are_refused_with_the_field(team: Team) -> None:
    async with team.http() as http:
        answer = await http.post("/v1/files", json={"purpose": "batch"})
        assert answer.status_code == 400
        answer = await http.post("/v1/files", data={"purpose": "batch"}, files={"other": b"{}"})
        assert answer.json()["error"]["param"] == "file"
        answer = await http.post("/v1/files", data={"purpose": "vision"}, files={"file": b"{}"})
        assert answer.json()["error"]["param"] == "purpose"
        answer = await http.post("/v1/files", data={"purpose": "batch"}, files={"file": b""})
        assert answer.json()["error"]["param"] == "file"
        form = {"purpose": "batch", "expires_after[anchor]": "created_at", "expires_after[seconds]": "5"}
        answer = await http.post("/v1/files", data=form, files={"file": b"{}"})
        assert answer.json()["error"]["param"] == "expires_after"


async def test_a_batch_is_validated_run_and_told_line_by_line(team: Team) -> None:
    lines = [line(f"good-{n}") for n in range(20)] + [line("unknown", "nobody"), line("broken", "mock-400")]
    async with team.openai() as client:
        batch = await ordered(client, lines, metadata={"run": "7"})
        assert (batch.object, batch.status, batch.metadata) == ("batch", "validating", {"run": "7"})
        assert batch.expires_at == batch.created_at + 86_400
        ended = await over(client, batch)
        assert ended.status == "completed", ended
        assert ended.request_counts is not None
        assert ended.request_counts.model_dump() == {"total": 22, "completed": 20, "failed": 2}
        output, errors = await results(client, ended.output_file_id), await results(client, ended.error_file_id)
        listed = [found.id async for found in client.batches.list(limit=1)]
        made = await client.files.retrieve(ended.output_file_id or "")
    assert output.keys() == {f"good-{n}" for n in range(20)}
    assert errors.keys() == {"unknown", "broken"}
    one = output["good-0"]
    assert one.keys() == {"id", "custom_id", "response", "error"}
    assert one["id"].startswith("batch_req_")
    assert (one["error"], one["response"]["status_code"]) == (None, 200)
    assert one["response"]["body"]["choices"][0]["message"]["content"]
    assert errors["unknown"]["response"]["status_code"] == 404
    assert errors["unknown"]["response"]["body"]["error"]["code"] == "model_not_found"
    assert errors["broken"]["response"]["status_code"] == 400
    assert ended.usage is not None
    bodies = [result["response"]["body"]["usage"] for result in output.values()]
    assert ended.usage.input_tokens == sum(usage["prompt_tokens"] for usage in bodies)
    assert ended.usage.output_tokens == sum(usage["completion_tokens"] for usage in bodies)
    assert ended.usage.total_tokens == ended.usage.input_tokens + ended.usage.output_tokens
    assert batch.id in listed
    assert (made.purpose, made.filename) == ("batch_output", f"{batch.id}_output.jsonl")


async def test_g13_an_order_with_the_same_key_is_one_batch(team: Team) -> None:
    async with team.openai() as client:
        file = await client.files.create(file=("in.jsonl", jsonl([line("a")])), purpose="batch")
        key = {"Idempotency-Key": prompt()}
        orders = [
            await client.batches.create(
                input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h", extra_headers=key
            )
            for _ in range(2)
        ]
        assert len({batch.id for batch in orders}) == 1
        with pytest.raises(openai.UnprocessableEntityError):
            await client.batches.create(
                input_file_id=file.id,
                endpoint="/v1/chat/completions",
                completion_window="24h",
                metadata={"another": "body"},
                extra_headers=key,
            )


async def test_a_batch_of_embeddings_of_one_model_names_it(team: Team) -> None:
    url = "/v1/embeddings"
    lines = [{"custom_id": str(n), "method": "POST", "url": url, "body": {"model": "mock", "input": prompt()}} for n in range(3)]
    async with team.openai() as client:
        ended = await over(client, await ordered(client, lines, endpoint=url))
        output = await results(client, ended.output_file_id)
    assert (ended.status, ended.model, len(output)) == ("completed", "mock", 3)
    assert output["0"]["response"]["body"]["data"][0]["embedding"]


async def test_a_file_with_a_bad_line_fails_before_anything_is_run(team: Team, provider: Provider) -> None:
    marker = prompt()
    lines = [line("a", user=marker), line("a", user=marker), line("b", url="/v1/embeddings"), {"custom_id": "c"}, "no"]
    async with team.openai() as client:
        ended = await over(client, await ordered(client, lines))
    assert ended.status == "failed"
    assert ended.failed_at
    assert ended.errors is not None
    assert ended.errors.object == "list"
    problems = [(problem.code, problem.line) for problem in ended.errors.data or []]
    assert problems == [
        ("duplicate_custom_id", 2),
        ("mismatched_endpoint", 3),
        ("missing_required_parameter", 4),
        ("invalid_json_line", 5),
    ]
    assert ended.output_file_id is None
    assert await provider.entries(marker=marker) == []


async def test_of_another_team_there_are_no_files_and_no_batches(system: System, team: Team) -> None:
    stranger = await system.create_team("stranger")
    async with team.openai() as client, stranger.openai() as other:
        batch = await ordered(client, [line("1")])
        ended = await over(client, batch)
        for file_id in (batch.input_file_id, ended.output_file_id or ""):
            with pytest.raises(openai.NotFoundError):
                await other.files.retrieve(file_id)
            with pytest.raises(openai.NotFoundError):
                await other.files.content(file_id)
            with pytest.raises(openai.NotFoundError):
                await other.files.delete(file_id)
        for act in (other.batches.retrieve, other.batches.cancel):
            with pytest.raises(openai.NotFoundError):
                await act(batch.id)
        with pytest.raises(openai.NotFoundError):
            await other.batches.create(
                input_file_id=batch.input_file_id, endpoint="/v1/chat/completions", completion_window="24h"
            )
        assert [file.id async for file in other.files.list()] == []
        assert [found.id async for found in other.batches.list()] == []
        assert (await client.files.content(ended.output_file_id or "")).read()


async def test_orders_that_cant_be_are_refused_with_the_member(team: Team) -> None:
    async with team.openai() as client, team.http() as http:
        file = await client.files.create(file=("in.jsonl", jsonl([line("1")])), purpose="batch")
        good = {"input_file_id": file.id, "endpoint": "/v1/chat/completions", "completion_window": "24h"}
        for bad, param in (
            ({"endpoint": "/v1/videos"}, "endpoint"),
            ({"completion_window": "1h"}, "completion_window"),
            ({"metadata": {str(n): "" for n in range(17)}}, "metadata"),
            ({"output_expires_after": {"anchor": "created_at", "seconds": 1}}, "output_expires_after.seconds"),
            ({"metadata": {"sluice_deadline": "yesterday"}}, "x-sluice-deadline"),
        ):
            answer = await http.post("/v1/batches", json=good | bad)
            assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)
        answer = await http.post("/v1/batches", json=good | {"input_file_id": "file_x"})
        assert (answer.status_code, answer.json()["error"]["param"]) == (404, "input_file_id")


async def test_a_cancelled_batch_keeps_what_was_done_and_tells_of_each_line(team: Team) -> None:
    lines = [line(f"quick-{n}") for n in range(5)] + [line(f"slow-{n}", "mock-latency-5000") for n in range(5)]
    async with team.openai() as client:
        batch = await ordered(client, lines)

        async def quick_ones_are_done() -> bool:
            found = await client.batches.retrieve(batch.id)
            return found.request_counts is not None and found.request_counts.completed >= 5

        await until(quick_ones_are_done)
        asked = await client.batches.cancel(batch.id)
        assert asked.status == "cancelling"
        assert asked.cancelling_at
        ended = await over(client, batch)
        output, errors = await results(client, ended.output_file_id), await results(client, ended.error_file_id)
        with pytest.raises(openai.BadRequestError):
            await client.batches.cancel(batch.id)
    assert (ended.status, ended.cancelling_at) == ("cancelled", asked.cancelling_at)
    assert ended.cancelled_at
    assert output.keys() >= {f"quick-{n}" for n in range(5)}
    assert output.keys() | errors.keys() == {line["custom_id"] for line in lines}
    assert not output.keys() & errors.keys()
    assert {result["error"]["code"] for result in errors.values()} == {"batch_cancelled"}


async def test_at_its_deadline_a_batch_expires_with_what_was_done(team: Team) -> None:
    lines = [line("quick"), *(line(f"slow-{n}", "mock-latency-5000") for n in range(3))]
    async with team.openai() as client:
        soon = str(int(time.time()) + 3)
        ended = await over(client, await ordered(client, lines, extra_headers={"x-sluice-deadline": soon}))
        output, errors = await results(client, ended.output_file_id), await results(client, ended.error_file_id)
    assert (ended.status, str(ended.expires_at)) == ("expired", soon)
    assert ended.expired_at
    assert output.keys() == {"quick"}
    assert errors.keys() == {"slow-0", "slow-1", "slow-2"}
    assert {result["error"]["code"] for result in errors.values()} == {"batch_expired"}


async def test_the_end_of_a_batch_is_told_to_a_webhook_that_the_team_may_name(system: System) -> None:
    async with receiving() as receiver:
        policy = {"webhooks": {"internal": [f"127.0.0.1:{receiver.port}"]}}
        team = await system.create_team_under("hooked", policy)
        async with team.openai() as client:
            url = {"x-sluice-webhook": f"http://127.0.0.1:{receiver.port}/batches"}
            batch = await ordered(client, [line("1")], extra_headers=url)

            async def told() -> bool:
                return bool(receiver.posted)

            await until(told)
            elsewhere = {"x-sluice-webhook": "http://127.0.0.1:1/batches"}
            with pytest.raises(openai.BadRequestError):
                await ordered(client, [line("1")], extra_headers=elsewhere)
    event = json.loads(receiver.posted[0].body)
    assert (event["type"], event["data"]) == ("batch.completed", {"id": batch.id})
    assert receiver.posted[0].headers["webhook-id"] == event["id"]


async def test_five_thousand_lines_are_each_answered_once(team: Team, provider: Provider) -> None:
    first = await provider.last()
    lines = [line(f"line-{n}", user=f"big-{n}") for n in range(5000)]
    async with team.openai() as client:
        began = time.monotonic()
        batch = await ordered(client, lines)
        ended = await over(client, batch, 150)
        print(f"5,000 lines took {time.monotonic() - began:.1f} s")
        output = await results(client, ended.output_file_id)
    assert (ended.status, ended.error_file_id) == ("completed", None)
    assert output.keys() == {f"line-{n}" for n in range(5000)}
    calls = [entry.marker for entry in await provider.entries(after=first)]
    assert len(calls) == len(set(calls)) == 5000


async def test_many_batches_go_on_side_by_side(team: Team) -> None:
    async with team.openai() as client:
        batches = await asyncio.gather(*(ordered(client, [line(f"{n}-{m}") for m in range(10)]) for n in range(12)))
        ended = await asyncio.gather(*(over(client, batch) for batch in batches))
        files: list[FileObject] = [await client.files.retrieve(batch.output_file_id or "") for batch in ended]
    assert {batch.status for batch in ended} == {"completed"}
    assert len({file.id for file in files}) == 12
