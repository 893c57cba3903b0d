"""The inbound hook: what isn't signed by who has the secret, just now, and for the first time, decides nothing."""

import base64
import json
import re
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import SecretStr
from starlette.applications import Starlette
from starlette.exceptions import HTTPException

from infra.credentials import key_hash
from infra.faults import on_error
from infra.redis.client import RedisUnavailable, Script, Value
from infra.redis.once import Once
from infra.settings import Settings
from infra.webhooks.signing import shown, signed_headers
from schemas.control import Approval
from schemas.errors import SluiceError
from services.portal.access import Actor
from services.portal.hooks import ItsmHook, itsm_secrets
from services.portal.itsm import Ticket, verdict
from tests.fakes.clock import FakeClock
from tests.fakes.control import FakeControl
from tests.fakes.redis import LuaRedis
from tests.unit.services.portal import approving
from tests.unit.services.portal.approving import COLLEAGUE, HOUSE, MEMBER

DOCS = Path(__file__).parents[4] / "docs" / "approvals.md"

SECRET, OLD = b"n" * 32, b"o" * 32
MINUTE_MS = 60_000


class FlakyRedis(LuaRedis):
    """`away`: it doesn't answer."""

    away = False

    async def run(self, script: Script, keys: Any, args: Any = ()) -> Value:
        if self.away:
            raise RedisUnavailable("timed out")
        return await super().run(script, keys, args)


