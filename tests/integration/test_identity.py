"""Who asks: the life of a virtual key, and people by the tokens of an OIDC issuer, a real one on loopback."""

import asyncio
import base64
import json
import uuid
from collections.abc import AsyncGenerator, Callable
from typing import Any

import httpx
import pytest

from tests.fakes.issuer import AUDIENCE, FakeIssuer, published, rsa_key, serving, signed
from tests.fakes.recorder import Recorder
from tests.integration.levels import CHAT, refused
from tests.system import Provider, System, Team, chat, prompt, until

HOUR_S = 3600


@pytest.fixture
async def team(system: System) -> Team:
    return await system.create_team_under("identity", {})


def client(system: System, **headers: str) -> httpx.AsyncClient:
    """A client with these headers, `_` for `-`."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return httpx.AsyncClient(base_url=system.url, headers=named, trust_env=False, timeout=30)


async def asked(system: System, key: str, **headers: str) -> httpx.Response:
    """What a key is answered."""
    async with client(system, authorization=f"Bearer {key}", **headers) as http:
        return await http.post(CHAT, json=chat("mock"))


# Virtual keys.


async def test_a_key_expires(system: System, team: Team) -> None:
    made = await system.json("keys", "create", "--team", team.name, "--expires-in", "2s", "--name", "short")
    assert (await asked(system, made["key"])).status_code == 200

    async def is_over() -> httpx.Response | None:
        answer = await asked(system, made["key"])
        return answer if answer.status_code != 200 else None

    assert "expired" in refused(await until(is_over), 401, "key_expired")
    shown = await system.json("keys", "show", made["id"])
    assert (shown["state"], shown["name"], shown["expires_ms"]) == ("expired", "short", made["expires_ms"])
    # It may be given more time by who may.
    await system.json("keys", "set", made["id"], "--never-expires")
    assert (await asked(system, made["key"])).status_code == 200


async def test_a_rotated_secret_is_taken_as_long_as_was_said(system: System, team: Team) -> None:
    made = await system.json("keys", "create", "--team", team.name)
    rotated = await system.json("keys", "rotate", made["id"], "--overlap", "2s")
    assert [(await asked(system, secret)).status_code for secret in (made["key"], rotated["key"])] == [200, 200]

    async def is_over() -> httpx.Response | None:
        answer = await asked(system, made["key"])
        return answer if answer.status_code != 200 else None

    assert "rotated" in refused(await until(is_over), 401, "key_rotated")
    assert (await asked(system, rotated["key"])).status_code == 200
    rows = await system.usage(team.name, 3)
    assert {row["key_id"] for row in rows} == {made["id"]}


async def test_a_revoked_key_is_refused_and_stays_so(system: System, team: Team) -> None:
    made = await system.json("keys", "create", "--team", team.name)
    assert (await asked(system, made["key"])).status_code == 200
    assert (await system.json("keys", "revoke", made["id"]))["state"] == "revoked"
    refused(await asked(system, made["key"]), 401, "invalid_api_key")
    rotated = await system.run("keys", "rotate", made["id"])
    assert rotated.status != 0
    assert "revoked" in rotated.err


async def test_a_key_is_used_from_its_networks_alone(system: System, team: Team) -> None:
    made = await system.json("keys", "create", "--team", team.name, "--ip-range", "10.0.0.0/8", "--ip-range", "2001:db8::/32")
    for headers in ({}, {"x_forwarded_for": "10.1.1.1"}, {"x_forwarded_for": "2001:db8::1, 10.1.1.1"}):
        assert "network address" in refused(await asked(system, made["key"], **headers), 403, "ip_not_allowed")
    await system.json("keys", "set", made["id"], "--ip-range", "127.0.0.0/8")
    assert (await asked(system, made["key"])).status_code == 200
    await system.json("keys", "set", made["id"], "--ip-range", "10.0.0.0/8")
    refused(await asked(system, made["key"]), 403, "ip_not_allowed")
    await system.json("keys", "set", made["id"], "--any-address")
    assert (await asked(system, made["key"])).status_code == 200


async def test_when_a_key_was_used_last_is_shown(system: System, team: Team) -> None:
    (key,) = await system.json("keys", "list", "--team", team.name)
    assert key["last_used_ms"] is None
    job = (await asked(system, team.key)).headers["x-sluice-job"]

    async def used() -> dict[str, Any] | None:
        shown = await system.json("keys", "show", key["id"])
        return shown if shown["last_used_ms"] else None

    shown = await until(used)
    row = await system.query(f"SELECT toUnixTimestamp64Milli(accepted) AS ms FROM usage WHERE job_id = '{job}'")
    assert row in ([], [{"ms": shown["last_used_ms"]}])


async def test_what_is_no_key_of_ours_is_refused(system: System, team: Team) -> None:
    flipped = team.key[:-1] + ("0" if team.key[-1] != "0" else "1")
    for secret in (
        flipped,
        team.key[:-1],
        team.key + "x",
        "sk-sl-",
        "sk-" + "x" * 48,
        team.key.upper(),
        "a.b",
        "a.b.c",
        "a.b.c.d.e",
    ):
        refused(await asked(system, secret), 401, "invalid_api_key")


# People.


class People:
    """An identity provider of the system's, and its issuer; what groups get, by group."""

    def __init__(self, system: System, issuer: FakeIssuer, name: str, team: Team) -> None:
        self.system, self.issuer, self.name, self.team = system, issuer, name, team

    def token(self, sub: str = "ada", *groups: str, **more: Any) -> str:
        return self.issuer.token(sub=sub, groups=list(groups), **more)

    def called(self, sub: str = "ada") -> str:
        """How a person stands on bills."""
        return f"{self.name}:{sub}"


