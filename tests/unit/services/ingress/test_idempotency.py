"""How a request is known that is made again."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.errors import InvalidRequest
from services.ingress.idempotency import KEY_KEPT_MS, gave_up_waiting, repeatable

SDK = {"x-stainless-retry-count": "1", "x-stainless-read-timeout": "600"}
PATH, BODY = "/v1/chat/completions", b"{}"


def key_of(headers: dict[str, str], path: str = PATH, body: bytes = BODY, team: str = "a", key_id: str = "k") -> str | None:
    found = repeatable(headers, path, body, team, key_id)
    return found.key if found else None


def test_a_request_without_a_key_and_not_of_an_sdk_can_t_be_known_again() -> None:
    assert key_of({}) is None
    assert key_of({"x-stainless-retry-count": "1"}) is None, "who doesn't say how long he waits can't be told from one who leaves"
    assert key_of({"x-stainless-retry-count": "-1", "x-stainless-read-timeout": "6"}) is None
    assert key_of({"x-stainless-retry-count": "1", "x-stainless-read-timeout": "nan"}) is None


@given(
    st.tuples(*[st.text(min_size=1, max_size=6)] * 3),
    st.tuples(*[st.text(min_size=1, max_size=6)] * 3),
)
def test_g14_another_team_path_or_key_is_another_claim(one: tuple[str, ...], other: tuple[str, ...]) -> None:
    keys = [key_of({"idempotency-key": key}, path=path, team=team) for key, path, team in (one, other)]
    assert (keys[0] == keys[1]) == (one == other)


def test_g14_the_body_is_compared_not_part_of_the_key() -> None:
    one, other = (repeatable({"idempotency-key": "k"}, PATH, body, "a", "k") for body in (b"1", b"2"))
    assert one is not None
    assert other is not None
    assert one.key == other.key
    assert one.sha != other.sha


@pytest.mark.parametrize("key", ["", "k" * 256])
def test_a_key_that_can_t_be_one_is_refused(key: str) -> None:
    with pytest.raises(InvalidRequest):
        key_of({"idempotency-key": key})


def test_an_sdks_retry_is_known_by_its_caller_and_body() -> None:
    assert key_of(SDK) == key_of(SDK | {"x-stainless-retry-count": "0"})
    assert key_of(SDK) != key_of(SDK, body=b"other")
    assert key_of(SDK) != key_of(SDK, key_id="other")
    assert key_of(SDK | {"idempotency-key": "k"}) == key_of({"idempotency-key": "k"}), "a key of the caller's own goes first"


def test_only_a_retry_attaches() -> None:
    counts = [repeatable(SDK | {"x-stainless-retry-count": n}, PATH, BODY, "a", "k") for n in ("0", "1", "2")]
    assert [found and found.attaches for found in counts] == [False, True, True]


def test_claims_are_kept_for_as_long_as_a_retry_may_come() -> None:
    keyed = repeatable({"idempotency-key": "k"}, PATH, BODY, "a", "k")
    sdk = repeatable(SDK, PATH, BODY, "a", "k")
    assert keyed is not None
    assert sdk is not None
    assert keyed.kept_ms(1_000) == KEY_KEPT_MS
    assert keyed.kept_ms(2 * KEY_KEPT_MS) == 2 * KEY_KEPT_MS
    assert sdk.kept_ms(120_000) == 150_000
    assert sdk.kept_ms(3_600_000) == 630_000


def test_who_leaves_early_is_gone_and_who_has_waited_long_enough_comes_back() -> None:
    assert gave_up_waiting(10, 10)
    assert gave_up_waiting(10, 9.5)
    assert not gave_up_waiting(10, 5)
    assert not gave_up_waiting(None, 1000)