class Bench:
    def __init__(self) -> None:
        self.clock = FakeClock()
        self.redis = FlakyRedis(self.clock)
        self.control = FakeControl()
        self.control.put(*HOUSE)
        self.approvals = approving.approvals(self.control, self.redis, self.clock)
        hook = ItsmHook(self.approvals, Once(self.redis), self.clock, (SECRET, OLD))
        handled = (SluiceError, RedisUnavailable, HTTPException, Exception)
        app = Starlette(routes=hook.routes, exception_handlers=dict.fromkeys(handled, on_error))
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        self.http = httpx.AsyncClient(transport=transport, base_url="http://portal")

    def headers(self, body: bytes, event_id: str = "msg_1", secret: bytes = SECRET, late_ms: int = 0) -> dict[str, str]:
        return signed_headers([secret], event_id, (self.clock() - late_ms) // 1000, body)

    async def post(self, body: bytes, headers: dict[str, str]) -> httpx.Response:
        return await self.http.post("/hooks/itsm", content=body, headers=headers)

    async def send(self, ticket: dict[str, object], event_id: str = "msg_1") -> httpx.Response:
        """As a sender with the secret does."""
        body = json.dumps(ticket).encode()
        return await self.post(body, self.headers(body, event_id))

    async def pending(self, actor: Actor = MEMBER) -> Approval:
        return await self.approvals.ask(actor, approving.key())

    def status(self, approval: Approval) -> str:
        return self.control.table.approvals[approval.id].status


@pytest.fixture
def bench() -> Bench:
    return Bench()


def ticket(asked: Approval, /, **more: object) -> dict[str, object]:
    return {
        "number": "RITM0012345",
        "sys_id": "a1",
        "state": "approved",
        "approver": "grace@corp.example",
        "comments": "within plan",
        "u_sluice_request": asked.id,
    } | more


def refused(answer: httpx.Response, status: int, code: str | None) -> str:
    """The sentence of an error."""
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (status, code), answer.text
    return str(error["message"])


# What is good


async def test_an_approval_over_there_grants_here(bench: Bench) -> None:
    asked = await bench.pending()
    answer = await bench.send(ticket(asked))
    assert answer.status_code == 200, answer.text
    told = answer.json()["approval"]
    assert (told["status"], told["decided_by"], told["ticket"]) == ("granted", "itsm/grace@corp.example", "RITM0012345")
    assert told["reason"] == "RITM0012345: within plan"
    (granted,) = bench.control.topic.by("approval.granted")
    assert granted.author.actor == "itsm/grace@corp.example"
    collected = await bench.approvals.collect(MEMBER, asked.id)
    assert key_hash(collected.key) in bench.control.table.keys_by_hash


@pytest.mark.parametrize(
    "said", [{"state": "rejected"}, {"state": "2", "approval": "rejected"}, {"state": 3, "approval": "Rejected"}]
)
async def test_a_rejection_over_there_refuses_here(bench: Bench, said: dict[str, object]) -> None:
    asked = await bench.pending()
    answer = await bench.send(ticket(asked, **said))
    assert answer.json()["approval"]["status"] == "refused"


@pytest.mark.parametrize("said", [{"state": "requested"}, {"state": 1, "approval": "not requested"}, {"state": ""}])
async def test_what_is_not_decided_yet_changes_nothing(bench: Bench, said: dict[str, object]) -> None:
    asked = await bench.pending()
    answer = await bench.send(ticket(asked, **said))
    assert (answer.status_code, answer.json()) == (200, {"approval": None})
    assert bench.status(asked) == "pending"


async def test_the_secret_before_is_taken_while_both_are_named(bench: Bench) -> None:
    asked = await bench.pending()
    body = json.dumps(ticket(asked)).encode()
    assert (await bench.post(body, bench.headers(body, secret=OLD))).status_code == 200


async def test_one_good_signature_among_others_is_enough(bench: Bench) -> None:
    body = json.dumps(ticket(await bench.pending())).encode()
    headers = bench.headers(body)
    headers["webhook-signature"] = f"v1a,x v1,AAAA {headers['webhook-signature']}"
    assert (await bench.post(body, headers)).status_code == 200


# What is feared


async def attack(bench: Bench, body: bytes, headers: dict[str, str]) -> None:
    asked = await bench.pending()
    refused(await bench.post(body.replace(b"ID", asked.id.encode()), headers), 401, "invalid_signature")
    assert bench.status(asked) == "pending"


FORGED: dict[str, dict[str, str]] = {
    "no headers": {},
    "no signature": {"webhook-signature": ""},
    "nonsense": {"webhook-signature": "v1,AAAA"},
    "another version": {"webhook-signature": "v2,{}"},
    "without its version": {"webhook-signature": "{}"},
    "not ASCII": {"webhook-signature": "v1,\xe9"},
    "many signatures": {"webhook-signature": "v1,AAAA " * 20 + "v1,{}"},
    "no id": {"webhook-id": ""},
    "an id with a dot": {"webhook-id": "msg.1"},
    "an id that is long": {"webhook-id": "m" * 129},
    "another id": {"webhook-id": "msg_2"},
    "no time": {"webhook-timestamp": ""},
    "another time": {"webhook-timestamp": "1800000001"},
    "a time that isn't a number": {"webhook-timestamp": "now"},
    "a time with a sign": {"webhook-timestamp": "+1800000000"},
    "a time with a zero before it": {"webhook-timestamp": "01800000000"},
    "a time in other digits": {"webhook-timestamp": "١٨٠٠٠٠٠٠٠٠"},
}


@pytest.mark.parametrize("what", FORGED)
async def test_what_is_not_signed_decides_nothing(bench: Bench, what: str) -> None:
    asked = await bench.pending()
    body = json.dumps(ticket(asked)).encode()
    right = bench.headers(body)
    fill = right["webhook-signature"].removeprefix("v1,")
    wrong = {name: value.replace("{}", fill) for name, value in FORGED[what].items()}
    headers = {**right, **wrong} if wrong else {"content-type": "application/json"}
    encoded = [(name.encode(), value.encode("utf-8" if "digits" in what else "latin-1")) for name, value in headers.items()]
    answer = await bench.http.post("/hooks/itsm", content=body, headers=encoded)
    refused(answer, 401, "invalid_signature")
    assert bench.status(asked) == "pending"


async def test_another_secret_decides_nothing(bench: Bench) -> None:
    asked = await bench.pending()
    body = json.dumps(ticket(asked)).encode()
    refused(await bench.post(body, bench.headers(body, secret=b"x" * 32)), 401, "invalid_signature")
    assert bench.status(asked) == "pending"


async def test_a_body_that_was_changed_decides_nothing(bench: Bench) -> None:
    asked, other = await bench.pending(), await bench.pending()
    body = json.dumps(ticket(asked, state="rejected")).encode()
    for changed in (
        body.replace(b"rejected", b"approved"),
        body.replace(asked.id.encode(), other.id.encode()),
        body + b" ",
        b"",
    ):
        refused(await bench.post(changed, bench.headers(body)), 401, "invalid_signature")
    assert {bench.status(asked), bench.status(other)} == {"pending"}


async def test_an_id_and_a_time_do_not_pass_for_others_under_one_signature(bench: Bench) -> None:
    """`a.1` at 2 with body `x`, and `a` at 1 with body `2.x`, are signed alike."""
    body = json.dumps(ticket(await bench.pending())).encode()
    now_s = str(bench.clock() // 1000)
    headers = signed_headers([SECRET], "msg_1", bench.clock() // 1000, now_s.encode() + b"." + body)
    headers |= {"webhook-id": f"msg_1.{now_s}", "webhook-timestamp": now_s}
    refused(await bench.post(body, headers), 401, "invalid_signature")


@pytest.mark.parametrize("late_ms", [301_000, -301_000, 86_400_000])
async def test_what_was_sent_long_ago_or_is_yet_to_be_sent_decides_nothing(bench: Bench, late_ms: int) -> None:
    asked = await bench.pending()
    body = json.dumps(ticket(asked)).encode()
    assert "300 s" in refused(await bench.post(body, bench.headers(body, late_ms=late_ms)), 401, "invalid_signature")
    assert bench.status(asked) == "pending"


@pytest.mark.parametrize("late_ms", [299_000, -299_000])
async def test_clocks_may_differ_by_five_minutes(bench: Bench, late_ms: int) -> None:
    body = json.dumps(ticket(await bench.pending())).encode()
    assert (await bench.post(body, bench.headers(body, late_ms=late_ms))).status_code == 200


async def test_a_replay_is_refused_for_as_long_as_it_would_be_taken(bench: Bench) -> None:
    body = json.dumps(ticket(await bench.pending())).encode()
    headers = bench.headers(body, late_ms=-300_000)
    assert (await bench.post(body, headers)).status_code == 200
    for _ in range(10):
        refused(await bench.post(body, headers), 409, "webhook_replayed")
        bench.clock.move(MINUTE_MS)
    bench.clock.move(1000)
    refused(await bench.post(body, headers), 401, "invalid_signature")


async def test_a_replay_of_what_was_refused_does_not_become_good_later(bench: Bench) -> None:
    """What was wrong with it may have been put right since, and somebody else sends it again."""
    variables = {"what": "model", "team": "fraud", "model": "cheap", "for_s": "3600"}
    body = json.dumps(
        {"number": "RITM1", "state": "approved", "approver": "boss", "requested_for": "ada", "variables": variables}
    ).encode()
    headers = bench.headers(body)
    refused(await bench.post(body, headers), 404, "model_not_found")
    bench.control.put(HOUSE[-1].model_copy(update={"name": "cheap"}))
    refused(await bench.post(body, headers), 409, "webhook_replayed")


async def test_two_of_one_at_once_are_handled_once(bench: Bench) -> None:
    asked = await bench.pending()
    body = json.dumps(ticket(asked)).encode()
    headers = bench.headers(body)
    await Once(bench.redis).begin("itsm:msg_1", 20_000)
    answer = await bench.post(body, headers)
    refused(answer, 503, "unavailable")
    assert answer.headers["retry-after"] == "20"
    bench.clock.move(20_000)
    assert (await bench.post(body, headers)).status_code == 200, "whoever began it has died"


async def test_while_redis_is_away_nothing_is_decided(bench: Bench) -> None:
    asked = await bench.pending()
    body = json.dumps(ticket(asked)).encode()
    headers = bench.headers(body)
    bench.redis.away = True
    answer = await bench.post(body, headers)
    refused(answer, 503, "state_unavailable")
    assert "retry-after" in answer.headers
    assert bench.status(asked) == "pending"
    bench.redis.away = False
    assert (await bench.post(body, headers)).status_code == 200, "the same webhook, sent again"


async def test_what_failed_by_our_fault_may_be_sent_again(bench: Bench) -> None:
    asked = await bench.pending()
    body = json.dumps(ticket(asked)).encode()
    headers = bench.headers(body)
    bench.control.topic.fail_before = 1
    assert (await bench.post(body, headers)).status_code == 500
    taken = await bench.post(body, headers)
    refused(taken, 503, "unavailable")
    bench.clock.move(int(taken.headers["retry-after"]) * 1000)
    assert (await bench.post(body, headers)).status_code == 200
    assert bench.status(asked) == "granted"


async def test_who_asked_does_not_approve_over_there(bench: Bench) -> None:
    asked = await bench.pending(COLLEAGUE)
    refused(await bench.send(ticket(asked, approver="ada@corp.example")), 403, "four_eyes")
    assert bench.status(asked) == "pending"


async def test_what_is_decided_already_is_not_decided_over_there(bench: Bench) -> None:
    asked = await bench.pending()
    await bench.send(ticket(asked))
    refused(await bench.send(ticket(asked, state="rejected", number="RITM2"), "msg_2"), 409, "approval_granted")
    refused(await bench.send(ticket(asked, u_sluice_request="apr_none"), "msg_3"), 404, "not_found")


WRONG: dict[str, tuple[dict[str, object], str]] = {
    "no number": ({"state": "approved"}, "number"),
    "an odd number": ({"number": "RITM 1\n"}, "number"),
    "nobody decided": ({"number": "RITM1", "state": "approved"}, "approver"),
    "a contradiction": ({"number": "RITM1", "state": "approved", "approval": "rejected", "approver": "x"}, "state"),
    "nothing wanted": ({"number": "RITM1", "state": "approved", "approver": "x", "requested_for": "y"}, "variables.what"),
    "a list of things": (
        {"number": "RITM1", "state": "approved", "approver": "x", "requested_for": "y", "variables": {"what": ["key"]}},
        "variables.what",
    ),
    "for nobody": ({"number": "RITM1", "state": "approved", "approver": "x", "variables": {"what": "key"}}, "requested_for"),
    "for ever": (
        {"number": "RITM1", "state": "approved", "approver": "x", "requested_for": "y", "variables": {"what": "model"}},
        "variables.for_s",
    ),
    "no team": (
        {"number": "RITM1", "state": "approved", "approver": "x", "requested_for": "y", "variables": {"what": "key"}},
        "team",
    ),
}


@pytest.mark.parametrize("what", WRONG)
async def test_what_a_ticket_lacks_is_named(bench: Bench, what: str) -> None:
    given, param = WRONG[what]
    answer = await bench.send(given)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param), answer.text


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"\xff", b'"x"'])
async def test_what_is_no_ticket_is_refused(bench: Bench, body: bytes) -> None:
    assert (await bench.post(body, bench.headers(body))).status_code == 400