@pytest.fixture(scope="module")
async def people(system: System) -> AsyncGenerator[People]:
    name = f"acme-{uuid.uuid4().hex[:6]}"
    team = await system.create_team("people")
    rules: list[dict[str, object]] = [
        {
            "group": "fraud",
            "team": team.name,
            "project": "screening",
            "environment": "prod",
            "policy": {"models": ["mock", "recorded"]},
        },
        {"group": "leads", "team": team.name, "role": "team_admin"},
        {"group": "auditors", "role": "auditor"},
        {"group": "chiefs", "role": "platform_admin"},
    ]
    with serving() as issuer:
        words = ["--issuer", issuer.url, "--audience", AUDIENCE, "--set", json.dumps({"groups": rules})]
        await system.json("identity-providers", "create", name, *words)
        yield People(system, issuer, name, team)
        await system.json("identity-providers", "delete", name)


async def row_of(system: System, answer: httpx.Response) -> dict[str, Any]:
    assert answer.status_code == 200, answer.text
    return await system.job(answer.headers["x-sluice-job"])


async def test_a_key_pays_and_a_token_says_who_asks(system: System, team: Team, people: People) -> None:
    (key,) = await system.json("keys", "list", "--team", team.name)
    token = people.token()
    by_header = await asked(system, team.key, x_sluice_identity=token)
    by_bearer = await asked(system, token, x_api_key=team.key)
    for answer in (by_header, by_bearer):
        row = await row_of(system, answer)
        assert (row["team"], row["key_id"], row["identity"]) == (team.name, key["id"], people.called())
        assert row["user"] in (people.called(), "ada")
    nobody = await row_of(system, await asked(system, team.key))
    assert (nobody["key_id"], nobody["identity"]) == (key["id"], "")


async def test_both_stand_on_the_trace(system: System, team: Team, people: People) -> None:
    (key,) = await system.json("keys", "list", "--team", team.name)
    answer = await asked(system, team.key, x_sluice_identity=people.token())
    await row_of(system, answer)
    traced = await system.json("trace", answer.headers["x-sluice-job"])
    assert (traced["key_id"], traced["identity"]) == (key["id"], people.called())


