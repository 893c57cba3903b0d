"""The Kafka door as a batch team uses it: plain aiokafka or `sluice submit`, results on its own topic, a bill that adds up."""

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from benchmarks.mock_answers import answer_text
from tests.fakes.recorder import Recorder
from tests.kafka_client import Headers, Record, Tail, bearer, line, publish, tail_of
from tests.system import Provider, System, Team, chat, cost_usd, prompt

LINES = 50
SUBMITTED = 100
WORDS = 12
BATCH, INTERACTIVE, DEAD = "sluice.jobs.batch", "sluice.jobs.interactive", "sluice.dead"


@pytest.fixture(scope="module")
async def team(system: System) -> Team:
    return await system.create_team("door")


@pytest.fixture(scope="module")
async def token(system: System, team: Team) -> str:
    return await system.job_token(team)


def results_topic(team: Team) -> str:
    return f"sluice.results.{team.name}"


async def results(system: System, team: Team, custom_ids: Sequence[str]) -> list[dict[str, Any]]:
    """The results of these lines, once each has one; all that there are, so that a double one shows."""
    wanted = set(custom_ids)
    async with tail_of(system.kafka, results_topic(team)) as tail:
        await tail.read_until(lambda: wanted <= {record.json()["custom_id"] for record in tail.records})
        return [found for record in tail.records if (found := record.json())["custom_id"] in wanted]


@pytest.mark.parametrize("topic", [BATCH, INTERACTIVE])
async def test_every_line_has_one_result_and_one_row(system: System, provider: Provider, topic: str) -> None:
    team = await system.create_team("lines")
    asked = {f"line-{n}": prompt(" ".join(["word"] * n)) for n in range(LINES)}
    lines = [line(custom_id, chat("mock", text)) for custom_id, text in asked.items()]
    first = await provider.last()
    await publish(system.kafka, topic, lines, bearer(await system.job_token(team)))
    async with tail_of(system.kafka, results_topic(team)) as tail:
        await tail.read_until(lambda: len(tail.records) >= LINES)
        rows = await system.usage(team.name, LINES)
        await tail.read_to_end()
    check_results(tail.records, asked)
    assert len(rows) == LINES
    assert {row["lane"] for row in rows} == {topic.rpartition(".")[2]}
    assert {row["custom_id"]: row["prompt_tokens"] for row in rows} == {f"line-{n}": n + 1 for n in range(LINES)}
    assert {row["completion_tokens"] for row in rows} == {WORDS}
    total = sum((row["cost_usd"] for row in rows), start=0)
    assert total == cost_usd(sum(range(1, LINES + 1)), WORDS * LINES)
    assert len(await provider.entries(after=first)) == LINES


def check_results(records: Sequence[Record], asked: dict[str, str]) -> None:
    """Exactly one line of OpenAI's batch output for each custom_id, with the answer to its own question."""
    assert Counter(record.json()["custom_id"] for record in records) == Counter(asked.keys())
    for record in records:
        found = record.json()
        assert found.keys() == {"id", "custom_id", "response", "error"}
        assert record.key == found["custom_id"].encode()
        assert found["id"].startswith("batch_req_")
        assert found["error"] is None
        assert found["response"].keys() == {"status_code", "request_id", "body"}
        assert found["response"]["status_code"] == 200
        body = found["response"]["body"]
        assert body["object"] == "chat.completion"
        assert body["choices"][0]["message"]["content"] == answer_text(asked[found["custom_id"]])


async def test_submit_sends_a_file_and_writes_its_results(system: System, tmp_path: Path) -> None:
    team = await system.create_team("submit")
    asked = {f"q{n}": prompt() for n in range(SUBMITTED)}
    file, out = tmp_path / "questions.jsonl", tmp_path / "answers.jsonl"
    file.write_bytes(b"\n".join(line(custom_id, chat("mock", text)) for custom_id, text in asked.items()) + b"\n")
    said = await system.json("submit", file, "--out", out, "--team", team.name)
    assert (said["lines"], said["completed"], said["failed"]) == (SUBMITTED, SUBMITTED, 0)
    written = [json.loads(text) for text in out.read_text().splitlines()]
    assert Counter(found["custom_id"] for found in written) == Counter(asked.keys())
    for found in written:
        content = found["response"]["body"]["choices"][0]["message"]["content"]
        assert content == answer_text(asked[found["custom_id"]])
    rows = await system.usage(team.name, SUBMITTED)
    assert len(rows) == SUBMITTED
    assert sum((row["cost_usd"] for row in rows), start=0) == cost_usd(SUBMITTED, WORDS * SUBMITTED)


async def test_submit_of_lines_that_cannot_be_sends_nothing(system: System, team: Team, tmp_path: Path) -> None:
    file = tmp_path / "questions.jsonl"
    file.write_text('{"custom_id": "a"}\nnot json\n')
    result = await system.run("submit", file, "--team", team.name)
    assert result.status == 1
    assert "line 1" in result.err
    assert "line 2" in result.err


