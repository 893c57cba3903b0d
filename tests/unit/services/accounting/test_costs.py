"""Spend that jumps is told; spend that goes on as ever isn't."""

from decimal import Decimal
from random import Random

import pytest

from schemas.alerting import CostRule
from schemas.budget import NANO
from services.accounting.costs import LEAST_SPANS, Costs, Scope

RULE = CostRule()
TEAM, PROJECT, FEATURE = ("team", "fraud"), ("project", "fraud", "p"), ("feature", "fraud", "search")


def lived(costs: Costs, *usd: float, scopes: tuple[Scope, ...] = (TEAM,)) -> Costs:
    """Spans with this spend in each."""
    for amount in usd:
        costs.learn(dict.fromkeys(scopes, int(amount * NANO)), RULE.z_score)
    return costs


def told(costs: Costs, usd: float, *scopes: Scope, rule: CostRule = RULE) -> list[str]:
    return [found.scope for found in costs.judge(dict.fromkeys(scopes or (TEAM,), int(usd * NANO)), rule)]


CASES: list[tuple[list[float], float, bool]] = [
    ([10] * 6, 100, True),
    ([10] * 6, 21, True),
    ([10] * 6, 19, False),
    ([10] * 5, 1000, False),
    ([0.01] * 6, 4.99, False),
    ([0.01] * 6, 5, True),
    ([10, 10, 10, 10, 10, 100, 10, 10, 10], 100, False),
]


@pytest.mark.parametrize(("before", "usd", "jumps"), CASES)
def test_a_jump_is_far_above_what_was_usual_and_worth_the_trouble(before: list[float], usd: float, jumps: bool) -> None:
    assert told(lived(Costs(), *before), usd) == (["team/fraud"] if jumps else [])


def test_it_says_who_and_how_much() -> None:
    [found] = lived(Costs(), *[10.0] * 6, scopes=(FEATURE,)).judge({FEATURE: 90 * NANO}, RULE)
    assert found.message == "Feature search of team fraud has spent 90.00 USD in 10 minutes; usual are 10.00"
    assert (found.what, found.scope, found.team) == ("cost_anomaly", "feature/fraud/search", "fraud")
    assert found.facts == {"usd": 90, "usual_usd": 10, "minutes": 10}


def test_of_a_team_the_finest_is_told() -> None:
    costs = lived(Costs(), *[10.0] * 6, scopes=(TEAM, PROJECT, FEATURE))
    assert told(costs, 90, TEAM, PROJECT, FEATURE) == ["feature/fraud/search"]
    assert told(costs, 90, TEAM, PROJECT) == ["project/fraud/p"]


def test_a_new_feature_shows_in_its_team() -> None:
    costs = lived(Costs(), *[10.0] * 6)
    assert told(costs, 90, TEAM, FEATURE) == ["team/fraud"]


def test_it_can_be_turned_off() -> None:
    costs = lived(Costs(), *[10.0] * 6)
    assert told(costs, 90, rule=CostRule(enabled=False)) == []
    assert told(costs, 90, rule=CostRule(least_usd=Decimal(91))) == []


@pytest.mark.parametrize("requests", [2, 20])
def test_steady_traffic_is_hardly_ever_told(requests: int) -> None:
    """Requests that come by chance and cost 0.1 to 2 USD: 20 teams, a week each."""
    alarms = 0
    for seed in range(20):
        chance, costs = Random(seed), Costs()
        for _ in range(1000):
            count = sum(chance.random() < 0.5 for _ in range(2 * requests))
            usd = sum(chance.uniform(0.1, 2) for _ in range(count))
            alarms += len(told(costs, usd))
            lived(costs, *([usd] if usd else []))
    assert alarms <= 2, "in 20,000 spans"


@pytest.mark.parametrize("seed", range(20))
def test_a_tenfold_spend_is_told_within_its_first_span(seed: int) -> None:
    chance, costs = Random(seed), Costs()
    for _ in range(LEAST_SPANS + chance.randrange(100)):
        lived(costs, sum(chance.uniform(0.1, 2) for _ in range(20)))
    assert told(costs, 10 * 21) == ["team/fraud"]


def test_a_jump_that_stays_becomes_usual() -> None:
    costs = lived(Costs(), *[10.0] * 36)
    spans = 0
    while told(costs, 60):
        lived(costs, 60)
        spans += 1
    assert 1 <= spans <= 36


def test_only_those_who_spent_last_are_known() -> None:
    costs = Costs(most=1)
    lived(costs, *[10.0] * 6)
    lived(costs, 1, scopes=(FEATURE,))
    assert told(costs, 90) == []