async def test_a_token_alone_is_billed_to_the_team_of_its_group(system: System, people: People) -> None:
    token = people.token("bob", "everybody", "fraud")
    row = await row_of(system, await asked(system, token))
    assert (row["team"], row["project"], row["environment"]) == (people.team.name, "screening", "prod")
    assert (row["key_id"], row["identity"]) == ("", people.called("bob"))
    async with client(system, authorization=f"Bearer {token}") as http:
        # What the rule of the group says counts.
        refused(await http.post(CHAT, json=chat("echo")), 403, "model_not_allowed")
        assert {model["id"] for model in (await http.get("/v1/models")).json()["data"]} == {"mock", "recorded"}


async def test_a_token_of_nobody_s_team_pays_nothing(system: System, people: People) -> None:
    assert "which team pays" in refused(await asked(system, people.token("carl", "everybody")), 403, "no_team")


async def test_a_user_s_own_budget_holds_whatever_key_pays(system: System, team: Team, people: People) -> None:
    async with system.admin() as admin:
        scope = {"user": people.called("dora")}
        set_ = await admin.put("/admin/v1/budgets", json={"scope": scope, "tokens": 1, "period": "total"})
        assert set_.status_code == 200, set_.text
    token = people.token("dora")
    message = refused(await asked(system, team.key, x_sluice_identity=token), 429, "budget_exceeded")
    assert f"user {people.called('dora')}" in message
    assert (await asked(system, team.key)).status_code == 200


async def test_a_policy_may_ask_who_it_is(system: System, people: People) -> None:
    team = await system.create_team_under("asks", {"identity": "required"})
    refused(await asked(system, team.key), 401, "identity_required")
    assert (await asked(system, team.key, x_sluice_identity=people.token())).status_code == 200


async def test_a_token_goes_no_further(system: System, team: Team, people: People, recorder: Recorder) -> None:
    token, marker = people.token("eve"), prompt()
    async with client(system, authorization=f"Bearer {team.key}", x_sluice_identity=token) as http:
        assert (await http.post(CHAT, json=chat("recorded", user=marker))).status_code == 200
    (seen,) = recorder.with_user(marker)
    for secret in (token, team.key, token.split(".")[2]):
        assert secret not in f"{seen.headers} {seen.body}"
        assert secret not in (system.data_dir / "up.log").read_text()


async def test_a_new_key_of_the_issuer_counts_and_an_old_one_no_more(system: System, team: Team, people: People) -> None:
    old = people.issuer.signer
    before = people.token("fay")
    assert (await asked(system, team.key, x_sluice_identity=before)).status_code == 200
    people.issuer.rotate(rsa_key("second"))
    try:

        async def is_taken() -> bool:
            return (await asked(system, team.key, x_sluice_identity=people.token("fay"))).status_code == 200

        # An unknown key id asks the issuer, at most every 30 s.
        assert await until(is_taken, 35)
        assert (await asked(system, team.key, x_sluice_identity=before)).status_code == 200
    finally:
        people.issuer.signer = old