async def test_submit_tells_by_its_status_that_a_line_failed(system: System, team: Team, tmp_path: Path) -> None:
    file = tmp_path / "questions.jsonl"
    file.write_bytes(line("good", chat("mock")) + b"\n" + line("bad", chat("mock-400")) + b"\n")
    result = await system.run("submit", file, "--team", team.name, "--json")
    assert result.status == 1
    assert (json.loads(result.out)["completed"], json.loads(result.out)["failed"]) == (1, 1)


async def test_a_token_minted_from_a_virtual_key(system: System, team: Team) -> None:
    async with team.http() as client:
        minted = await client.post("/v1/job_tokens", json={"expires_in": 60})
    assert minted.status_code == 201
    await publish(system.kafka, BATCH, [line("minted", chat("mock"))], bearer(minted.json()["token"]))
    (found,) = await results(system, team, ["minted"])
    assert found["response"]["status_code"] == 200


async def test_the_guard_looks_at_what_comes_by_kafka(system: System, team: Team, token: str, recorder: Recorder) -> None:
    user = prompt("by kafka")
    body = chat("recorded", f"Charge 4111 1111 1111 1111, {user}", user=user)
    await publish(system.kafka, BATCH, [line("card", body)], bearer(token))
    await results(system, team, ["card"])
    (seen,) = recorder.with_user(user)
    assert seen.body["messages"] == [{"role": "user", "content": f"Charge [CARD], {user}"}]


async def test_embeddings_by_kafka(system: System, team: Team, token: str) -> None:
    body = {"model": "minilm", "input": [prompt(), prompt()]}
    await publish(system.kafka, BATCH, [line("vectors", body, "/v1/embeddings")], bearer(token))
    (found,) = await results(system, team, ["vectors"])
    assert [len(entry["embedding"]) for entry in found["response"]["body"]["data"]] == [384, 384]


async def test_a_line_over_the_limit_waits_and_is_answered(system: System) -> None:
    team = await system.create_team("patient", "--rpm", "30")
    names = [f"p{n}" for n in range(32)]
    await publish(system.kafka, BATCH, [line(n, chat("mock")) for n in names], bearer(await system.job_token(team)))
    answered = await results(system, team, names)
    assert Counter(found["custom_id"] for found in answered) == Counter(names)
    assert {found["response"]["status_code"] for found in answered} == {200}


async def test_a_large_line_is_answered(system: System, team: Team, token: str) -> None:
    """1.5 MB: over what travels inside a record between our own stages."""
    await publish(system.kafka, BATCH, [line("large", chat("mock", "word " * 300_000))], bearer(token))
    (found,) = await results(system, team, ["large"])
    assert found["response"]["body"]["usage"]["prompt_tokens"] == 300_000


async def test_a_large_result_stands_in_its_record(system: System, team: Team, token: str) -> None:
    """Who reads with plain Kafka can't follow a reference into our file store."""
    body = {"model": "minilm", "input": [f"text number {n}" for n in range(200)]}
    await publish(system.kafka, BATCH, [line("large result", body, "/v1/embeddings")], bearer(token))
    (found,) = await results(system, team, ["large result"])
    assert len(json.dumps(found)) > 512 * 1024
    assert len(found["response"]["body"]["data"]) == 200


REFUSED: dict[str, tuple[bytes, int, str]] = {
    "unknown url": (line("r1", chat("mock"), "/v1/images/generations"), 400, "invalid_request_error"),
    "stream": (line("r2", chat("mock", stream=True)), 400, "invalid_request_error"),
    "unknown model": (line("r3", chat("gpt-nobody")), 404, "invalid_request_error"),
    "no messages": (line("r4", {"model": "mock", "messages": []}), 400, "invalid_request_error"),
    "empty body": (line("r5", {}), 400, "invalid_request_error"),
    "provider refuses": (line("r6", chat("mock-400")), 400, "invalid_request_error"),
    "provider broken": (line("r7", chat("mock-503")), 502, "api_error"),
}


@pytest.mark.parametrize("name", REFUSED)
async def test_what_cannot_be_served_gets_an_error_as_its_result(system: System, team: Team, token: str, name: str) -> None:
    value, status, kind = REFUSED[name]
    # A broken provider fails nobody in the batch lane: there the job is put off (tests/integration/test_outage.py).
    await publish(system.kafka, INTERACTIVE if status == 502 else BATCH, [value], bearer(token))
    (found,) = await results(system, team, [json.loads(value)["custom_id"]])
    assert found["response"]["status_code"] == status
    assert found["response"]["body"]["error"]["type"] == kind
    assert found["response"]["body"]["error"].keys() == {"message", "type", "param", "code"}


