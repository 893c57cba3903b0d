"""Every way we know to pass a JWT off as another's (RFC 8725): one test each."""

import json

import pytest
from joserfc.util import urlsafe_b64encode

from infra.credentials import JobTokens
from infra.oidc.tokens import MAX_TOKEN
from tests.fakes.issuer import AUDIENCE, NOW_S, FakeIssuer, ec_key, okp_key, published, rsa_key, signed
from tests.unit.infra.oidc.desk import Desk

HOUR_S = 3600


@pytest.fixture
async def desk() -> Desk:
    """One that has seen a good token, and so has the issuer's keys: an attack has nothing to fetch."""
    desk = Desk()
    assert (await desk.verify(desk.issuer.token())).subject == "alice"
    desk.issuer.asked.clear()
    return desk


async def test_alg_none(desk: Desk) -> None:
    for name in ("none", "None", "NONE", "nOnE"):
        header = urlsafe_b64encode(json.dumps({"alg": name, "typ": "JWT", "kid": "first"}).encode()).decode()
        claims = desk.issuer.token().split(".")[1]
        await desk.refuses(f"{header}.{claims}.", "no signed JWT")
        await desk.refuses(f"{header}.{claims}.AAAA", "not signed by a public key algorithm")
    assert desk.issuer.asked == []


async def test_hs256_with_the_public_key_as_the_secret(desk: Desk) -> None:
    public = rsa_key("first")
    texts = (public.as_pem(private=False), public.as_der(private=False), json.dumps(desk.issuer.keys[0]).encode(), b"", b"first")
    for secret in (*texts, *(text.strip() for text in texts)):
        for algorithm in ("HS256", "RS256"):
            forged = signed({"alg": algorithm, "typ": "JWT", "kid": "first"}, desk.issuer.claims(), secret)
            await desk.refuses(forged, "not signed by a public key algorithm" if algorithm == "HS256" else "wrong signature")
    assert desk.issuer.asked == []


async def test_an_issuer_that_publishes_a_secret_gives_none_to_verify_with() -> None:
    issuer = FakeIssuer()
    issuer.keys = [{"kty": "oct", "kid": "first", "k": "c2VjcmV0", "alg": "HS256"}]
    await Desk(issuer).refuses(issuer.token(), "doesn't publish")


async def test_wrong_iss(desk: Desk) -> None:
    for iss in (
        "https://evil.example",
        "https://login.example/",
        "HTTPS://login.example",
        "https://login.example.evil.example",
        "",
    ):
        await desk.refuses(desk.issuer.token(iss=iss), "issuer that is not configured")
    for iss in (None, 7, ["https://login.example"], {"https://login.example": 1}):
        await desk.refuses(desk.issuer.token(iss=iss), "who issued it")
    assert desk.issuer.asked == []


async def test_a_token_of_one_issuer_in_the_name_of_another() -> None:
    """Both are configured, and the key id is the same: each issuer's keys sign for itself only."""
    desk = Desk()
    mallory = FakeIssuer("https://login.mallory.example", rsa_key("second"))
    mallory.keys = [published(rsa_key("second"), kid="first")]
    desk.providers.append(mallory.provider(name="mallory"))
    forged = mallory.token(header={"kid": "first"}, iss=desk.issuer.url)
    await desk.refuses(forged, "wrong signature")


async def test_an_issuer_that_is_configured_twice_is_nobody(desk: Desk) -> None:
    desk.providers.append(desk.issuer.provider(name="again"))
    await desk.refuses(desk.issuer.token(sub="bob"), r"more than once \(acme, again\)")
    await desk.refuses(desk.issuer.token(), "more than once")


async def test_wrong_aud(desk: Desk) -> None:
    for aud in ("api://other", ["api://other", "sluice"], f"{AUDIENCE}/", "", []):
        await desk.refuses(desk.issuer.token(aud=aud), f"audience {AUDIENCE}")
    for aud in (7, {AUDIENCE: True}, [AUDIENCE, 7]):
        await desk.refuses(desk.issuer.token(aud=aud), "aud")


