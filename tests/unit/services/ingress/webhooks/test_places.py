"""Who may hold how many places."""

from hypothesis import given
from hypothesis import strategies as st

from services.ingress.webhooks.places import Places


def test_one_dead_endpoint_leaves_places_to_others() -> None:
    places = Places(per_host=2, per_team=10)
    assert [places.take("dead", "a") for _ in range(3)] == [True, True, False]
    assert not places.take("dead", "b")
    assert places.take("alive", "a")
    places.give_back("dead", "a", answered=False)
    assert places.take("dead", "b")


def test_one_team_with_many_hosts_leaves_places_to_others() -> None:
    places = Places(per_host=10, per_team=2)
    assert [places.take(f"host-{n}", "a") for n in range(3)] == [True, True, False]
    assert places.take("host-2", "b")


def test_a_host_is_failing_until_it_answers() -> None:
    places = Places(9, 9)
    for answered in (False, False, True):
        places.take("h", "a")
        places.give_back("h", "a", answered=answered)
        assert places.is_failing("h") != answered


def test_hosts_that_fail_are_not_remembered_without_end() -> None:
    places = Places(9, 9)
    for n in range(5000):
        places.take(f"h{n}", "a")
        places.give_back(f"h{n}", "a", answered=False)
    assert not places.is_failing("h0")
    assert places.is_failing("h4999")


@given(st.lists(st.tuples(st.sampled_from("xyz"), st.sampled_from("ab"), st.booleans()), max_size=60))
def test_what_is_given_back_is_there_again(steps: list[tuple[str, str, bool]]) -> None:
    places, held = Places(2, 3), list[tuple[str, str]]()
    for host, team, take in steps:
        if take and places.take(host, team):
            held.append((host, team))
        elif held:
            places.give_back(*held.pop(), answered=True)
        assert all(sum(h == host for h, _ in held) <= 2 for host in "xyz")
        assert all(sum(t == team for _, t in held) <= 3 for team in "ab")
    while held:
        places.give_back(*held.pop(), answered=True)
    assert [places.take("x", "a") for _ in range(3)] == [True, True, False]