GOOD = line("poison", chat("mock"))
POISON: dict[str, tuple[bytes | None, Headers, str]] = {
    "no header": (GOOD, [], "no_token"),
    "null header": (GOOD, [("authorization", None)], "no_token"),
    "header that is no UTF-8": (GOOD, [("authorization", b"Bearer \xff\xfe")], "no_token"),
    "no bearer": (GOOD, [("authorization", b"Basic dXNlcjpwYXNz")], "no_token"),
    "wrong token": (GOOD, bearer("a.b.c"), "invalid_token"),
    "a virtual key": (GOOD, bearer("sk-sl-x"), "invalid_token"),
    "huge token": (GOOD, bearer("x" * 100_000), "invalid_token"),
    "no algorithm": (GOOD, bearer("eyJhbGciOiJub25lIn0.eyJzdWIiOiJrZXkifQ."), "invalid_token"),
    "null value": (None, [("authorization", b"TOKEN")], "empty"),
    "empty value": (b"", [("authorization", b"TOKEN")], "empty"),
    "junk": (b"\x00\xff\xfejunk", [("authorization", b"TOKEN")], "invalid_line"),
    "broken JSON": (GOOD[:-3], [("authorization", b"TOKEN")], "invalid_line"),
    "no object": (b"[1, 2]", [("authorization", b"TOKEN")], "invalid_line"),
    "no custom_id": (
        b'{"method": "POST", "url": "/v1/chat/completions", "body": {}}',
        [("authorization", b"TOKEN")],
        "invalid_line",
    ),
    "custom_id of no text": (GOOD.replace(b'"poison"', b"7"), [("authorization", b"TOKEN")], "invalid_line"),
    "body of no object": (line("b", "text"), [("authorization", b"TOKEN")], "invalid_line"),
    "GET": (GOOD.replace(b"POST", b"GET"), [("authorization", b"TOKEN")], "invalid_line"),
    "deep": (b"[" * 100_000, [("authorization", b"TOKEN")], "invalid_line"),
    "1.5 MB of junk": (b"x" * 1_500_000, [("authorization", b"TOKEN")], "invalid_line"),
    "broken event": (
        b"{",
        [("authorization", b"TOKEN"), ("content-type", b"application/cloudevents+json")],
        "invalid_line",
    ),
}


@pytest.fixture(scope="module")
async def dead_letters(system: System):
    """The dead letters, as they come."""
    async with tail_of(system.kafka, DEAD) as tail:
        yield tail


@pytest.mark.parametrize("name", POISON)
async def test_poison_goes_to_the_dead_letters_with_its_reason(
    system: System, team: Team, token: str, dead_letters: Tail, name: str
) -> None:
    value, headers, reason = POISON[name]
    signed = [(key, f"Bearer {token}".encode() if given == b"TOKEN" else given) for key, given in headers]
    (origin,) = await publish(system.kafka, BATCH, [value], signed)

    def found() -> list[Record]:
        return [record for record in dead_letters.records if record.text("sluice_dead_origin") == origin]

    await dead_letters.read_until(lambda: bool(found()))
    (letter,) = found()
    # What is large lies in the file store; the letter says where.
    assert letter.value == (value or b"") or (letter.value == b"" and letter.text("ce_dataref"))
    assert letter.text("sluice_dead_reason") == reason
    assert letter.text("sluice_dead_detail")
    # The token would still be good to whoever may read the dead letters.
    assert "authorization" not in letter.headers
    after = prompt("after")
    await publish(system.kafka, BATCH, [line(after, chat("mock"))], bearer(token))
    await results(system, team, [after])


async def test_a_revoked_key_ends_its_tokens(system: System, dead_letters: Tail) -> None:
    team = await system.create_team("revoked")
    token = await system.job_token(team)
    (key,) = await system.json("keys", "list", "--team", team.name)
    await system.json("keys", "revoke", key["id"])
    (origin,) = await publish(system.kafka, BATCH, [line("late", chat("mock"))], bearer(token))
    await dead_letters.read_until(lambda: any(r.text("sluice_dead_origin") == origin for r in dead_letters.records))
    letter = next(record for record in dead_letters.records if record.text("sluice_dead_origin") == origin)
    assert letter.text("sluice_dead_reason") == "revoked_key"


INTERNAL = ("sluice.guard.interactive", "sluice.cache.batch", "sluice.router.interactive", "sluice.completions", "sluice.cancels")


@pytest.mark.parametrize("topic", INTERNAL)
async def test_junk_on_an_internal_topic_stops_nobody(system: System, team: Team, topic: str) -> None:
    """Only services may write there; whatever else gets in mustn't be worked on, nor block what comes after."""
    strange: list[bytes | None] = [b"\x00junk", b"{", None, json.dumps({"id": "job_x", "body": chat("mock")}).encode()]
    await publish(system.kafka, topic, strange, [("ce_type", b"\xff"), ("ce_dataref", None)])

    lane = "batch" if topic.endswith("batch") else "interactive"
    async with team.http() as client:
        for _ in range(8):
            answer = await client.post("/v1/chat/completions", json=chat("mock"), headers={"x-sluice-lane": lane})
            assert answer.status_code == 200