async def test_aud_is_missing(desk: Desk) -> None:
    await desk.refuses(desk.issuer.token(aud=None), r"for somebody else \(aud\)")


async def test_expired(desk: Desk) -> None:
    await desk.refuses(desk.issuer.token(exp=NOW_S - 30), "has expired at 2027-01-15T")
    await desk.verify(desk.issuer.token(exp=NOW_S - 29))


async def test_exp_is_missing_or_no_time(desk: Desk) -> None:
    await desk.refuses(desk.issuer.token(exp=None), "never expires")
    for exp in ("1900000000", True, -1, NOW_S * 1000, [NOW_S + HOUR_S], 10**400):
        await desk.refuses(desk.issuer.token(exp=exp), "exp that is no time|no JSON")
    for exp in (b"1e999", b"1" + b"0" * 5000, b"NaN", b"Infinity"):
        claims = json.dumps(desk.issuer.claims(exp="when")).encode().replace(b'"when"', exp)
        await desk.refuses(signed({"alg": "RS256", "kid": "first"}, claims, rsa_key("first")), "exp that is no time|no JSON")


async def test_not_yet_valid(desk: Desk) -> None:
    await desk.refuses(desk.issuer.token(nbf=NOW_S + 31), r"not valid before 2027-01-15T08:00:31\+00:00 \(nbf\)")
    await desk.refuses(desk.issuer.token(iat=NOW_S + 31), r"\(iat\)")
    await desk.refuses(desk.issuer.token(nbf="now"), "nbf that is no time")
    await desk.verify(desk.issuer.token(nbf=NOW_S + 30, iat=NOW_S + 30))
    await desk.verify(desk.issuer.token(nbf=None, iat=None))


@pytest.mark.parametrize(
    "kid",
    [
        "../../../../dev/null",
        "/dev/null",
        "http://evil.example/keys",
        "first' OR 1=1 --",
        "first\0",
        "FIRST",
        "unknown",
        "k" * 256,
    ],
)
async def test_kid_points_elsewhere(desk: Desk, kid: str) -> None:
    """It is looked up in the issuer's set, and is nothing else: the issuer is asked once more, at its own address."""
    await desk.refuses(desk.issuer.token(rsa_key("evil"), {"kid": kid}), r"names a key \(kid\)")
    assert desk.issuer.asked == ["/.well-known/openid-configuration", "/keys"]


async def test_kid_is_missing_or_no_id(desk: Desk) -> None:
    for kid in (None, "", "k" * 257, 7, ["first"], {"first": "first"}, True):
        await desk.refuses(desk.issuer.token(header={"kid": kid}), "doesn't name its key")
    assert desk.issuer.asked == []


@pytest.mark.parametrize(
    ("member", "value"),
    [
        ("jku", "https://evil.example/keys"),
        ("jku", "https://login.example/keys"),
        ("x5u", "https://evil.example/certificate"),
        ("x5c", ["MIIC"]),
        ("jwk", published(rsa_key("evil"))),
        ("crit", ["exp"]),
        ("b64", True),
    ],
)
async def test_a_header_that_brings_its_own_key_or_rules(desk: Desk, member: str, value: object) -> None:
    """Refused even when the signature is the issuer's own: the member has no business there."""
    for key in (rsa_key("evil"), rsa_key("first")):
        await desk.refuses(desk.issuer.token(key, {"kid": "first", member: value}), f"has {member} in its header")
    assert desk.issuer.asked == []


async def test_the_key_in_the_token_is_the_attackers(desk: Desk) -> None:
    """The classic: the token's own `jwk` verifies it."""
    forged = desk.issuer.token(rsa_key("evil"), {"kid": "first", "jwk": published(rsa_key("evil"), kid="first")})
    await desk.refuses(forged, "has jwk in its header")


