"""When an issuer is asked for its keys, and what happens while it is away."""

import asyncio
import gzip
import json

import httpx
import pytest

from infra.oidc.jwks import FRESH_MS, MISSING_MS, MOST_BYTES, RETRY_MS, STALE_MS, TIMEOUT_S, UNWATCHED_MS
from schemas.errors import InvalidKey, Unavailable
from tests.fakes.clock import in_virtual_time
from tests.fakes.issuer import NOW_S, FakeIssuer, published, rsa_key
from tests.unit.infra.oidc.desk import Desk

BOTH = ["/.well-known/openid-configuration", "/keys"]
DAY_S = 24 * 3600


def long_token(desk: Desk, sub: str = "alice") -> str:
    """One that outlives every age of keys in these tests."""
    return desk.issuer.token(exp=NOW_S + 30 * DAY_S, sub=sub)


async def settled(desk: Desk) -> None:
    """Lets what runs in the background come to its end."""
    for _ in range(100):
        await asyncio.sleep(0)


@in_virtual_time
async def test_keys_are_fetched_once_and_kept() -> None:
    desk = Desk()
    for name in ("alice", "bob", "carol"):
        await desk.verify(desk.issuer.token(sub=name))
    assert desk.issuer.asked == BOTH


@in_virtual_time
async def test_an_address_that_is_configured_is_asked_without_discovery() -> None:
    desk = Desk(jwks_url="https://login.example/keys")
    await desk.verify(desk.issuer.token())
    assert desk.issuer.asked == ["/keys"]


@in_virtual_time
async def test_an_issuer_with_a_path() -> None:
    """Discovery 4.1: a slash at the end is left out before the well-known path is added, and nowhere else."""
    issuer = FakeIssuer("https://login.example/oauth2/default/")
    issuer.answers["/oauth2/default/.well-known/openid-configuration"] = httpx.Response(
        200, json={"issuer": issuer.url, "jwks_uri": "https://login.example/oauth2/default/v1/keys"}
    )
    issuer.answers["/oauth2/default/v1/keys"] = httpx.Response(200, json={"keys": issuer.keys})
    await Desk(issuer).verify(issuer.token())


@in_virtual_time
async def test_an_issuer_whose_keys_are_on_another_host() -> None:
    """As Google's are."""
    issuer = FakeIssuer()
    issuer.discovery["jwks_uri"] = "https://keys.example/certs?v=3"
    issuer.answers["/certs"] = httpx.Response(200, json={"keys": issuer.keys})
    await Desk(issuer).verify(issuer.token())


@in_virtual_time
async def test_many_at_once_share_one_fetch() -> None:
    desk = Desk()
    desk.issuer.wait = asyncio.Event()
    waiting = [asyncio.create_task(desk.verify(desk.issuer.token(sub=f"user {n}"))) for n in range(50)]
    await settled(desk)
    assert desk.issuer.asked == BOTH[:1]
    waiting[0].cancel()
    await settled(desk)
    desk.issuer.wait.set()
    found = await asyncio.gather(*waiting[1:])
    assert len(found) == 49, "who leaves takes nothing from the others"
    assert waiting[0].cancelled()
    assert desk.issuer.asked == BOTH


@in_virtual_time
async def test_a_new_key_is_taken_after_one_more_fetch() -> None:
    desk = Desk()
    await desk.verify(desk.issuer.token())
    desk.issuer.rotate(rsa_key("second"))
    for name in ("alice", "bob", "carol"):
        await desk.verify(desk.issuer.token(sub=name))
    assert desk.issuer.asked == BOTH * 2
    await desk.verify(desk.issuer.token(rsa_key("first")))


@in_virtual_time
async def test_many_with_a_new_key_share_one_fetch() -> None:
    desk = Desk()
    await desk.verify(desk.issuer.token())
    desk.issuer.rotate(rsa_key("second"))
    await asyncio.gather(*(desk.verify(desk.issuer.token(sub=f"user {n}")) for n in range(20)))
    assert desk.issuer.asked == BOTH * 2