async def test_a_body_that_is_too_large_is_not_read_to_its_end(bench: Bench) -> None:
    body = b" " * 70_000
    refused(await bench.post(body, bench.headers(body)), 413, "request_too_large")


# Tickets that ask and decide at once


def whole(**more: object) -> dict[str, object]:
    variables = {"what": "key", "team": "fraud", "project": "scores", "models": "dear", "for_s": "86400"}
    return {
        "number": "RITM7",
        "approval": "approved",
        "sys_updated_by": "boss",
        "requested_for": "ada@corp.example",
        "variables": variables,
    } | more


async def test_a_ticket_that_says_all_makes_a_key_that_waits_for_who_it_is_for(bench: Bench) -> None:
    answer = await bench.send(whole())
    assert answer.status_code == 200, answer.text
    told = answer.json()["approval"]
    assert (told["requester"], told["status"], told["ticket"]) == (COLLEAGUE.name, "granted", "RITM7")
    collected = await bench.approvals.collect(COLLEAGUE, told["id"])
    key = bench.control.table.keys_by_hash[key_hash(collected.key)]
    assert (key.team, key.project, key.policy.models, key.expires_ms) == (
        "fraud",
        "scores",
        ("dear",),
        bench.clock() + 86_400_000,
    )
    assert collected.key not in answer.text