async def test_empty_signature(desk: Desk) -> None:
    head, claims, _ = desk.issuer.token().split(".")
    for token in (f"{head}.{claims}.", f"{head}.{claims}", f"{head}..", "..", "", f".{claims}."):
        await desk.refuses(token, "no signed JWT")
    for signature in ("A", "AA", "AAAA", "A" * 342):
        await desk.refuses(f"{head}.{claims}.{signature}", "wrong signature")


async def test_a_megabyte(desk: Desk) -> None:
    await desk.refuses("a" * 1_000_000, f"longer than {MAX_TOKEN}")
    await desk.refuses(desk.issuer.token(padding="x" * 1_000_000), f"longer than {MAX_TOKEN}")
    await desk.refuses("." * MAX_TOKEN, "no signed JWT")


async def test_signed_with_another_key(desk: Desk) -> None:
    await desk.refuses(desk.issuer.token(rsa_key("evil"), {"kid": "first"}), "wrong signature")
    assert desk.issuer.asked == []


async def test_the_signature_of_another_token(desk: Desk) -> None:
    head, claims, _ = desk.issuer.token(sub="mallory").split(".")
    other = desk.issuer.token().split(".")
    await desk.refuses(f"{head}.{claims}.{other[2]}", "wrong signature")
    await desk.refuses(f"{other[0]}.{claims}.{other[2]}", "wrong signature")


async def test_a_signature_in_another_spelling(desk: Desk) -> None:
    """Base64 has several spellings of the same bytes; one of them is taken."""
    token = desk.issuer.token()
    last = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    cousins = [token[:-1] + letter for letter in last if letter != token[-1]]
    for cousin in cousins:
        await desk.refuses(cousin, "wrong signature")
    for cousin in (f"{token}=", f"{token}==", f"{token}\n", f" {token}", token.replace("_", "/"), f"{token}é"):
        if cousin != token:
            await desk.refuses(cousin, "no (signed )?JWT")


async def test_an_algorithm_that_the_provider_does_not_have(desk: Desk) -> None:
    for algorithm in ("RS384", "RS512", "PS256", "PS384", "PS512"):
        await desk.refuses(desk.issuer.token(algorithm=algorithm), f"signed by {algorithm}; .* acme is configured for RS256")
    assert desk.issuer.asked == []


async def test_es256_where_rs256_is_pinned() -> None:
    """Though the issuer publishes the key, and the signature is good."""
    issuer = FakeIssuer("https://login.example", rsa_key("first"), ec_key("curve"))
    desk = Desk(issuer)
    token = issuer.token(ec_key("curve"), algorithm="ES256")
    await desk.refuses(token, "signed by ES256")
    desk.providers = [issuer.provider(algorithms=["RS256", "ES256"])]
    await desk.verify(token)


async def test_a_key_of_another_type_than_the_algorithm() -> None:
    """The header says RS256 and names an elliptic key, or the other way round."""
    issuer = FakeIssuer("https://login.example", rsa_key("first"), ec_key("curve"), ec_key("wide", "P-384"), okp_key("edwards"))
    desk = Desk(issuer, algorithms=["RS256", "ES256", "EdDSA"])
    for kid, algorithm, key in (
        ("curve", "RS256", rsa_key("first")),
        ("edwards", "RS256", rsa_key("first")),
        ("first", "ES256", ec_key("curve")),
        ("wide", "ES256", ec_key("curve")),
        ("first", "EdDSA", okp_key("edwards")),
    ):
        await desk.refuses(issuer.token(key, {"kid": kid}, algorithm), "doesn't publish for")


@pytest.mark.parametrize(
    ("member", "value"), [("use", "enc"), ("alg", "RS384"), ("key_ops", ["encrypt"]), ("d", "AQAB"), ("kid", ""), ("kty", "oct")]
)
async def test_a_key_that_is_not_for_this(member: str, value: object) -> None:
    issuer = FakeIssuer()
    issuer.keys = [published(rsa_key("first")) | {member: value}]
    await Desk(issuer).refuses(issuer.token(), "doesn't publish")


