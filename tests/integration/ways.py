"""The ways in which somebody can ask for what a provider is called for: by which door, and with which words.

All of them are asked the same by test_every_door.py, and answer the same: with a status and a sentence, as HTTP would.
"""

import asyncio
import json
import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, cast

import httpx

from benchmarks.mock_ledger import Entry
from tests.kafka_client import Record, Tail, bearer, line, publish, tail_of
from tests.system import Provider, System, Team, chat, prompt, until

CHAT, EMBEDDINGS, RESPONSES, BATCHES = "/v1/chat/completions", "/v1/embeddings", "/v1/responses", "/v1/batches"
MESSAGES, COMPLETIONS, MODERATIONS = "/v1/messages", "/v1/completions", "/v1/moderations"
REPLAY = "/admin/v1/dead/replay"
PATIENCE_S = 60
"""Deadline of what may wait: over a rate limit of one a day it is refused at once, since its turn comes later."""

_MOST_OUTPUT = 64


@dataclass(frozen=True, slots=True)
class Told:
    """How a try ended: a status and a sentence as HTTP has them, and the job if there is one."""

    status: int
    message: str = ""
    code: str | None = None
    job: str = ""


@dataclass(frozen=True, slots=True)
class Try:
    """Something to be asked for. `marker` names its calls in the provider's ledger, of which there were `called` before."""

    marker: str
    ask: Callable[[], Awaitable[Told]]
    called: int = 0


@dataclass(frozen=True, slots=True)
class Bench:
    """The system and the provider behind it, of whose calls those after `first` are ours; and the dead letters as they come."""

    system: System
    provider: Provider
    first: int
    dead: Tail
    reading: asyncio.Lock = field(default_factory=asyncio.Lock)

    def http(self, headers: Mapping[str, str] | None = None) -> httpx.AsyncClient:
        """A plain client. Without certificates, which take longer to read than a request takes."""
        return httpx.AsyncClient(base_url=self.system.url, headers=headers, trust_env=False, timeout=60, verify=False)

    def of(self, team: Team) -> httpx.AsyncClient:
        """A client that sends a team's key."""
        return self.http(held(team.key))

    def admin(self) -> httpx.AsyncClient:
        """A client that sends the admin key."""
        return self.http(held(self.system.admin_key))

    async def query(self, sql: str) -> list[dict[str, Any]]:
        """Rows of the books. Money comes as Decimal."""
        params = {"database": "sluice", "default_format": "JSON", "output_format_json_quote_64bit_integers": "0"}
        async with self.http() as client:
            answer = await client.post(f"{self.system.endpoints['clickhouse']}/", params=params, content=sql)
        assert answer.status_code == 200, answer.text
        return cast("list[dict[str, Any]]", json.loads(answer.text, parse_float=Decimal)["data"])

    async def calls(self, marker: str) -> list[Entry]:
        """What the provider was called for, by the marker of a try."""
        return await self.provider.entries(marker=marker, after=self.first)

    async def token(self, team: Team) -> str:
        """A job token, minted with the team's own key."""
        async with self.of(team) as client:
            minted = await client.post("/v1/job_tokens", json={})
        assert minted.status_code == 201, minted.text
        return str(minted.json()["token"])

    async def letter(self, origin: str) -> Record | None:
        """The dead letter of a record, if it is there by now."""
        found = await self.letters()
        return next((record for record in found if record.text("sluice_dead_origin") == origin), None)

    async def letters(self, marker: str = "") -> list[Record]:
        """All dead letters up to now in which this stands."""
        async with self.reading:
            await self.dead.read_to_end()
        return [record for record in self.dead.records if marker.encode() in record.value]


def held(secret: str) -> dict[str, str]:
    """The header with a credential; none without one."""
    return {"authorization": f"Bearer {secret}"} if secret else {}


@dataclass(frozen=True, slots=True)
class Way(ABC):
    """A way to ask. `repeats`: asked again, the same request is the same job. `of_key`: it is asked with a virtual key.

    `costs_before`: to make it ready costs the team something.
    """

    name: str
    door: str
    lane: str = "interactive"
    repeats: bool = False
    of_key: bool = True
    costs_before: bool = False

    @abstractmethod
    async def prepared(self, bench: Bench, team: Team) -> Try:
        """Something that this team can ask for from now on."""

    @abstractmethod
    async def asked_as(self, bench: Bench, headers: Mapping[str, str], marker: str) -> Told:
        """How it ends if it is asked with these credentials."""