@in_virtual_time
async def test_a_flood_of_unknown_keys_costs_one_fetch_in_half_a_minute() -> None:
    desk = Desk()
    await desk.verify(desk.issuer.token())
    for number in range(200):
        with pytest.raises(InvalidKey, match="doesn't publish"):
            await desk.verify(desk.issuer.token(header={"kid": f"unknown {number}"}))
        desk.clock.move(MISSING_MS // 200 - 1)
    assert desk.issuer.asked == BOTH * 2
    desk.clock.move(200)
    with pytest.raises(InvalidKey):
        await desk.verify(desk.issuer.token(header={"kid": "unknown"}))
    assert desk.issuer.asked == BOTH * 3


@in_virtual_time
async def test_a_removed_key_is_refused_after_the_next_fetch_even_for_tokens_that_are_remembered() -> None:
    desk = Desk()
    token = long_token(desk)
    await desk.verify(token)
    desk.issuer.rotate(rsa_key("second"), keep=False)
    await desk.verify(token)
    desk.clock.move(FRESH_MS)
    await desk.verify(token)
    await settled(desk)
    assert desk.issuer.asked == BOTH * 2, "a token that is remembered keeps the keys fresh as any other"
    await desk.refuses(token, "doesn't publish")


@in_virtual_time
async def test_another_key_under_the_same_id_is_another_key() -> None:
    desk = Desk()
    token = long_token(desk)
    await desk.verify(token)
    desk.issuer.keys = [published(rsa_key("second"), kid="first")]
    desk.clock.move(FRESH_MS)
    await desk.verify(token)
    await settled(desk)
    await desk.refuses(token, "wrong signature")


@in_virtual_time
async def test_an_issuer_that_publishes_nothing_any_more_has_no_tokens() -> None:
    desk = Desk()
    token = long_token(desk)
    await desk.verify(token)
    desk.issuer.keys = []
    desk.clock.move(FRESH_MS)
    await desk.verify(token)
    await settled(desk)
    await desk.refuses(token, "doesn't publish")


@in_virtual_time
async def test_old_keys_are_used_while_new_ones_are_fetched() -> None:
    desk = Desk()
    await desk.verify(desk.issuer.token())
    desk.issuer.wait = asyncio.Event()
    desk.clock.move(FRESH_MS - 1)
    await desk.verify(long_token(desk))
    assert desk.issuer.asked == BOTH
    desk.clock.move(1)
    for name in ("bob", "carol"):
        await desk.verify(long_token(desk, sub=name))
    await settled(desk)
    assert desk.issuer.asked == [*BOTH, BOTH[0]], "asked in the background, and nobody has waited"
    desk.issuer.wait.set()
    await settled(desk)
    desk.clock.move(FRESH_MS - 1)
    await desk.verify(long_token(desk, sub="dave"))
    assert desk.issuer.asked == BOTH * 2


@in_virtual_time
async def test_keys_that_nobody_looked_after_are_fetched_before_they_are_used() -> None:
    """After a quiet night the first token isn't judged by the keys of yesterday, unless there are no others."""
    desk = Desk()
    token = long_token(desk)
    await desk.verify(token)
    desk.issuer.rotate(rsa_key("second"), keep=False)
    desk.clock.move(UNWATCHED_MS)
    await desk.refuses(token, "doesn't publish")
    second = long_token(desk)
    await desk.verify(second)
    desk.issuer.wait = asyncio.Event()
    desk.clock.move(UNWATCHED_MS)
    loop = asyncio.get_running_loop()
    began = loop.time()
    await desk.verify(second)
    assert loop.time() - began == pytest.approx(TIMEOUT_S), "an issuer that hangs is waited for once"
    for _ in range(10):
        desk.clock.move(RETRY_MS)
        await desk.verify(second)
        await desk.verify(long_token(desk, sub="bob"))
    assert loop.time() - began == pytest.approx(TIMEOUT_S)
    await desk.tokens.close()


@in_virtual_time
async def test_an_unknown_key_while_keys_are_fetched_waits_for_them_and_may_still_ask_again() -> None:
    desk = Desk()
    await desk.verify(desk.issuer.token())
    desk.issuer.wait = asyncio.Event()
    desk.clock.move(FRESH_MS)
    await desk.verify(long_token(desk, sub="bob"))
    desk.issuer.rotate(rsa_key("second"))
    waiting = asyncio.create_task(desk.verify(long_token(desk, sub="carol")))
    await settled(desk)
    assert desk.issuer.asked == [*BOTH, BOTH[0]]
    desk.issuer.wait.set()
    await waiting
    desk.issuer.rotate(rsa_key("third"))
    await desk.verify(long_token(desk, sub="dave"))
    assert desk.issuer.asked == BOTH * 3


@in_virtual_time
async def test_keys_of_an_issuer_that_is_away_are_used_for_a_day() -> None:
    desk = Desk()
    token = long_token(desk)
    await desk.verify(token)
    desk.issuer.away = True
    desk.clock.move(STALE_MS - 1)
    await desk.verify(token)
    await desk.verify(long_token(desk, sub="bob"))
    await settled(desk)
    desk.clock.move(1)
    with pytest.raises(Unavailable, match="acme can't be had") as refusal:
        await desk.verify(token)
    assert refusal.value.fault().code == "identity_provider_unavailable"
    desk.issuer.away = False
    desk.clock.move(RETRY_MS)
    await desk.verify(token)


@in_virtual_time
async def test_an_issuer_that_was_never_there_is_asked_every_few_seconds_only() -> None:
    desk = Desk()
    desk.issuer.away = True
    for number in range(20):
        with pytest.raises(Unavailable):
            await desk.verify(desk.issuer.token(sub=f"user {number}"))
        desk.clock.move(RETRY_MS // 20)
    assert desk.issuer.asked == BOTH[:1]
    desk.issuer.away = False
    assert (await desk.verify(desk.issuer.token())).subject == "alice"


@in_virtual_time
async def test_a_new_key_while_the_issuer_is_away_is_the_tokens_fault() -> None:
    """Whoever makes up key ids must not turn refusals into outages."""
    desk = Desk()
    await desk.verify(desk.issuer.token())
    desk.issuer.away = True
    await desk.refuses(desk.issuer.token(rsa_key("second")), "half a minute")
    await desk.verify(desk.issuer.token(sub="bob"))


@in_virtual_time
async def test_an_issuer_that_hangs_is_waited_for_three_seconds() -> None:
    desk = Desk()
    desk.issuer.wait = asyncio.Event()
    loop = asyncio.get_running_loop()
    began = loop.time()
    with pytest.raises(Unavailable):
        await desk.verify(desk.issuer.token())
    assert loop.time() - began == pytest.approx(TIMEOUT_S)


@in_virtual_time
async def test_an_end_in_the_middle_leaves_nothing_behind() -> None:
    desk = Desk()
    desk.issuer.wait = asyncio.Event()
    waiting = asyncio.create_task(desk.verify(desk.issuer.token()))
    await settled(desk)
    await desk.tokens.close()
    with pytest.raises(Unavailable):
        await waiting
    assert len(asyncio.all_tasks()) == 1


DISCOVERY = BOTH[0]
KEYS = BOTH[1]


def discovery(issuer: str = "https://login.example", jwks_uri: object = "https://login.example/keys") -> httpx.Response:
    return httpx.Response(200, json={"issuer": issuer, "jwks_uri": jwks_uri})


@pytest.mark.parametrize(
    ("path", "answer", "why"),
    [
        (DISCOVERY, httpx.Response(404), "answered 404"),
        (DISCOVERY, httpx.Response(302, headers={"location": "https://login.example/keys"}), "answered 302"),
        (DISCOVERY, httpx.Response(200, text="<html>"), "names no issuer"),
        (DISCOVERY, httpx.Response(200, json={"issuer": "https://login.example"}), "names no issuer"),
        (DISCOVERY, discovery(jwks_uri=["https://login.example/keys"]), "names no issuer"),
        (DISCOVERY, discovery(issuer="https://evil.example"), "another issuer, 'https://evil.example'"),
        (DISCOVERY, discovery(issuer="https://login.example/"), "another issuer"),
        (DISCOVERY, discovery(jwks_uri="http://login.example/keys"), "must begin with https"),
        (DISCOVERY, discovery(jwks_uri="https://a:b@login.example/keys"), "hold no password"),
        (DISCOVERY, discovery(jwks_uri="file:///keys"), "must begin with https"),
        (DISCOVERY, discovery(jwks_uri="/keys"), "must begin with https"),
        (DISCOVERY, discovery(jwks_uri="http://127.0.0.1/keys"), "leads to this machine"),
        (DISCOVERY, discovery(jwks_uri="https://[::1]/keys"), "leads to this machine"),
        (DISCOVERY, discovery(jwks_uri="https://login.example:port/keys"), "InvalidURL"),
        (KEYS, httpx.Response(500), "answered 500"),
        (KEYS, httpx.Response(301, headers={"location": "https://evil.example/keys"}), "answered 301"),
        (KEYS, httpx.Response(200, text="[]"), "no JWK set"),
        (KEYS, httpx.Response(200, text='{"keys":{}}'), "no JWK set"),
        (KEYS, httpx.Response(200, json={"keys": [published(rsa_key("first"))] * 101}), "at most 100 keys"),
        (KEYS, httpx.Response(200, text="[" * 100_000), "no JWK set"),
        (KEYS, httpx.Response(200, text=json.dumps({"keys": [published(rsa_key("first"))]}) + " " * MOST_BYTES), "more than"),
    ],
)
@in_virtual_time
async def test_an_answer_that_is_none_leaves_the_keys_as_they_were(
    path: str, answer: httpx.Response, why: str, caplog: pytest.LogCaptureFixture
) -> None:
    desk = Desk()
    desk.issuer.answers[path] = answer
    with pytest.raises(Unavailable):
        await desk.verify(desk.issuer.token())
    assert why in caplog.text
    del desk.issuer.answers[path]
    desk.clock.move(RETRY_MS)
    await desk.verify(desk.issuer.token())

    desk.issuer.answers[path] = answer
    desk.clock.move(FRESH_MS)
    await desk.verify(long_token(desk, sub="bob"))
    await settled(desk)
    await desk.verify(long_token(desk, sub="carol"))
    assert caplog.text.count(why) == 2


@in_virtual_time
async def test_a_compressed_answer_is_not_unpacked() -> None:
    desk = Desk()
    packed = gzip.compress(json.dumps({"keys": desk.issuer.keys}).encode())
    desk.issuer.answers[KEYS] = httpx.Response(200, headers={"content-encoding": "gzip"}, content=packed)
    with pytest.raises(Unavailable):
        await desk.verify(desk.issuer.token())


@in_virtual_time
async def test_plain_http_is_for_this_machine_only() -> None:
    for url, is_taken in (
        ("http://127.0.0.1:9000", True),
        ("http://localhost:9000", True),
        ("http://[::1]:9000", True),
        ("http://login.example", False),
        ("http://127.0.0.1.evil.example", False),
        ("http://0.0.0.0", False),
    ):
        issuer = FakeIssuer(url)
        if is_taken:
            await Desk(issuer).verify(issuer.token())
        else:
            with pytest.raises(Unavailable):
                await Desk(issuer).verify(issuer.token())
            assert issuer.asked == []


@in_virtual_time
async def test_a_key_that_can_not_be_read_does_not_spoil_the_others() -> None:
    issuer = FakeIssuer()
    good = published(rsa_key("first"), x5c=["MIIC"], x5t="abc")
    issuer.keys = [
        {"kty": "RSA"},
        {"kty": "AKP", "kid": "of tomorrow", "alg": "ML-DSA-44", "pub": "AA"},
        {"kty": "EC", "kid": "off", "crv": "P-256", "x": "AQ", "y": "AQ"},
        {"kty": "EC", "kid": "half", "crv": "P-256", "x": "AQ"},
        {"kty": "EC", "kid": "bitcoin", "crv": "secp256k1", "x": "AQ", "y": "AQ"},
        {"kty": "OKP", "kid": "exchange", "crv": "X25519", "x": "A" * 43},
        {"kty": "RSA", "kid": "even", "n": good["n"], "e": "Ag"},
        {"kty": "RSA", "kid": "huge", "n": "_" * 1398 + "8", "e": "AQAB"},
        {"kty": "RSA", "kid": "wrong", "n": "+/=", "e": "AQAB"},
        {"kty": "RSA", "kid": 7, "n": good["n"], "e": "AQAB"},
        good,
    ]
    desk = Desk(issuer)
    await desk.verify(issuer.token())
    for kid in ("off", "bitcoin", "even", "huge"):
        await desk.refuses(issuer.token(header={"kid": kid}), "doesn't publish")