async def test_a_short_rsa_key() -> None:
    with pytest.warns(match="2048"):
        short = rsa_key("short", 1024)
    issuer = FakeIssuer("https://login.example", short)
    await Desk(issuer).refuses(issuer.token(), "doesn't publish")


async def test_ecdsa_with_numbers_that_prove_everything() -> None:
    """r = s = 0 once verified any text (CVE-2022-21449); DER, or another length, would be another spelling of a signature."""
    issuer = FakeIssuer("https://login.example", ec_key("curve"))
    desk = Desk(issuer, algorithms=["ES256"])
    head, claims, _ = issuer.token(algorithm="ES256").split(".")
    for forged in (bytes(64), bytes(63) + b"\1", b"\xff" * 64, bytes(63), bytes(65), b"\x30\x06\x02\x01\x00\x02\x01\x00"):
        await desk.refuses(f"{head}.{claims}.{urlsafe_b64encode(forged).decode()}", "wrong signature")


@pytest.mark.parametrize("typ", ["sluice-job+jwt", "JWS", "secevent+jwt", "logout+jwt", "", None, 7, ["JWT"]])
async def test_another_type_of_token(desk: Desk, typ: object) -> None:
    header = {"alg": "RS256", "typ": typ, "kid": "first"}
    await desk.refuses(signed(header, desk.issuer.claims(), rsa_key("first")), r"another type \(typ\)")


async def test_a_job_token_of_our_own(desk: Desk) -> None:
    await desk.refuses(JobTokens(b"s" * 32).mint("key_1", NOW_S, HOUR_S), "another type|who issued it")


@pytest.mark.parametrize("typ", ["JWT", "jwt", "at+jwt", "AT+JWT", "application/at+jwt"])
async def test_types_that_are_taken(desk: Desk, typ: str) -> None:
    await desk.verify(desk.issuer.token(header={"typ": typ}))
    await desk.verify(desk.issuer.token(header={"typ": None}))


async def test_encrypted(desk: Desk) -> None:
    await desk.refuses("eyJhbGciOiJSU0EtT0FFUCJ9.AAAA.BBBB.CCCC.DDDD", "encrypted")


async def test_deep_json(desk: Desk) -> None:
    for deep in (b"[" * 5000, b"[" * 5000 + b"]" * 5000, b'{"a":' * 2000, b"[]", b'"text"', b"7", b"null", b"\xff", b"{", b""):
        for position in (0, 1):
            parts = desk.issuer.token().split(".")
            parts[position] = urlsafe_b64encode(deep).decode()
            await desk.refuses(".".join(parts), "no (signed )?JWT")
    assert desk.issuer.asked == []


async def test_a_member_that_comes_twice_has_one_meaning(desk: Desk) -> None:
    """What is checked is what is used: the last one, in the header as in the claims."""
    head = b'{"alg":"none","alg":"RS256","kid":"evil","kid":"first"}'
    body = json.dumps(desk.issuer.claims(iss=None)).encode()[:-1]
    twice = body + b',"sub":"mallory","sub":"bob","iss":"https://evil.example","iss":"https://login.example"}'
    assert (await desk.verify(signed(head, twice, rsa_key("first")))).subject == "bob"
    turned = b'{"alg":"RS256","alg":"none","kid":"first"}'
    await desk.refuses(signed(turned, twice, rsa_key("first")), "not signed by a public key")
    turned = body + b',"iss":"https://login.example","iss":"https://evil.example"}'
    await desk.refuses(signed(head, turned, rsa_key("first")), "not configured")


async def test_who_is_not_configured_is_never_asked() -> None:
    """A token causes traffic only if its issuer is one of ours, and is then asked at its own address."""
    desk = Desk()
    for iss in ("https://evil.example", "http://169.254.169.254", "file:///etc/passwd"):
        await desk.refuses(FakeIssuer(iss).token(), "not configured")
    desk.providers = []
    await desk.refuses(desk.issuer.token(), "not configured")
    assert desk.issuer.asked == []