@dataclass(frozen=True, slots=True)
class Http(Way):
    """A POST. `members`: of its body, besides model and words."""

    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    members: Mapping[str, object] = field(default_factory=dict[str, object])

    async def prepared(self, bench: Bench, team: Team) -> Try:
        marker, tries = prompt(), 0

        async def ask() -> Told:
            nonlocal tries
            again = str(tries)
            tries += 1
            headers = {name: value.format(marker=marker, again=again) for name, value in self._headers.items()}
            async with bench.of(team) as client:
                return await _ended(client, await client.post(self._path, json=self._body(marker), headers=headers))

        return Try(marker, ask)

    async def asked_as(self, bench: Bench, headers: Mapping[str, str], marker: str) -> Told:
        own = {name: value.format(marker=marker, again="0") for name, value in self._headers.items()}
        async with bench.http({**own, **headers}) as client:
            return _refused(await client.post(self._path, json=self._body(marker)))

    @property
    def _path(self) -> str:
        return self.door.removeprefix("POST ")

    @property
    def _headers(self) -> Mapping[str, str]:
        lane = {"x-sluice-lane": "batch", "x-sluice-timeout": str(PATIENCE_S)} if self.lane == "batch" else {}
        return {**lane, **self.headers}

    def _body(self, marker: str) -> dict[str, object]:
        """The same for the same marker, which is also the words: no cache knows them."""
        return {**_words(self._path, marker), **self.members}


@dataclass(frozen=True, slots=True)
class Batched(Way):
    """A line of a batch. `url`: what the line asks for."""

    lane: str = "batch"
    url: str = CHAT

    async def prepared(self, bench: Bench, team: Team) -> Try:
        marker = prompt()
        async with bench.of(team) as client:
            file = await client.post(
                "/v1/files", data={"purpose": "batch"}, files={"file": line(marker, _words(self.url, marker), self.url)}
            )
        assert file.status_code == 200, file.text

        async def ask() -> Told:
            async with bench.of(team) as client:
                ordered = await client.post(BATCHES, json=self._order(file.json()["id"]), headers=_deadline())
                if ordered.status_code != 200:
                    return _refused(ordered)
                batch = await until(lambda: _over(client, f"{BATCHES}/{ordered.json()['id']}"))
                name = batch["output_file_id"] or batch["error_file_id"]
                (result,) = (await client.get(f"/v1/files/{name}/content")).text.splitlines()
            return _of_line(json.loads(result))

        return Try(marker, ask)

    async def asked_as(self, bench: Bench, headers: Mapping[str, str], marker: str) -> Told:
        async with bench.http(headers) as client:
            return _refused(await client.post(BATCHES, json=self._order("file_x")))

    def _order(self, file_id: str) -> dict[str, str]:
        return {"input_file_id": file_id, "endpoint": self.url, "completion_window": "24h"}


@dataclass(frozen=True, slots=True)
class Published(Way):
    """A record on a public topic. `url`: what the line in it asks for."""

    url: str = CHAT

    async def prepared(self, bench: Bench, team: Team) -> Try:
        marker, token = prompt(), await bench.token(team)

        async def ask() -> Told:
            headers = [*bearer(token), *((name, value.encode()) for name, value in _deadline().items())]
            await publish(bench.system.kafka, self._topic, [self._line(marker)], headers)
            return await _answered(bench, team, marker)

        return Try(marker, ask)

    async def asked_as(self, bench: Bench, headers: Mapping[str, str], marker: str) -> Told:
        given = [(name, value.encode()) for name, value in headers.items()]
        (origin,) = await publish(bench.system.kafka, self._topic, [self._line(marker)], given)
        return _put_aside(await until(lambda: bench.letter(origin)))

    @property
    def _topic(self) -> str:
        return self.door.removeprefix("KAFKA ")

    def _line(self, marker: str) -> bytes:
        return line(marker, _words(self.url, marker), self.url)


