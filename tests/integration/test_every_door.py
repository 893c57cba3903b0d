"""Every route and every door is admitted, limited and billed, or it is known why it needn't be (`doors.py`, as data).

The routes are those of the services as they are put together to be run, and the topics those that they subscribe: who adds one
has to say what it is, and if it makes jobs, how it is asked (`ways.py`). Then each way is tried against a whole system.
"""

import asyncio
import json
import re
import socket
import uuid
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, TypeVar, cast

import httpx
import pytest
from starlette.routing import Route

from benchmarks.mock_ledger import Entry
from infra.clock import now_ms
from infra.credentials import JobTokens, new_key
from infra.files import FileStore
from infra.kafka.broker import Kafka
from infra.kafka.loads import Loads
from infra.kafka.log import Source
from infra.kafka.neighbours import Neighbours
from infra.kafka.results import Results
from infra.kafka.table import Control
from infra.pace import Pace
from infra.platform import Platform
from infra.redis.client import Redis
from infra.runtime import Runtime
from infra.settings import Settings
from infra.signing import Signer
from infra.telemetry.spans import open_tracing
from infra.webhooks.signing import shown, signed_headers
from schemas.topics import TOPICS as ALL_TOPICS
from services.cli.compose import SERVICES, build
from tests.integration.doors import DOORS, HTTP, TOPICS, Administers, MakesJobs, Open, OwnThings, Signed
from tests.integration.ways import REPLAY, WAYS, Bench, Told, Try, Way, held
from tests.kafka_client import bearer, line, publish, tail_of
from tests.system import ITSM_SECRET, PROVIDER_KEY, Provider, System, Team, chat, cost_usd, prompt, until

NOWHERE = "127.0.0.1:1"
AT_ONCE = 6

T = TypeVar("T")


# What there is


class Subscriptions(Kafka):
    """A connection that is never made, and which groups were to read what."""

    def __init__(self) -> None:
        super().__init__(NOWHERE)
        self.read: dict[str, Collection[str]] = {}

    def source(self, group: str, topics: Collection[str], slot: str | None, may_wait_ms: int = 0) -> Source:
        self.read[group] = topics
        return super().source(group, topics, slot, may_wait_ms)


@dataclass(frozen=True, slots=True)
class Built:
    """Routes of a process in which all services run, and what they subscribe."""

    routes: list[Any]
    read: Mapping[str, Collection[str]]


@pytest.fixture(scope="module")
async def built(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Built]:
    """All services, put together as `sluice up` does it, and never started. With a secret there is also the hook."""
    folder = tmp_path_factory.mktemp("built")
    kafka, redis = Subscriptions(), Redis(f"redis://{NOWHERE}", 1)
    platform = Platform(
        settings=Settings.model_validate({"data_dir": folder, "admin_key": "x", "itsm_secret": shown(ITSM_SECRET)}),
        kafka=kafka,
        redis=redis,
        control=Control(kafka),
        files=FileStore(folder / "files"),
        signer=Signer(ITSM_SECRET),
        tokens=JobTokens(ITSM_SECRET),
        tracing=open_tracing("doors", "", ""),
        clock=now_ms,
        life="life",
        neighbours=Neighbours(),
        results=Results(kafka),
        loads=Loads(redis, now_ms),
        pace=Pace(),
    )
    with socket.socket() as listener:
        runtime = Runtime(platform, [build(name, platform) for name in SERVICES], listener)
        # Whatever is served goes through this application, also what the runtime adds of its own.
        yield Built(list(cast("Any", runtime)._server.config.app.routes), kafka.read)
    await kafka.stop()


def test_every_route_is_known_and_none_is_left_over(built: Built) -> None:
    assert {type(route) for route in built.routes} == {Route}, "what is mounted or speaks WebSocket is no less a door"
    served = [f"{method} {re.sub(':[a-z]+}', '}', route.path)}" for route in built.routes for method in route.methods - {"HEAD"}]
    assert sorted(set(served) - set(HTTP)) == [], "say in doors.py what this is"
    assert sorted(served) == sorted(HTTP)