async def test_a_batch_is_billed_to_who_ordered_it(system: System, team: Team, people: People) -> None:
    (key,) = await system.json("keys", "list", "--team", team.name)
    line = json.dumps({"custom_id": "1", "method": "POST", "url": CHAT, "body": chat("mock")}).encode()
    for sdk, owner, key_id in (
        (team.openai(default_headers={"x-sluice-identity": people.token("gus")}), team, key["id"]),
        (people.team.openai(api_key=people.token("gus", "fraud")), people.team, ""),
    ):
        async with sdk:
            file = await sdk.files.create(file=("in.jsonl", line), purpose="batch")
            made = await sdk.batches.create(input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h")

            async def over(sdk: Any = sdk, batch_id: str = made.id) -> Any:
                batch = await sdk.batches.retrieve(batch_id)
                return batch if batch.status == "completed" else None

            batch = await until(over, 60)
            told = (await sdk.files.content(batch.output_file_id or batch.error_file_id)).text
        assert batch.request_counts.completed == 1, told
        where = f"team = '{owner.name}' AND lane = 'batch'"
        (row,) = await until(lambda where=where: system.query(f"SELECT key_id, identity FROM usage WHERE {where}"))
        assert (row["key_id"], row["identity"]) == (key_id, people.called("gus"))


# Attacks.


def unsigned(issuer: FakeIssuer) -> str:
    head, claims = ({"alg": "none", "typ": "JWT", "kid": "first"}, issuer.claims())
    parts = (base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in (head, claims))
    return ".".join(parts) + "."


def by_public_key(issuer: FakeIssuer) -> str:
    header = {"alg": "HS256", "typ": "JWT", "kid": "first"}
    return signed(header, issuer.claims(), rsa_key("first").as_pem(private=False))


EVIL = rsa_key("evil")
ATTACKS: dict[str, Callable[[FakeIssuer], str]] = {
    "alg none": unsigned,
    "HS256 with the public key": by_public_key,
    "wrong iss": lambda issuer: issuer.token(iss="https://evil.example"),
    "wrong aud": lambda issuer: issuer.token(aud="api://other"),
    "no aud": lambda issuer: issuer.token(aud=None),
    "expired": lambda issuer: issuer.token(exp=issuer.now_s - HOUR_S),
    "never expires": lambda issuer: issuer.token(exp=None),
    "not yet valid": lambda issuer: issuer.token(nbf=issuer.now_s + HOUR_S),
    "kid of a file": lambda issuer: issuer.token(EVIL, {"kid": "../../../../dev/null"}),
    "kid of another key": lambda issuer: issuer.token(EVIL, {"kid": "first"}),
    "kid elsewhere": lambda issuer: issuer.token(EVIL, {"kid": "https://evil.example/keys"}),
    "jku": lambda issuer: issuer.token(EVIL, {"jku": "https://evil.example/keys"}),
    "jku of a good token": lambda issuer: issuer.token(header={"jku": f"{issuer.url}/keys"}),
    "jwk": lambda issuer: issuer.token(EVIL, {"jwk": published(EVIL)}),
    "x5u": lambda issuer: issuer.token(header={"x5u": "https://evil.example/certificate"}),
    "another type": lambda issuer: issuer.token(header={"typ": "sluice-job+jwt"}),
    "empty signature": lambda issuer: issuer.token().rpartition(".")[0] + ".",
    "changed claims": lambda issuer: changed(issuer.token()),
    "a megabyte": lambda issuer: issuer.token(padding="x" * 15_000),
}


def changed(token: str) -> str:
    head, claims, signature = token.split(".")
    told = json.loads(base64.urlsafe_b64decode(claims + "=="))
    body = base64.urlsafe_b64encode(json.dumps(told | {"sub": "root"}).encode()).decode().rstrip("=")
    return f"{head}.{body}.{signature}"


@pytest.mark.parametrize("attack", ATTACKS)
async def test_a_forged_token_opens_no_door(system: System, team: Team, people: People, provider: Provider, attack: str) -> None:
    """As identity beside a key, alone, and at the admin API: each time 401, and nobody is asked for anything."""
    token, before = ATTACKS[attack](people.issuer), await provider.last()
    ways = [
        client(system, authorization=f"Bearer {team.key}", x_sluice_identity=token),
        client(system, authorization=f"Bearer {token}", x_api_key=team.key),
        client(system, authorization=f"Bearer {token}"),
    ]
    for http in ways:
        async with http:
            answers = [await http.post(CHAT, json=chat("mock")), await http.post("/v1/embeddings", json={})]
            answers += [await http.get("/v1/models"), await http.get("/v1/batches")]
        for answer in answers:
            refused(answer, 401, "invalid_api_key")
            assert token not in answer.text
    async with client(system, authorization=f"Bearer {token}") as http:
        refused(await http.get("/admin/v1/teams"), 401, "invalid_api_key")
    assert [entry for entry in await provider.entries(after=before) if entry.key_tail == team.key[-4:]] == []
    assert (await asked(system, team.key, x_sluice_identity=people.token())).status_code == 200


async def test_a_job_token_says_nothing_of_who_asks(system: System, team: Team) -> None:
    token = await system.job_token(team)
    refused(await asked(system, token), 401, "invalid_api_key")
    refused(await asked(system, team.key, x_sluice_identity=token), 401, "invalid_api_key")
    async with client(system, authorization=f"Bearer {token}") as http:
        refused(await http.get("/admin/v1/teams"), 401, "invalid_api_key")


async def test_two_identities_are_one_too_many(system: System, people: People) -> None:
    token = people.token("ada", "fraud")
    assert "Two identity tokens" in refused(await asked(system, token, x_sluice_identity=token), 401, "invalid_api_key")


# Roles.


async def test_a_token_administrates_as_far_as_its_role_goes(system: System, team: Team, people: People) -> None:
    other, own = team.name, people.team.name
    cells: dict[str, tuple[int, ...]] = {
        # Of each group: teams listed, own team, other team, a key for one's own, for the other, a budget, a team, a provider.
        "chiefs": (200, 200, 200, 201, 201, 200, 201, 200),
        "auditors": (200, 200, 200, 403, 403, 403, 403, 200),
        "leads": (200, 200, 404, 201, 404, 403, 403, 403),
        # Without a role nothing is there: the list is empty.
        "fraud": (200, 404, 404, 404, 404, 404, 403, 403),
    }
    found: dict[str, tuple[int, ...]] = {}
    for group in cells:
        async with client(system, authorization=f"Bearer {people.token('zoe', group)}") as http:
            answers = [
                await http.get("/admin/v1/teams"),
                await http.get(f"/admin/v1/teams/{own}"),
                await http.get(f"/admin/v1/teams/{other}"),
                await http.post("/admin/v1/keys", json={"team": own}),
                await http.post("/admin/v1/keys", json={"team": other}),
                await http.put("/admin/v1/budgets", json={"scope": {"team": own}, "usd": "1000000", "period": "total"}),
                await http.post("/admin/v1/teams", json={"name": f"by-{group}-{uuid.uuid4().hex[:6]}"}),
                await http.get("/admin/v1/identity_providers"),
            ]
            found[group] = tuple(answer.status_code for answer in answers)
            names = {one["name"] for one in answers[0].json()["data"]}
            sees = {"leads": {own}, "fraud": set[str]()}
            assert names == sees[group] if group in sees else names >= {own, other}
    assert found == cells
    # Whoever has a key administrates nothing, whoever he is.
    async with client(system, x_api_key=team.key) as http:
        refused(await http.get("/admin/v1/teams"), 403, "not_admin")


async def test_what_a_person_did_stands_in_the_events(system: System, people: People) -> None:
    name = f"made-{uuid.uuid4().hex[:6]}"
    async with client(system, authorization=f"Bearer {people.token('hal', 'chiefs')}") as http:
        assert (await http.post("/admin/v1/teams", json={"name": name})).status_code == 201

    async def told() -> list[dict[str, Any]]:
        return await system.json("events", "--resource", f"team/{name}")

    (event,) = await until(told)
    assert (event["actor"], event["action"]) == (f"user/{people.called('hal')}", "team.created")


async def test_a_role_that_was_taken_away_is_gone_at_once(system: System, people: People) -> None:
    name = people.called("ivy")
    await system.json("users", "create", name, "--role", "auditor")
    async with client(system, authorization=f"Bearer {people.token('ivy')}") as http:
        assert (await http.get("/admin/v1/identity_providers")).status_code == 200
        assert (await http.get("/admin/v1/teams")).json()["data"]
        await system.json("users", "set", name, "--no-role")
        refused(await http.get("/admin/v1/identity_providers"), 403, "not_admin")
        assert (await http.get("/admin/v1/teams")).json()["data"] == []


async def test_an_issuer_that_was_removed_speaks_for_nobody(system: System, team: Team) -> None:
    name = f"gone-{uuid.uuid4().hex[:6]}"
    with serving() as issuer:
        await system.json("identity-providers", "create", name, "--issuer", issuer.url, "--audience", AUDIENCE)
        token = issuer.token()
        assert (await asked(system, team.key, x_sluice_identity=token)).status_code == 200
        await system.json("identity-providers", "delete", name)
        assert "not configured" in refused(await asked(system, team.key, x_sluice_identity=token), 401, "invalid_api_key")
        assert await asyncio.to_thread(lambda: len(issuer.asked)) <= 4
