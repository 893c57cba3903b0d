"""Good tokens, who they speak for, and what is remembered of them."""

import asyncio
import dataclasses
import json
from contextlib import suppress

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from joserfc.util import urlsafe_b64encode

from infra.hierarchy import group_rules
from infra.oidc.tokens import looks_like_token
from schemas.errors import InvalidKey
from tests.fakes.issuer import NOW_S, FakeIssuer, ec_key, okp_key, rsa_key, serving
from tests.unit.infra.oidc.desk import Desk


async def test_a_good_token() -> None:
    desk = Desk(groups=[{"group": "fraud", "team": "fraud"}, {"group": "finance", "role": "finance"}])
    found = await desk.verify(desk.issuer.token(azp="portal", email="alice@acme.example", jti="7"))
    assert (found.name, found.subject, found.groups) == ("acme:alice", "alice", ("fraud", "all"))
    assert found.provider is desk.providers[0]
    assert found.expires_ms == (NOW_S + 3600) * 1000
    assert dict(found.claims) == {"sub": "alice", "azp": "portal", "jti": "7"}, "no more than what finds it again"
    assert [rule.team for rule in group_rules(found.provider, found.groups)] == ["fraud"]
    with pytest.raises(dataclasses.FrozenInstanceError):
        found.subject = "mallory"  # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.parametrize("algorithm", ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"])
async def test_every_algorithm(algorithm: str) -> None:
    curves = {"ES256": "P-256", "ES384": "P-384", "ES512": "P-521"}
    key = (
        okp_key("okp")
        if algorithm == "EdDSA"
        else ec_key(algorithm, curves[algorithm])
        if algorithm in curves
        else rsa_key("first")
    )
    issuer = FakeIssuer("https://login.example", key)
    found = await Desk(issuer, algorithms=[algorithm]).verify(issuer.token(algorithm=algorithm))
    assert found.subject == "alice"


async def test_one_audience_of_several_is_enough() -> None:
    desk = Desk(audiences=["api://one", "api://two"])
    assert (await desk.verify(desk.issuer.token(aud=["https://elsewhere.example", "api://two"]))).subject == "alice"


async def test_the_claims_that_a_provider_names() -> None:
    desk = Desk(user_claim="oid", groups_claim="roles")
    found = await desk.verify(desk.issuer.token(oid="0a1b", roles=["approver"]))
    assert (found.subject, found.groups) == ("0a1b", ("approver",))


@pytest.mark.parametrize("subject", [None, "", 7, ["alice"], "a" * 257, "alice\n", "alice\u202e", "\u0000"])
async def test_who_has_no_name_is_nobody(subject: object) -> None:
    desk = Desk()
    await desk.refuses(desk.issuer.token(sub=subject), "doesn't say who asks")


async def test_an_address_that_the_issuer_did_not_verify_is_no_name() -> None:
    desk = Desk(user_claim="email")
    for verified in (False, "false"):
        await desk.refuses(desk.issuer.token(email="ceo@acme.example", email_verified=verified), "not verified")
    assert (await desk.verify(desk.issuer.token(email="alice@acme.example", email_verified=True))).subject == "alice@acme.example"


@pytest.mark.parametrize(("claim", "groups"), [("fraud", ("fraud",)), ([], ()), (None, ()), (["a", "b", "g" * 257], ("a", "b"))])
async def test_groups(claim: object, groups: tuple[str, ...]) -> None:
    desk = Desk()
    assert (await desk.verify(desk.issuer.token(groups=claim))).groups == groups


@pytest.mark.parametrize("claim", [7, {"fraud": True}, ["fraud", 7], True])
async def test_groups_that_are_none(claim: object) -> None:
    desk = Desk()
    await desk.refuses(desk.issuer.token(groups=claim), "a claim groups that is neither")


async def test_more_groups_than_a_token_of_entra_holds() -> None:
    """It then says where they are; nobody goes there."""
    desk = Desk()
    sources = {"src1": {"endpoint": "https://graph.example/alice/getMemberObjects"}}
    found = await desk.verify(desk.issuer.token(_claim_names={"groups": "src1"}, _claim_sources=sources))
    assert found.groups == ()
    assert len(desk.issuer.asked) == 2


async def test_a_token_is_remembered_until_it_expires() -> None:
    desk = Desk()
    token = desk.issuer.token(exp=NOW_S + 60)
    first = await desk.verify(token)
    assert await desk.verify(token) is first
    desk.clock.move((60 + 30) * 1000 - 1)
    assert await desk.verify(token) is first, "with its leeway"
    desk.clock.move(1)
    await desk.refuses(token, "has expired")