def test_every_topic_that_others_write_to_is_known_and_read_by_the_door_alone(built: Built) -> None:
    others = {name for topic in ALL_TOPICS if set(topic.writers) - set(SERVICES) for name in topic.names()}
    assert {f"KAFKA {name}" for name in others} == set(TOPICS)
    readers = {group for group, topics in built.read.items() if others & set(topics)}
    assert readers == {"sluice-door"}


def test_everything_that_is_read_is_a_topic_with_known_writers(built: Built) -> None:
    known = {name for topic in ALL_TOPICS for name in topic.names()}
    assert {name for topics in built.read.values() for name in topics} <= known


def test_every_door_that_makes_jobs_is_tried_in_some_way() -> None:
    assert {way.door for way in WAYS.values()} == {name for name, entry in DOORS.items() if isinstance(entry, MakesJobs)}


# The house


@pytest.fixture(scope="module")
async def bench(system: System, provider: Provider) -> AsyncGenerator[Bench]:
    first = await provider.last()
    async with tail_of(system.kafka, "sluice.dead") as dead:
        yield Bench(system, provider, first, dead)


@dataclass(frozen=True, slots=True)
class Payer:
    """A team, and the id of its key."""

    team: Team
    key_id: str


async def payer(bench: Bench, name: str) -> Payer:
    """A new team that may do anything."""
    name = f"{name}-{uuid.uuid4().hex[:6]}"
    async with bench.admin() as admin:
        assert (await admin.post("/admin/v1/teams", json={"name": name})).status_code == 201
        key = (await admin.post("/admin/v1/keys", json={"team": name})).json()
    return Payer(Team(name, key["key"], bench.system.url), key["id"])


async def put_under(bench: Bench, team: Team, policy: Mapping[str, object]) -> None:
    async with bench.admin() as admin:
        changed = await admin.patch(f"/admin/v1/teams/{team.name}", json={"policy": policy})
    assert changed.status_code == 200, changed.text


async def each(names: Collection[str], run: Callable[[Way], Awaitable[T]]) -> dict[str, T | Exception]:
    """What these ways come to, some of them at once; what goes wrong with one is its own."""
    some = asyncio.Semaphore(AT_ONCE)

    async def one(name: str) -> T | Exception:
        async with some:
            try:
                return await run(WAYS[name])
            except Exception as error:
                return error

    return dict(zip(names, await asyncio.gather(*map(one, names)), strict=True))


def came_of(found: Mapping[str, T | Exception], name: str) -> T:
    """What a way came to. Raises what went wrong with it."""
    match found[name]:
        case Exception() as error:
            raise error
        case came:
            return cast("T", came)


# Admitted, limited, billed


METERED: Mapping[str, object] = {
    # One a day besides: on a slow machine a minute may pass between two tries.
    "limits": {"requests_per_minute": 1, "requests_per_day": 1},
    "budgets": [{"usd": "10", "period": "total"}],
}


@dataclass(frozen=True, slots=True)
class Metered:
    """A request that fits, the same again where that is the same job, and one more than fit; with their calls."""

    payer: Payer
    first: Try
    told: Told
    repeated: Told | None
    second: Try
    refused: Told


@pytest.fixture(scope="module")
async def metered(bench: Bench) -> dict[str, Metered | Exception]:
    """Each way, tried by a team of its own that may ask once."""

    async def run(way: Way) -> Metered:
        own = await payer(bench, "metered")
        first, second = [await way.prepared(bench, own.team) for _ in range(2)]
        await put_under(bench, own.team, METERED)
        told = await first.ask()
        repeated = await first.ask() if way.repeats else None
        return Metered(own, first, told, repeated, second, await second.ask())

    return await each(WAYS, run)


async def calls(bench: Bench, one: Try) -> list[Entry]:
    """The calls of a try that is over, without those before it."""
    return (await bench.calls(one.marker))[one.called :]


@pytest.mark.parametrize("name", WAYS)
async def test_what_is_admitted_is_called_once_and_billed_to_who_asked(
    bench: Bench, metered: dict[str, Metered | Exception], name: str
) -> None:
    found, way = came_of(metered, name), WAYS[name]
    assert found.told.status == 200, found.told
    (call,) = await calls(bench, found.first)
    (row,) = await until(lambda: bench.query(f"SELECT * FROM usage WHERE job_id = '{found.told.job}'"))
    assert (row["team"], row["key_id"], row["lane"], row["status"]) == (
        found.payer.team.name,
        found.payer.key_id,
        way.lane,
        "completed",
    )
    assert (row["prompt_tokens"], row["completion_tokens"]) == (call.prompt_tokens, call.completion_tokens)
    assert row["cost_usd"] == cost_usd(call.prompt_tokens, call.completion_tokens) > 0