async def test_a_ticket_that_comes_twice_makes_one_key(bench: Bench) -> None:
    await bench.send(whole(), "msg_1")
    refused(await bench.send(whole(), "msg_2"), 409, "approval_granted")
    assert len(bench.control.topic.by("key.granted")) == 1


async def test_a_ticket_that_was_cut_off_is_granted_when_it_comes_again(bench: Bench) -> None:
    body = json.dumps(whole()).encode()
    bench.control.topic.fail_after = 1
    assert (await bench.post(body, bench.headers(body))).status_code == 500
    bench.clock.move(10_000)
    answer = await bench.post(body, bench.headers(body))
    assert answer.json()["approval"]["status"] == "granted"
    assert len(bench.control.topic.by("key.granted")) == 1


async def test_a_ticket_for_a_budget(bench: Bench) -> None:
    variables = {"what": "budget", "team": "fraud", "usd": "25.50", "period": "month", "tokens": "", "for_s": "3600"}
    answer = await bench.send(whole(variables=variables))
    assert answer.status_code == 200, answer.text
    assert bench.control.table.teams["fraud"].policy.budgets[0].usd_at(bench.clock()) == 125.5


async def test_who_a_ticket_is_for_does_not_approve_it(bench: Bench) -> None:
    refused(await bench.send(whole(sys_updated_by="ADA@corp.example")), 403, "four_eyes")
    assert not bench.control.table.approvals