@dataclass(frozen=True, slots=True)
class ReplayedJob(Way):
    """A dead letter that was a job of the team is replayed by an administrator: it becomes a job anew.

    A job becomes one here by its own record, signed as it is, on a topic where it doesn't belong.
    """

    costs_before: bool = True

    async def prepared(self, bench: Bench, team: Team) -> Try:
        marker = prompt()
        async with bench.of(team) as client:
            made = await client.post(CHAT, json=_words(CHAT, marker), headers={"cache-control": "no-store"})
        assert made.status_code == 200, made.text
        job_id = made.headers["x-sluice-job"].encode()
        async with tail_of(bench.system.kafka, "sluice.guard.interactive") as tail:
            await tail.read_until(lambda: any(record.headers.get("ce_id") == job_id for record in tail.records))
            record = next(record for record in tail.records if record.headers.get("ce_id") == job_id)
        headers = [*record.headers.items()]
        (origin,) = await publish(bench.system.kafka, "sluice.router.interactive", [record.value], headers)
        assert await until(lambda: bench.letter(origin))

        async def ask() -> Told:
            async with bench.admin() as admin:
                done = await _replayed(admin, {"ids": [origin]})
                if done["result"] != "replayed":
                    return Told(409, done["why"])
                job = await until(lambda: _over(admin, f"/admin/v1/jobs/{done['became']}"))
            return _of_job(job)

        return Try(marker, ask, called=1)

    async def asked_as(self, bench: Bench, headers: Mapping[str, str], marker: str) -> Told:
        async with bench.http(headers) as client:
            return _refused(await client.post(REPLAY, json={"all": True}))


@dataclass(frozen=True, slots=True)
class ReplayedRecord(Way):
    """A dead letter that never became a job is replayed for a team, by an administrator who says that it pays."""

    of_key: bool = False

    async def prepared(self, bench: Bench, team: Team) -> Try:
        marker = prompt()
        given = [("authorization", b"Bearer not.a.token"), *((n, v.encode()) for n, v in _deadline().items())]
        (origin,) = await publish(bench.system.kafka, "sluice.jobs.batch", [line(marker, _words(CHAT, marker))], given)
        assert await until(lambda: bench.letter(origin))

        async def ask() -> Told:
            async with bench.admin() as admin:
                done = await _replayed(admin, {"ids": [origin], "team": team.name})
            assert done["result"] == "replayed", done
            return await _answered(bench, team, marker, letters=1)

        return Try(marker, ask)

    async def asked_as(self, bench: Bench, headers: Mapping[str, str], marker: str) -> Told:
        async with bench.http(headers) as client:
            return _refused(await client.post(REPLAY, json={"all": True, "team": "somebody"}))


LATER = {"prefer": "respond-async"}
OWN_KEY = {"idempotency-key": "{marker}"}
RETRIED = {"x-stainless-retry-count": "{again}", "x-stainless-read-timeout": "60"}
STREAM = {"stream": True}

WAYS: Mapping[str, Way] = {
    way.name: way
    for way in (
        Http("chat", f"POST {CHAT}"),
        Http("chat, streamed", f"POST {CHAT}", members=STREAM),
        Http("chat, later", f"POST {CHAT}", headers=LATER),
        Http("chat, streamed, later", f"POST {CHAT}", headers=LATER, members=STREAM),
        Http("chat, batch lane", f"POST {CHAT}", "batch"),
        Http("chat, batch lane, later", f"POST {CHAT}", "batch", headers=LATER),
        Http("chat, own key", f"POST {CHAT}", repeats=True, headers=OWN_KEY),
        Http("chat, retried", f"POST {CHAT}", repeats=True, headers=RETRIED),
        Http("embeddings", f"POST {EMBEDDINGS}"),
        Http("embeddings, later", f"POST {EMBEDDINGS}", headers=LATER),
        Http("responses", f"POST {RESPONSES}"),
        Http("responses, streamed", f"POST {RESPONSES}", members=STREAM),
        Http("responses, background", f"POST {RESPONSES}", members={"background": True}),
        Http("responses, not stored", f"POST {RESPONSES}", members={"store": False}),
        Http("responses, batch lane", f"POST {RESPONSES}", "batch"),
        Http("responses, own key", f"POST {RESPONSES}", repeats=True, headers=OWN_KEY),
        Http("messages", f"POST {MESSAGES}"),
        Http("messages, streamed", f"POST {MESSAGES}", members=STREAM),
        Http("messages, later", f"POST {MESSAGES}", headers=LATER),
        Http("messages, batch lane", f"POST {MESSAGES}", "batch"),
        Http("messages, own key", f"POST {MESSAGES}", repeats=True, headers=OWN_KEY),
        Http("messages, retried", f"POST {MESSAGES}", repeats=True, headers=RETRIED),
        Http("completions", f"POST {COMPLETIONS}"),
        Http("completions, streamed", f"POST {COMPLETIONS}", members=STREAM),
        Http("completions, later", f"POST {COMPLETIONS}", headers=LATER),
        Http("completions, own key", f"POST {COMPLETIONS}", repeats=True, headers=OWN_KEY),
        Http("moderations", f"POST {MODERATIONS}"),
        Http("moderations, batch lane", f"POST {MODERATIONS}", "batch"),
        Batched("batch of chats", f"POST {BATCHES}"),
        Batched("batch of embeddings", f"POST {BATCHES}", url=EMBEDDINGS),
        Batched("batch of moderations", f"POST {BATCHES}", url=MODERATIONS),
        Published("record, interactive", "KAFKA sluice.jobs.interactive"),
        Published("record, batch", "KAFKA sluice.jobs.batch", "batch"),
        Published("record of embeddings", "KAFKA sluice.jobs.batch", "batch", url=EMBEDDINGS),
        ReplayedJob("replayed job", f"POST {REPLAY}"),
        ReplayedRecord("replayed record", f"POST {REPLAY}", "batch"),
    )
}