@pytest.mark.parametrize("name", [name for name, way in WAYS.items() if way.repeats])
async def test_what_is_asked_again_is_the_same_job_and_no_way_around_a_limit(
    metered: dict[str, Metered | Exception], name: str
) -> None:
    found = came_of(metered, name)
    assert found.repeated is not None
    assert (found.repeated.status, found.repeated.job) == (200, found.told.job)


@pytest.mark.parametrize("name", WAYS)
async def test_what_is_over_the_rate_is_refused_and_never_called(
    bench: Bench, metered: dict[str, Metered | Exception], name: str
) -> None:
    """In the batch lane and from a queue it waits for its turn, unless that comes after its deadline, as here."""
    found = came_of(metered, name)
    assert found.refused.status in (409, 429, 504), found.refused
    assert f"Rate limit reached for team {found.payer.team.name}: 1 of 1" in found.refused.message
    assert await calls(bench, found.second) == []


@pytest.mark.parametrize("name", WAYS)
async def test_afterwards_nothing_is_held_and_what_was_spent_is_what_was_billed(
    bench: Bench, metered: dict[str, Metered | Exception], name: str
) -> None:
    found = came_of(metered, name)
    team = found.payer.team.name
    entries = [await bench.calls(one.marker) for one in (found.first, found.second)]
    bill = sum((cost_usd(call.prompt_tokens, call.completion_tokens) for some in entries for call in some), Decimal(0))
    assert await settled(bench, team, bill) == bill
    (booked,) = await bench.query(f"SELECT sum(cost_usd) AS usd FROM usage WHERE team = '{team}'")
    assert booked["usd"] == bill


async def settled(bench: Bench, team: str, bill: Decimal) -> Decimal:
    """What a team's budget says is spent, once nothing is held there and as much is booked."""

    async def is_booked() -> bool:
        (booked,) = await bench.query(f"SELECT sum(cost_usd) AS usd FROM usage WHERE team = '{team}'")
        return booked["usd"] >= bill

    async def standing() -> Decimal | None:
        async with bench.admin() as admin:
            explained = (await admin.get("/admin/v1/budgets/explain", params={"team": team})).json()
        (line,) = explained["budgets"]
        spent, held = Decimal(line["spent_usd"]), Decimal(line["held_usd"])
        return spent if (held, line["held_tokens"], explained["reservations"]) == (0, 0, []) and spent >= bill else None

    assert await until(is_booked)
    return await until(standing)


async def test_the_command_line_says_so_too(bench: Bench, metered: dict[str, Metered | Exception]) -> None:
    found = came_of(metered, "chat")
    (call,) = await calls(bench, found.first)
    await settled(bench, found.payer.team.name, cost_usd(call.prompt_tokens, call.completion_tokens))
    told = await bench.system.json("budgets", "explain", "--team", found.payer.team.name)
    (budget,) = told["budgets"]
    assert (Decimal(budget["held_usd"]), told["reservations"]) == (0, [])
    assert Decimal(budget["spent_usd"]) == cost_usd(call.prompt_tokens, call.completion_tokens)


# Refused by policy


@dataclass(frozen=True, slots=True)
class Forbidding:
    """A policy under which nothing goes, by the words that say so. `lane`: nothing in this lane; None: in neither."""

    policy: Mapping[str, object]
    says: str
    lane: str | None = None
    spent: bool = False