async def test_a_rejected_ticket_that_nobody_asked_about_here_changes_nothing(bench: Bench) -> None:
    assert (await bench.send(whole(approval="rejected"))).json() == {"approval": None}
    assert not bench.control.table.approvals


async def test_the_tickets_in_the_documentation_do_what_it_says(bench: Bench) -> None:
    bench.control.put(HOUSE[-1].model_copy(update={"name": "small"}))
    decides, asks = map(json.loads, re.findall(r"```json\n(.*?)```", DOCS.read_text(), re.DOTALL))
    asked = await bench.pending()
    for number, sent in enumerate((decides | {"u_sluice_request": asked.id}, asks)):
        answer = await bench.send(sent, f"msg_{number}")
        assert answer.status_code == 200, answer.text
        assert (answer.json()["approval"]["status"], answer.json()["approval"]["ticket"]) == ("granted", sent["number"])


# Setting up


def itsm_settings(text: str) -> Settings:
    return Settings.model_construct(itsm_secret=SecretStr(text))


def test_without_a_secret_there_is_no_hook(bench: Bench) -> None:
    assert itsm_secrets(itsm_settings("")) == ()
    assert ItsmHook(bench.approvals, Once(bench.redis), bench.clock, ()).routes == []


def test_secrets_are_read_as_people_keep_them() -> None:
    assert itsm_secrets(itsm_settings(f"{shown(SECRET)}  {shown(OLD)}")) == (SECRET, OLD)


@pytest.mark.parametrize("text", ["hush", "whsec_", "whsec_!!!!", shown(b"short"), base64.b64encode(SECRET).decode()])
def test_a_secret_that_cannot_be_one_stops_the_start_and_is_not_told(text: str) -> None:
    with pytest.raises(ValueError, match="SLUICE_ITSM_SECRET") as raised:
        itsm_secrets(itsm_settings(text))
    assert text.removeprefix("whsec_") not in str(raised.value) or text == "whsec_"


def test_a_state_in_numbers_says_nothing() -> None:
    assert verdict(Ticket.model_validate({"number": "RITM1", "state": 2})) is None