def _words(path: str, marker: str) -> dict[str, object]:
    match path:
        case "/v1/completions":
            return {"model": "mock", "prompt": marker, "user": marker, "max_tokens": _MOST_OUTPUT}
        case "/v1/embeddings" | "/v1/moderations":
            return {"model": "mock", "input": marker, "user": marker}
        case "/v1/responses":
            return {"model": "mock", "input": marker, "user": marker, "max_output_tokens": _MOST_OUTPUT}
        case "/v1/messages":
            return {**chat("mock", marker), "metadata": {"user_id": marker}, "max_tokens": _MOST_OUTPUT}
        case _:
            return chat("mock", marker, user=marker, max_tokens=_MOST_OUTPUT)


def _deadline() -> dict[str, str]:
    return {"x-sluice-deadline": str(int(time.time()) + PATIENCE_S)}


def _told(status: int, error: Any, job: str = "") -> Told:
    """`error`: OpenAI's error object, or Anthropic's, or None."""
    return Told(status, error["message"], error.get("code"), job) if error else Told(status, job=job)


def _refused(answer: httpx.Response) -> Told:
    return _told(answer.status_code, answer.json().get("error"))


async def _ended(client: httpx.AsyncClient, answer: httpx.Response) -> Told:
    """What a POST came to, also where that is told later."""
    if answer.status_code >= 400:
        return _refused(answer)
    job_id = answer.headers.get("x-sluice-job", "")
    if answer.headers["content-type"].startswith("text/event-stream"):
        data = [json.loads(text[6:]) for text in answer.text.splitlines() if text.startswith("data: {")]
        error = next((part["error"] for part in data if part.get("error")), None)
        return _told(500 if error else 200, error, job_id)
    if answer.status_code == 202 or answer.json().get("status") in ("queued", "in_progress"):
        return _of_job(await until(lambda: _over(client, f"/v1/jobs/{job_id}")))
    return Told(answer.status_code, job=job_id)


async def _over(client: httpx.AsyncClient, url: str) -> dict[str, Any] | None:
    answer = await client.get(url)
    assert answer.status_code == 200, answer.text
    found = answer.json()
    return found if found["status"] in ("completed", "failed", "cancelled", "expired", "incomplete") else None


def _of_job(job: Mapping[str, Any]) -> Told:
    return _told(200 if job["status"] == "completed" else 500, job.get("error"), job["id"])


def _of_line(result: Mapping[str, Any]) -> Told:
    """A line of OpenAI's batch output."""
    if result["error"]:
        return _told(504, result["error"])
    response = result["response"]
    return _told(response["status_code"], response["body"].get("error"), response["request_id"])


async def _answered(bench: Bench, team: Team, custom_id: str, letters: int = 0) -> Told:
    """The result of a record, or, where it was put aside, why; it was `letters` times before."""
    async with tail_of(bench.system.kafka, f"sluice.results.{team.name}") as tail:

        async def told() -> Told | None:
            await tail.read_to_end()
            own = [found for record in tail.records if (found := record.json())["custom_id"] == custom_id]
            if own:
                assert len(own) == 1
                return _of_line(own[0])
            aside = (await bench.letters(custom_id))[letters:]
            return _put_aside(aside[0]) if aside else None

        return await until(told)


def _put_aside(letter: Record) -> Told:
    return Told(401, letter.text("sluice_dead_detail"), letter.text("sluice_dead_reason"))


async def _replayed(admin: httpx.AsyncClient, asked: Mapping[str, object]) -> dict[str, Any]:
    answer = await admin.post(REPLAY, json=asked)
    assert answer.status_code == 200, answer.text
    (done,) = answer.json()["data"]
    return done