FORBIDDING: Mapping[str, Forbidding] = {
    "a budget that is used up": Forbidding(
        {"budgets": [{"usd": "0.000001", "period": "total"}]}, "Budget exceeded for team", spent=True
    ),
    "a budget that has too little": Forbidding({"budgets": [{"usd": "0.000005", "period": "total"}]}, "Budget exceeded for team"),
    "tokens that are used up": Forbidding({"budgets": [{"tokens": 1, "period": "day"}]}, "Budget exceeded for team", spent=True),
    "no models": Forbidding({"models": []}, "may not use the model"),
    "who asks": Forbidding({"identity": "required"}, "asks who you are"),
    "the batch lane alone": Forbidding({"lanes": ["batch"]}, "may not use the lane", "interactive"),
    "the interactive lane alone": Forbidding({"lanes": ["interactive"]}, "may not use the lane", "batch"),
}


@dataclass(frozen=True, slots=True)
class Refused:
    """A try that was refused."""

    one: Try
    told: Told


@pytest.fixture(scope="module")
def forbidden(bench: Bench) -> Callable[[str], Awaitable[Mapping[str, Refused | Exception]]]:
    """By a policy, what came of each way; each policy is tried once."""
    known: dict[str, Mapping[str, Refused | Exception]] = {}

    async def under(what: str) -> Mapping[str, Refused | Exception]:
        if what not in known:
            known[what] = await tried_under(bench, FORBIDDING[what])
        return known[what]

    return under


async def tried_under(bench: Bench, what: Forbidding) -> dict[str, Refused | Exception]:
    """Each way, tried by a team that was put under a policy after it had made ready."""
    # Who has spent nothing may still have too little.
    team, spender = [(await payer(bench, name)).team for name in ("forbidden", "spender")]
    names = [name for name, way in WAYS.items() if what.lane in (None, way.lane)]
    tries = await each(names, lambda way: way.prepared(bench, spender if way.costs_before else team))
    for one in (team, spender):
        if what.spent:
            await spend(bench, one)
        await put_under(bench, one, what.policy)

    async def run(way: Way) -> Refused:
        one = came_of(tries, way.name)
        return Refused(one, await one.ask())

    return await each(names, run)


async def spend(bench: Bench, team: Team) -> None:
    """Spends something, and waits until the counters know."""
    async with bench.of(team) as client:
        assert (await client.post("/v1/chat/completions", json=chat("mock"))).status_code == 200
    await put_under(bench, team, {"budgets": [{"usd": "10", "period": "total"}]})
    await settled(bench, team.name, cost_usd(1, 1))


@pytest.mark.parametrize(
    ("what", "name"),
    [(what, name) for what, one in FORBIDDING.items() for name, way in WAYS.items() if one.lane in (None, way.lane)],
)
async def test_what_a_policy_forbids_is_refused_and_never_called(
    bench: Bench, forbidden: Callable[[str], Awaitable[Mapping[str, Refused | Exception]]], what: str, name: str
) -> None:
    found = came_of(await forbidden(what), name)
    assert found.told.status >= 400, found.told
    assert FORBIDDING[what].says in found.told.message
    assert await calls(bench, found.one) == []


# Refused by credential


GOOD_FOR: Mapping[str, Collection[str]] = {
    "a virtual key": ("POST /v1/",),
    "a job token": ("KAFKA ",),
    "the admin key": ("POST /admin/",),
}
"""What each credential that is good for something is good for."""


@pytest.fixture(scope="module")
async def credentials(bench: Bench) -> Mapping[str, str]:
    """Secrets by what they are; none of them is good at every door, and most at none."""
    good, gone = await payer(bench, "good"), await payer(bench, "gone")
    tokens = [await bench.token(one.team) for one in (good, gone)]
    async with bench.admin() as admin:
        assert (await admin.post(f"/admin/v1/keys/{gone.key_id}/revoke")).status_code == 200
        made = await admin.post("/admin/v1/operators", json={"name": "auditor", "role": "auditor"})
        assert made.status_code == 201, made.text
    return {
        "nothing": "",
        "nonsense": "let me in",
        "the beginning of a key": "sk-sl-",
        "a key that was never made": new_key(),
        "a mistyped key": f"{good.team.key[:-1]}{'0' if good.team.key[-1] != '0' else '1'}",
        "a revoked key": gone.team.key,
        "an unsigned token": "eyJhbGciOiJub25lIn0.eyJzdWIiOiJrZXkifQ.",
        "a revoked key's job token": tokens[1],
        "an operator's credential": made.json()["key"],
        "a virtual key": good.team.key,
        "a job token": tokens[0],
        "the admin key": bench.system.admin_key,
    }