async def test_a_change_of_the_provider_is_heard_at_once() -> None:
    desk = Desk(leeway_s=300)
    token = desk.issuer.token()
    first = await desk.verify(token)
    desk.providers = [desk.issuer.provider(version=2, groups_claim="teams")]
    second = await desk.verify(token)
    assert (second.provider.version, second.groups) == (2, ())
    assert second is not first
    desk.providers = [desk.issuer.provider(version=3, audiences=["api://other"])]
    await desk.refuses(token, "somebody else")
    desk.providers = []
    await desk.refuses(token, "not configured")
    assert len(desk.issuer.asked) == 2, "what its keys depend on has not changed"


async def test_a_change_while_the_keys_are_fetched_counts() -> None:
    desk = Desk()
    desk.issuer.wait = asyncio.Event()
    waiting = asyncio.create_task(desk.verify(desk.issuer.token()))
    await desk.issuer.reached.wait()
    desk.providers = []
    desk.issuer.wait.set()
    with pytest.raises(InvalidKey, match="not configured"):
        await waiting


async def test_so_many_are_remembered_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("infra.oidc.tokens.MAX_REMEMBERED", 100)
    desk = Desk()
    kept, lost = desk.issuer.token(sub="kept"), desk.issuer.token(sub="lost")
    first_kept, first_lost = await desk.verify(kept), await desk.verify(lost)
    for number in range(99):
        await desk.verify(desk.issuer.token(sub=f"user {number}"))
        assert await desk.verify(kept) is first_kept, "what is used stays"
    assert await desk.verify(lost) is not first_lost


async def test_tokens_are_told_from_keys() -> None:
    assert looks_like_token(FakeIssuer().token())
    assert looks_like_token("a.b.c.d.e")
    for key in ("sk-sl-0123456789abcdefghijklmnopqrstuv_0ABCDE", "", "sk-proj.1", "a.b.c.d"):
        assert not looks_like_token(key)


async def test_over_real_http() -> None:
    with serving() as issuer:
        desk = Desk(issuer)
        desk.clock.now_ms = issuer.now_s * 1000
        own = type(desk.tokens)(lambda: desk.providers, desk.clock)
        assert (await own.verify(issuer.token())).subject == "alice"
        assert issuer.asked == ["/.well-known/openid-configuration", "/keys"]
        await own.close()


_LETTERS = st.sampled_from("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.=+/ \n\0é")
_ISSUER = FakeIssuer()
_TOKEN = _ISSUER.token()
_HEADER = {"alg": "RS256", "typ": "JWT", "kid": "first"}
_VALUES = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.lists(st.text(max_size=5), max_size=3)
)


@st.composite
def _letters_changed(draw: st.DrawFn) -> str:
    letters = list(_TOKEN)
    for _ in range(draw(st.integers(1, 4))):
        if not letters:
            break
        place = draw(st.integers(0, len(letters) - 1))
        match draw(st.sampled_from(("replace", "insert", "delete", "double", "cut"))):
            case "replace":
                letters[place] = draw(_LETTERS)
            case "insert":
                letters.insert(place, draw(_LETTERS))
            case "delete":
                del letters[place]
            case "double":
                letters[place:place] = letters[place : place + 20]
            case _:
                letters = letters[: place + 1]
    return "".join(letters)


@st.composite
def _members_changed(draw: st.DrawFn) -> str:
    """Another header or other claims, well formed, with the signature of the good ones."""
    header, claims = dict[str, object](_HEADER), _ISSUER.claims()
    changed = draw(st.sampled_from((header, claims)))
    name = draw(st.sampled_from([*changed, "jku", "jwk", "crit", "roles", "admin"]))
    changed[name] = draw(_VALUES)
    parts = (urlsafe_b64encode(json.dumps(part).encode()).decode() for part in (header, claims))
    return f"{'.'.join(parts)}.{_TOKEN.split('.')[2]}"


def test_no_mutation_of_a_good_token_is_good() -> None:
    """2,000 of them; the good one is good before, between and after."""
    desk = Desk(_ISSUER)
    with asyncio.Runner() as runner:

        @settings(max_examples=2000, deadline=None, database=None)
        @given(_letters_changed() | _members_changed())
        def refused(token: str) -> None:
            assume(token != _TOKEN)
            with suppress(InvalidKey):
                runner.run(desk.verify(token))
                raise AssertionError(f"taken: {token}")

        runner.run(desk.verify(_TOKEN))
        refused()
        assert runner.run(desk.verify(_TOKEN)).subject == "alice"
    assert _ISSUER.asked.count("/keys") <= 2, "the first time, and once for a key id that isn't there"
