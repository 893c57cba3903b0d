"""The doors of a storm: how a patient client sends its job by each of them, and what it is told in the end."""

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, cast

import httpx
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.errors import KafkaError

from tests.kafka_client import bearer, line
from tests.system import System, Team, chat, prompt

DoorName = Literal["http", "async", "kafka", "batch"]
MODEL = "mock-latency-50"

_PAUSE_S = 0.3
_MOST_TRIES = 300
_CHAT = "/v1/chat/completions"
_RUNNING = ("queued", "in_progress")
_UNFINISHED = ("validating", "in_progress", "finalizing", "cancelling")


@dataclass(slots=True)
class Told:
    """A job as its client knows it. `marker`: the body's `user`, by which the provider knows it too.

    `status`: of the answer; 0 as long as there is none. `tries`: requests made for it; `told`: how often it was answered.
    """

    marker: str
    door: DoorName
    accepted: bool = False
    status: int = 0
    job_id: str = ""
    tries: int = 0
    told: int = 0

    def end(self, status: int, job_id: str = "") -> None:
        self.accepted, self.status, self.job_id = True, status, job_id or self.job_id
        self.told += 1


@dataclass(slots=True)
class Clients:
    """What all doors need: one team, its clients, and their histories by marker."""

    system: System
    team: Team
    http: httpx.AsyncClient
    token: str
    told: dict[str, Told] = field(default_factory=dict[str, Told])

    def new(self, door: DoorName) -> Told:
        marker = prompt()
        told = self.told[marker] = Told(marker, door)
        return told

    async def request(self, told: Sequence[Told], method: str, url: str, **options: Any) -> httpx.Response:
        """As an SDK that retries: again after anything that may pass, until it is answered."""
        while True:
            for one in told:
                one.tries += 1
            try:
                answer = await self.http.request(method, url, **options)
            except httpx.TransportError:
                answer = None
            if answer is not None and (not _may_pass(answer) or (told and told[0].tries > _MOST_TRIES)):
                return answer
            await asyncio.sleep(_PAUSE_S)


def _may_pass(answer: httpx.Response) -> bool:
    """A 5xx that is told again under its key is how the job ended."""
    is_end = answer.headers.get("idempotent-replayed") == "true"
    return answer.status_code in (409, 429) or (answer.status_code >= 500 and not is_end)


async def by_http(clients: Clients) -> None:
    """One request that waits for its answer, with a key of its own."""
    told = clients.new("http")
    body, headers = chat(MODEL, user=told.marker), {"idempotency-key": told.marker}
    answer = await clients.request([told], "POST", _CHAT, json=body, headers=headers)
    told.end(answer.status_code, answer.headers.get("x-sluice-job", ""))


async def by_async(clients: Clients) -> None:
    """One request that is only accepted; its answer is asked for until it is there."""
    told = clients.new("async")
    headers = {"idempotency-key": told.marker, "prefer": "respond-async"}
    answer = await clients.request([told], "POST", _CHAT, json=chat(MODEL, user=told.marker), headers=headers)
    if answer.status_code != 202:
        told.end(answer.status_code)
        return
    told.accepted, told.job_id = True, str(answer.json()["id"])
    while True:
        job = (await clients.request([told], "GET", answer.headers["location"])).json()
        if job.get("status") not in _RUNNING:
            told.end(int(job.get("status_code") or 500))
            return
        await asyncio.sleep(_PAUSE_S)


async def by_batch(clients: Clients, count: int) -> None:
    """One batch of so many lines, uploaded, ordered, and asked for until its output is there."""
    told = [clients.new("batch") for _ in range(count)]
    lines = b"".join(line(one.marker, chat(MODEL, user=one.marker)) + b"\n" for one in told)
    upload = {"files": {"file": ("in.jsonl", lines)}, "data": {"purpose": "batch"}}
    file = (await clients.request(told, "POST", "/v1/files", **upload)).json()
    order = {"input_file_id": file["id"], "endpoint": _CHAT, "completion_window": "24h"}
    headers = {"idempotency-key": told[0].marker}
    batch = (await clients.request(told, "POST", "/v1/batches", json=order, headers=headers)).json()
    for one in told:
        one.accepted = True
    while batch.get("status") in _UNFINISHED:
        await asyncio.sleep(2 * _PAUSE_S)
        batch = (await clients.request([], "GET", f"/v1/batches/{batch['id']}")).json()
    for name in ("output_file_id", "error_file_id"):
        if batch.get(name):
            content = await clients.request([], "GET", f"/v1/files/{batch[name]}/content")
            for text in content.text.splitlines():
                _end_with_result(clients, json.loads(text))


class KafkaDoor:
    """Lines published to `sluice.jobs.batch`, and the team's results topic."""

    def __init__(self, clients: Clients) -> None:
        self._clients = clients
        self._producer: Any = AIOKafkaProducer(bootstrap_servers=clients.system.kafka, acks="all", enable_idempotence=True)
        self._consumer: Any = AIOKafkaConsumer(
            f"sluice.results.{clients.team.name}", bootstrap_servers=clients.system.kafka, auto_offset_reset="earliest"
        )

    async def start(self) -> None:
        await asyncio.gather(self._producer.start(), self._consumer.start())

    async def stop(self) -> None:
        await asyncio.gather(self._producer.stop(), self._consumer.stop(), return_exceptions=True)

    async def send(self) -> None:
        """One line; returns when it was acknowledged."""
        told = self._clients.new("kafka")
        value = line(told.marker, chat(MODEL, user=told.marker))
        while not told.accepted:
            told.tries += 1
            try:
                await self._producer.send_and_wait("sluice.jobs.batch", value, headers=list(bearer(self._clients.token)))
                told.accepted = True
            except KafkaError:
                await asyncio.sleep(_PAUSE_S)

    async def read(self) -> None:
        """Takes in the results, until it is cancelled."""
        while True:
            try:
                batches = cast("dict[Any, list[Any]]", await self._consumer.getmany(timeout_ms=500))
            except KafkaError:
                await asyncio.sleep(_PAUSE_S)
                continue
            for record in (record for records in batches.values() for record in records):
                _end_with_result(self._clients, json.loads(record.value))


def _end_with_result(clients: Clients, result: dict[str, Any]) -> None:
    response = cast("dict[str, Any]", result.get("response") or {})
    told = clients.told[str(result["custom_id"])]
    told.end(int(response.get("status_code") or 499), str(response.get("request_id") or f"job_{result['id'][10:]}"))