@pytest.mark.parametrize("name", WAYS)
async def test_nobody_gets_in_without_the_right_credential(bench: Bench, credentials: Mapping[str, str], name: str) -> None:
    way, marker = WAYS[name], prompt()
    wrong = [what for what in credentials if not way.door.startswith(tuple(GOOD_FOR.get(what, ())) or "-")]
    statuses = {what: (await way.asked_as(bench, held(credentials[what]), marker)).status for what in wrong}
    known = ("a virtual key", "an operator's credential") if way.door.endswith(REPLAY) else ()
    assert statuses == {what: 403 if what in known else 401 for what in wrong}
    assert await bench.calls(marker) == []


OF_KEYS = [name for name, way in WAYS.items() if way.of_key]


@pytest.fixture(scope="module")
async def outlived(bench: Bench) -> dict[str, Refused | Exception]:
    """Each way, tried with a key that was revoked after everything was made ready."""
    own = await payer(bench, "outlived")
    tries = await each(OF_KEYS, lambda way: way.prepared(bench, own.team))
    async with bench.admin() as admin:
        assert (await admin.post(f"/admin/v1/keys/{own.key_id}/revoke")).status_code == 200

    async def run(way: Way) -> Refused:
        one = came_of(tries, way.name)
        return Refused(one, await one.ask())

    return await each(OF_KEYS, run)


@pytest.mark.parametrize("name", OF_KEYS)
async def test_what_was_made_ready_with_a_key_ends_with_it(
    bench: Bench, outlived: dict[str, Refused | Exception], name: str
) -> None:
    found = came_of(outlived, name)
    assert found.told.status in (401, 409), found.told
    assert await calls(bench, found.one) == []


# One's own things


@dataclass(frozen=True, slots=True)
class Things:
    """What a team has, by kind, and somebody of another team who knows all of its ids."""

    owner: Team
    stranger: Team
    ids: Mapping[str, str]


