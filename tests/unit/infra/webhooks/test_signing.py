"""Signatures of webhooks, against what others publish. Tests are named after what is feared."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.signing import Signer
from infra.webhooks.signing import is_signed, secret_in, secret_of, secrets_of, shown, signature, signed_headers
from schemas.control import Team

SIGNER = Signer(b"a key that only tests have")
TEAM = Team(id="team_1", name="fraud", organization="acme")


def test_a_receiver_with_somebody_elses_library_can_check_it() -> None:
    """The vector that the libraries of standard-webhooks publish."""
    secret = base64.b64decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    signed = signature([secret], "msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, b'{"test": 2432232314}')
    assert signed == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
    assert shown(secret) == "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


def test_a_receiver_that_still_has_the_old_secret_can_check_too() -> None:
    old, new = b"o" * 32, b"n" * 32
    both = signature([new, old], "evt_1", 1, b"{}")
    assert both.split(" ") == [signature([new], "evt_1", 1, b"{}"), signature([old], "evt_1", 1, b"{}")]


def test_a_secret_is_not_that_of_another_team_version_or_house() -> None:
    teams = [TEAM, TEAM.model_copy(update={"id": "team_2"})]
    secrets = {secret_of(signer, team, n) for signer in (SIGNER, Signer(b"x")) for team in teams for n in (1, 2, 12)}
    assert len(secrets) == 2 * 2 * 3
    assert {len(secret) for secret in secrets} == {32}


def test_a_team_made_anew_under_an_old_name_has_another_secret() -> None:
    assert secret_of(SIGNER, TEAM, 1) != secret_of(SIGNER, Team(id="team_9", name="fraud", organization="acme"), 1)


def test_a_rotation_keeps_the_secret_before_and_only_that() -> None:
    first, second, third = (secrets_of(SIGNER, TEAM.model_copy(update={"webhook_secret_version": n})) for n in (1, 2, 3))
    assert first == (secret_of(SIGNER, TEAM, 1),)
    assert second == (secret_of(SIGNER, TEAM, 2), secret_of(SIGNER, TEAM, 1))
    assert third == (secret_of(SIGNER, TEAM, 3), secret_of(SIGNER, TEAM, 2))


def test_a_try_bears_its_own_time_under_the_same_id() -> None:
    tries = [signed_headers([b"s" * 32], "evt_1", at, b"{}") for at in (1, 2)]
    assert [headers["webhook-timestamp"] for headers in tries] == ["1", "2"]
    assert {headers["webhook-id"] for headers in tries} == {"evt_1"}
    assert tries[0]["webhook-signature"] != tries[1]["webhook-signature"]
    assert (tries[0]["content-type"], tries[0]["user-agent"]) == ("application/json", "Sluice")


@given(st.binary(max_size=200), st.binary(max_size=200))
def test_another_body_has_another_signature(one: bytes, other: bytes) -> None:
    same = signature([b"s" * 32], "evt_1", 1, one) == signature([b"s" * 32], "evt_1", 1, other)
    assert same == (one == other)


def test_secrets_tell_nothing_of_what_else_is_derived() -> None:
    """Ids of records show 74 bits of what is derived for them: those of a secret must be others."""
    derived = SIGNER.derive("webhook", "team_1", "1")
    assert derived != int.from_bytes(SIGNER.secret("webhook", "team_1", "1")[:10]) >> 6


def test_what_somebody_elses_library_signed_is_known() -> None:
    """The vector that the libraries of standard-webhooks publish."""
    secret = secret_in("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    given = "v1,Ceo5qEr07ixe2NLpvHk3FH9bwy/WavXrAFQ/9tdO6mc= v2,x v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
    body = b'{"test": 2432232314}'
    assert is_signed([b"x" * 32, secret], "msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, body, given)
    assert not is_signed([secret], "msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_331, body, given)
    assert not is_signed([], "msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, body, given)


@given(st.binary(min_size=24, max_size=64))
def test_a_secret_that_was_shown_is_read_again(secret: bytes) -> None:
    assert secret_in(shown(secret)) == secret


@pytest.mark.parametrize(
    "text", ["", "whsec_", "whsec_\xe9", "whsec_AAAA", shown(b"x" * 23), shown(b"x" * 65), shown(b"x" * 32)[6:]]
)
def test_what_is_no_secret_is_refused_and_not_repeated(text: str) -> None:
    with pytest.raises(ValueError, match="base64 of 24 to 64 bytes") as raised:
        secret_in(text)
    assert len(text) < 8 or text not in str(raised.value)


@given(st.binary(max_size=50), st.text(max_size=50))
def test_nonsense_is_no_signature(body: bytes, given_: str) -> None:
    assert not is_signed([b"s" * 32], "evt_1", 1, body, given_)