@pytest.fixture(scope="module")
async def things(bench: Bench) -> Things:
    """All of it is still under way, so that there is something to cancel."""
    owner, stranger = [(await payer(bench, name)).team for name in ("owner", "stranger")]
    await put_under(bench, stranger, {"models": ["echo"]})
    slow = "mock-words-200-chunkms-50"
    body = chat(slow, prompt(), stream=True)
    async with bench.of(owner) as client:
        job = await client.post("/v1/chat/completions", json=chat("mock"), headers={"prefer": "respond-async", **_tomorrow()})
        response = await client.post(
            "/v1/responses", json={"model": slow, "input": prompt(), "background": True, "stream": False}
        )
        lines = line("a", {name: value for name, value in body.items() if name != "stream"})
        file = await client.post("/v1/files", data={"purpose": "batch"}, files={"file": lines})
        order = {"input_file_id": file.json()["id"], "endpoint": "/v1/chat/completions", "completion_window": "24h"}
        batch = await client.post("/v1/batches", json=order)
    made = {"job": job, "response": response, "file": file, "batch": batch}
    assert {name: answer.status_code // 100 for name, answer in made.items()} == dict.fromkeys(made, 2)
    return Things(owner, stranger, {name: str(answer.json()["id"]) for name, answer in made.items()} | {"model": "mock"})


def _tomorrow() -> dict[str, str]:
    return {"x-sluice-not-before": str(now_ms() // 1000 + 20 * 3600)}


OWN = {name: entry for name, entry in HTTP.items() if isinstance(entry, OwnThings)}


async def asked(client: httpx.AsyncClient, name: str, things: Things) -> httpx.Response:
    """A route asked for the things of the owner; of a stream only its beginning."""
    method, entry = name.partition(" ")[0], OWN[name]
    sent: dict[str, Any] = {"json": entry.body} if entry.body is not None else {}
    if name == "POST /v1/files":
        sent = {"data": {"purpose": "batch"}, "files": {"file": b"{}"}}
    async with client.stream(method, entry.sent.format(**things.ids), **sent) as answer:
        if not answer.headers.get("content-type", "").startswith("text/event-stream"):
            await answer.aread()
        return answer


@pytest.mark.parametrize("name", OWN)
async def test_ones_own_things_are_shown_to_nobody_else(
    bench: Bench, things: Things, credentials: Mapping[str, str], name: str
) -> None:
    for what, secret in credentials.items():
        if what == "a virtual key":
            continue
        async with bench.http(held(secret)) as client:
            assert (what, (await asked(client, name, things)).status_code) == (what, 401)
    async with bench.of(things.stranger) as client:
        answer = await asked(client, name, things)
    match OWN[name].shows:
        case "thing":
            absent = Things(things.owner, things.stranger, {kind: _other(one) for kind, one in things.ids.items()})
            async with bench.of(things.stranger) as client:
                nothing = await asked(client, name, absent)
            assert (answer.status_code, nothing.status_code) == (404, 404)
            assert _without(answer.text, things) == _without(nothing.text, absent), "nobody learns what there is"
        case _:
            assert answer.status_code in (200, 201)
            assert not [one for one in things.ids.values() if f'"{one}"' in answer.text]


def _other(name: str) -> str:
    """An id of the same form that nobody has."""
    kind, _, digits = name.partition("_")
    return f"{kind}_{digits[:-4]}{'0000' if digits[-4:] != '0000' else '1111'}" if digits else "mocked"


def _without(text: str, things: Things) -> str:
    return re.sub("|".join(sorted(things.ids.values(), key=len, reverse=True)), "…", text)


@pytest.mark.parametrize("name", [name for name in OWN if name.startswith("GET ")])
async def test_ones_own_things_are_there_and_as_they_were(bench: Bench, things: Things, name: str) -> None:
    """After all that others tried."""
    async with bench.of(things.owner) as client:
        answer = await asked(client, name, things)
    assert answer.status_code == 200
    if OWN[name].shows == "list":
        assert [one for one in things.ids.values() if f'"{one}"' in answer.text]


async def test_what_others_tried_to_end_goes_on(bench: Bench, things: Things) -> None:
    async with bench.of(things.owner) as client:
        job = (await client.get(f"/v1/jobs/{things.ids['job']}")).json()
        response = (await client.get(f"/v1/responses/{things.ids['response']}")).json()
        batch = (await client.get(f"/v1/batches/{things.ids['batch']}")).json()
        await client.delete(f"/v1/jobs/{things.ids['job']}")
        await client.post(f"/v1/responses/{things.ids['response']}/cancel")
        await client.post(f"/v1/batches/{things.ids['batch']}/cancel")

        async def ended() -> bool:
            async with bench.admin() as admin:
                return (await admin.get(f"/admin/v1/jobs/{things.ids['job']}")).json()["status"] == "cancelled"

        assert await until(ended), "its owner can"
    assert job["status"] == "queued"
    assert response["status"] in ("queued", "in_progress", "completed")
    assert batch["status"] in ("validating", "in_progress", "finalizing", "completed")


# What teams could share by mistake (G30)


async def test_the_same_prompt_of_two_teams_is_two_calls(bench: Bench) -> None:
    marker = prompt()
    body = chat("mock", marker, user=marker)
    teams = [(await payer(bench, "same")).team for _ in range(2)]
    served: list[str] = []
    for team in (teams[0], teams[0], teams[1]):
        async with bench.of(team) as client:
            answer = await client.post("/v1/chat/completions", json=body)
        assert answer.status_code == 200, answer.text
        served.append(answer.headers["x-sluice-cache"])
    assert served == ["miss", "hit", "miss"]
    assert len(await bench.calls(marker)) == 2


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/responses", "/v1/embeddings", "/v1/batches"])
async def test_the_same_idempotency_key_of_two_teams_is_two_jobs(bench: Bench, path: str) -> None:
    key = {"idempotency-key": prompt(), "cache-control": "no-store"}
    words = {"/v1/chat/completions": {"messages": [{"role": "user", "content": prompt()}]}}.get(path, {"input": prompt()})
    ids: list[str] = []
    for _ in range(2):
        team = (await payer(bench, "key")).team
        async with bench.of(team) as client:
            body: dict[str, object] = {"model": "mock", **words}
            if path == "/v1/batches":
                file = await client.post("/v1/files", data={"purpose": "batch"}, files={"file": line("a", chat("mock"))})
                body = {"input_file_id": file.json()["id"], "endpoint": "/v1/chat/completions", "completion_window": "24h"}
            answer = await client.post(path, json=body, headers=key)
        assert answer.status_code == 200, answer.text
        assert "idempotent-replayed" not in answer.headers
        ids.append(answer.headers.get("x-sluice-job") or answer.json()["id"])
    assert len(set(ids)) == 2


async def test_another_teams_things_cannot_be_gone_on_with(bench: Bench, things: Things) -> None:
    told = {"model": "echo", "input": "and then?"}
    item = f"msg_{things.ids['response'].removeprefix('resp_')}"
    order = {"input_file_id": things.ids["file"], "endpoint": "/v1/chat/completions", "completion_window": "24h"}
    async with bench.of(things.stranger) as client:
        after = await client.post("/v1/responses", json={**told, "previous_response_id": things.ids["response"]})
        named = await client.post("/v1/responses", json={**told, "input": [{"type": "item_reference", "id": item}]})
        batch = await client.post("/v1/batches", json=order)
    assert (after.status_code, after.json()["error"]["code"]) == (404, "previous_response_not_found")
    assert (named.status_code // 100, batch.status_code) == (4, 404)


async def test_the_same_custom_id_of_two_teams_has_two_results(bench: Bench) -> None:
    custom_id, teams = prompt(), [(await payer(bench, "results")).team for _ in range(2)]
    said = {team.name: prompt() for team in teams}
    for team in teams:
        token = await bench.token(team)
        await publish(bench.system.kafka, "sluice.jobs.batch", [line(custom_id, chat("echo", said[team.name]))], bearer(token))
    for team in teams:
        async with tail_of(bench.system.kafka, f"sluice.results.{team.name}") as tail:
            await tail.read_until(lambda: bool(tail.records))
            await tail.read_to_end()
        (result,) = [record.json() for record in tail.records]
        assert said[team.name] in json.dumps(result)


# Administration, what is open, and the hook


ADMIN = [name for name, entry in HTTP.items() if isinstance(entry, Administers)]


@pytest.mark.parametrize("name", ADMIN)
async def test_nobody_administrates_without_a_role(bench: Bench, credentials: Mapping[str, str], name: str) -> None:
    """A key can't grant itself anything, nor anybody else."""
    method, _, path = name.partition(" ")
    for what, secret in credentials.items():
        if what in ("the admin key", "an operator's credential"):
            continue
        async with bench.http(held(secret)) as client:
            answer = await client.request(method, re.sub("{[a-z]+}", "x", path), json={} if method != "GET" else None)
        assert (what, answer.status_code) == (what, 403 if what == "a virtual key" else 401)


@pytest.mark.parametrize("name", [name for name, entry in HTTP.items() if isinstance(entry, Open)])
async def test_what_is_open_says_nothing_of_anybody(
    bench: Bench, credentials: Mapping[str, str], things: Things, name: str
) -> None:
    async with bench.http() as client:
        answer = await client.get(name.partition(" ")[2])
    assert answer.status_code == 200
    secrets = [secret for secret in credentials.values() if len(secret) > 8]
    entry = HTTP[name]
    names = () if isinstance(entry, Open) and entry.names_teams else (things.owner.name,)
    for told in (*secrets, *names, PROVIDER_KEY, things.owner.key, things.ids["job"]):
        assert told not in answer.text


@pytest.mark.parametrize("name", [name for name, entry in HTTP.items() if isinstance(entry, Signed)])
async def test_a_hook_takes_what_is_signed_and_no_key(bench: Bench, credentials: Mapping[str, str], name: str) -> None:
    path, body = name.partition(" ")[2], json.dumps({"number": "RITM1", "state": "open"}).encode()
    signatures = [signed_headers([b"x" * 32], "evt_1", now_ms() // 1000, body), {}]
    for secret in credentials.values():
        async with bench.http(held(secret)) as client:
            for headers in signatures:
                assert (await client.post(path, content=body, headers=headers)).status_code == 401
    async with bench.http() as client:
        signed = signed_headers([ITSM_SECRET], "evt_2", now_ms() // 1000, body)
        assert (await client.post(path, content=body, headers=signed)).status_code != 401
