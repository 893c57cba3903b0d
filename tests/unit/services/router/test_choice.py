"""Which model a request goes to before anybody is asked."""

from collections import Counter
from pathlib import Path
from typing import Any, NotRequired, TypedDict, cast

import pytest
import yaml
from hypothesis import assume, given
from hypothesis import strategies as st

from infra.kafka.table import ControlTable
from infra.reachable import chosen_from, may_ask
from schemas.control import Model
from schemas.job import Job
from schemas.policy import DataPolicy, EffectivePolicy, RoutePolicy
from services.router.auto.base import Judged
from services.router.choice import FARTHEST, Chosen, Unjudged, choose
from services.router.chooser import Chooser
from services.router.features import Prompt
from tests.unit.services.router.asking import asking, judged
from tests.unit.services.router.doubles import deployment

EU_ONLY = EffectivePolicy(version="1", data=DataPolicy(regions=("eu",)))


class Case(TypedDict):
    when: dict[str, Any]
    said: NotRequired[str]
    holds: NotRequired[dict[str, Any]]
    fails: NotRequired[dict[str, Any]]


CASES = cast("list[Case]", yaml.safe_load((Path(__file__).parent / "when_cases.yaml").read_text(encoding="utf-8")))


def named(name: str, region: str = "us", **changes: object) -> Model:
    """A model with a deployment of its name there; in no region: without any."""
    own = (deployment(f"of {name}", region=region),) if region else ()
    return Model.model_validate({"name": name, "deployments": own, **changes})


def rule(model: str, **when: object) -> dict[str, object]:
    return {"name": f"to {model}", "model": model, "when": when}


def split(*arms: tuple[str, float], **changes: object) -> dict[str, object]:
    return {"name": "s", "arms": [{"model": model, "weight": weight} for model, weight in arms], **changes}


def chosen(models: list[Model], job: Job, said: Judged | None = None) -> Chosen:
    """Of a job of the first of these models."""
    return choose({model.name: model for model in models}, models[0], job, Prompt(job.api, job.body), said)


def name_of(models: list[Model], job: Job, said: Judged | None = None) -> str:
    return chosen(models, job, said)[0].name


def asked(told: dict[str, Any]) -> tuple[Job, Judged | None]:
    rest = dict(told)
    task = rest.pop("judged", None)
    return asking(**rest), judged(task=task) if task else None


@pytest.mark.parametrize("case", CASES, ids=lambda case: str(case["when"]))
def test_a_rule_holds_where_all_that_it_says_does(case: Case) -> None:
    models = [named("a", rules=[{"name": "r", "model": "b", "when": case["when"]}]), named("b")]
    if "holds" in case:
        assert chosen(models, *asked(case["holds"])) == (models[1], (f"rule `r`: {case.get('said')}",))
    if "fails" in case:
        assert chosen(models, *asked(case["fails"])) == (models[0], ())


def test_the_first_rule_that_fits_then_the_split_then_auto() -> None:
    ways: dict[str, Any] = {
        "split": split(("s", 1)),
        "auto": {"hard": "h"},
        "rules": [rule("x", has_tools=True), rule("y"), rule("z")],
    }
    rest = [named(name) for name in "xyzsh"]
    assert name_of([named("a", **ways), *rest], asking(tools=1)) == "x"
    assert name_of([named("a", **ways), *rest], asking()) == "y"
    without: dict[str, Any] = {"split": ways["split"], "auto": ways["auto"]}
    assert name_of([named("a", **without), *rest], asking()) == "s"
    assert name_of([named("a", auto={"hard": "h"}), *rest], asking(), judged()) == "h"
    assert chosen([named("a")], asking()) == (named("a"), ())


# What a way is worth. The first model is asked for; `judged`: the tier.
WAYS: dict[str, tuple[list[Model], str, str]] = {
    "a chosen model leads on": ([named("a", rules=[rule("b")]), named("b", rules=[rule("c")]), named("c", "eu")], "simple", "c"),
    "a model of its own name keeps the request": (
        [named("a", "eu", rules=[rule("a"), rule("b")]), named("b", "eu")],
        "simple",
        "a",
    ),
    "nothing goes round in circles": ([named("a", "eu", rules=[rule("b")]), named("b", "eu", rules=[rule("a")])], "simple", "b"),
    "an unknown model is passed over": ([named("a", "eu", rules=[rule("gone"), rule("b")]), named("b", "eu")], "simple", "b"),
    "so is one that the policy forbids": (
        [named("a", "eu", rules=[rule("us"), rule("b")]), named("us"), named("b", "eu")],
        "simple",
        "b",
    ),
    "and one that only leads to such": (
        [named("a", "eu", rules=[rule("v"), rule("b")]), named("v", "", rules=[rule("us")]), named("us"), named("b", "eu")],
        "simple",
        "b",
    ),
    "one without deployments that leads on is not": (
        [named("a", "", rules=[rule("v")]), named("v", "", auto={"hard": "b"}), named("b", "eu")],
        "simple",
        "b",
    ),
    "where all are forbidden it stays": (
        [named("a", "eu", rules=[rule("us")], split=split(("us", 1))), named("us")],
        "simple",
        "a",
    ),
    "even where nothing may be asked at all": ([named("a", "us", rules=[rule("us")]), named("us")], "simple", "a"),
    "the other arms take over": (
        [named("a", "eu", split=split(("us", 1e9), ("b", 1e-9))), named("us"), named("b", "eu")],
        "simple",
        "b",
    ),
    "a circle without anybody to ask is left": (
        [named("a", "eu", rules=[rule("v"), rule("b")]), named("v", "", rules=[rule("a")]), named("b", "eu")],
        "simple",
        "b",
    ),
    "the tier that was judged": (
        [named("a", auto={"simple": "s", "medium": "m", "hard": "h"}), *(named(name, "eu") for name in "smh")],
        "medium",
        "m",
    ),
    "a tier left out is served by the next harder": (
        [named("a", auto={"simple": "s", "hard": "h"}), named("s", "eu"), named("h", "eu")],
        "medium",
        "h",
    ),
    "so is one that is forbidden": (
        [named("a", auto={"simple": "s", "medium": "m"}), named("s"), named("m", "eu")],
        "simple",
        "m",
    ),
    "the hardest by the next easier": (
        [named("a", auto={"simple": "s", "medium": "m", "hard": "h"}), named("s", "eu"), named("m", "eu"), named("h")],
        "hard",
        "m",
    ),
}


@pytest.mark.parametrize("why", WAYS)
def test_where_a_way_leads(why: str) -> None:
    models, tier, expected = WAYS[why]
    assert name_of(models, asking(policy=EU_ONLY), judged(tier)) == expected


def test_reasons_tell_the_whole_way() -> None:
    models = [
        named("a", rules=[rule("b", max_prompt_tokens=100)]),
        named("b", split=split(("c", 1), sticky="team")),
        named("c", auto={"hard": "d"}),
        named("d", rules=[rule("b")]),
    ]
    assert chosen(models, asking("hi"), judged()) == (
        models[3],
        (
            "rule `to b`: 8 prompt tokens",
            "split `s`: arm c (100 %), sticky by team",
            "auto: simple (0.50): 2 tokens; served by hard",
            "rule `to b`: always, which leads back to b: it stays with d",
        ),
    )


def test_a_chain_beyond_all_sense_ends() -> None:
    models = [named(f"m{n}", rules=[rule(f"m{n + 1}")]) for n in range(2000)]
    assert name_of(models, asking()) == f"m{FARTHEST}"


def test_nothing_is_judged_that_need_not_be() -> None:
    models = [
        named("a", rules=[rule("b", teams=["x"], task_types=["code"]), rule("c")], auto={"hard": "b"}),
        named("b"),
        named("c"),
    ]
    assert name_of(models, asking()) == "c"
    with pytest.raises(Unjudged):
        chosen(models, asking(team="x"))


# Splits


def shares(models: list[Model], jobs: list[Job]) -> dict[str, float]:
    counted = Counter(name_of(models, job) for job in jobs)
    return {name: n / len(jobs) for name, n in counted.items()}


USERS = [asking(user=f"user-{n}") for n in range(2000)]


@given(st.lists(st.floats(0.1, 10), min_size=2, max_size=5), st.text(max_size=8))
def test_weights_hold(weights: list[float], name: str) -> None:
    arms = [(f"m{i}", weight) for i, weight in enumerate(weights)]
    found = shares([named("a", split=split(*arms, name=name)), *(named(model) for model, _ in arms)], USERS[:600])
    for model, weight in arms:
        # Five standard deviations of a share of 600: one of some million is farther off.
        assert found.get(model, 0) == pytest.approx(weight / sum(weights), abs=5 * 0.5 / 600**0.5)


def test_weights_hold_for_two_thousand_users_and_among_those_that_are_left() -> None:
    models = [named("a", split=split(("x", 90), ("y", 5), ("z", 5))), named("x"), named("y"), named("z")]
    assert shares(models, USERS) == pytest.approx({"x": 0.9, "y": 0.05, "z": 0.05}, abs=0.02)
    forbidden = [*models[:1], named("x", "eu"), *models[2:]]
    us_only = EffectivePolicy(version="1", data=DataPolicy(regions=("us",)))
    left = shares(forbidden, [job.model_copy(update={"policy": us_only}) for job in USERS])
    assert left == pytest.approx({"y": 0.5, "z": 0.5}, abs=0.05)


def test_who_changes_arms_goes_to_the_one_that_grew() -> None:
    rest = [named("x"), named("y"), named("z")]
    before = [named("a", split=split(("x", 90), ("y", 10))), *rest]
    grown = [named("a", split=split(("y", 20), ("x", 90), ("z", 1))), *rest]
    moved = [(name_of(before, job), name_of(grown, job)) for job in USERS]
    assert {(old, new) for old, new in moved if old != new} == {("x", "y"), ("x", "z"), ("y", "z")}
    assert sum(old != new for old, new in moved) / len(moved) < 0.12


def test_an_arm_written_twice_has_both_weights() -> None:
    models = [named("a", split=split(("x", 1), ("y", 2), ("x", 1))), named("x"), named("y")]
    assert shares(models, USERS)["x"] == pytest.approx(0.5, abs=0.05)


def test_the_models_own_arm_keeps_the_rest() -> None:
    models = [named("a", split=split(("a", 95), ("new", 5))), named("new")]
    assert shares(models, USERS) == pytest.approx({"a": 0.95, "new": 0.05}, abs=0.02)


# The same caller twice, by what a split sticks to: user falls back on identity, then on the key.
STICKY: list[tuple[str, dict[str, str], str]] = [
    ("user", {"user": "u"}, "user"),
    ("user", {"identity": "okta:u"}, "user"),
    ("user", {}, "key"),
    ("key", {"user": "u"}, "key"),
    ("team", {"user": "u"}, "team"),
]


@pytest.mark.parametrize(("sticky", "caller", "by"), STICKY)
def test_requests_stick(sticky: str, caller: dict[str, str], by: str) -> None:
    models = [named("a", split=split(("x", 1), ("y", 1), sticky=sticky)), named("x"), named("y")]
    found = {chosen(models, asking(str(n), id=f"job_{n}", **caller))[1] for n in range(50)}
    assert [reason.rpartition(", ")[2] for (reason,) in found] == [f"sticky by {by}"]


def test_by_request_each_goes_its_own_way_but_always_the_same() -> None:
    models = [named("a", split=split(("x", 1), ("y", 1), sticky="request")), named("x"), named("y")]
    jobs = [asking(id=f"job_{n}") for n in range(400)]
    assert shares(models, jobs)["x"] == pytest.approx(0.5, abs=0.1)
    assert [name_of(models, job) for job in jobs] == [name_of(models, job) for job in jobs]


def test_another_name_divides_anew() -> None:
    ways = [[named("a", split=split(("x", 1), ("y", 1), name=name)), named("x"), named("y")] for name in ("one", "two")]
    same = sum(name_of(ways[0], job) == name_of(ways[1], job) for job in USERS) / len(USERS)
    assert same == pytest.approx(0.5, abs=0.05)


# Any configuration

NAMES = st.sampled_from(["a", "b", "c", "d", "e", "gone"])
WHENS: list[dict[str, object]] = [
    {},
    {"teams": ["team"]},
    {"teams": ["other"]},
    {"task_types": ["code"]},
    {"min_prompt_tokens": 5},
]
RULES = st.tuples(NAMES, st.sampled_from(WHENS)).map(lambda one: rule(one[0], **one[1]))
SPLITS = st.lists(st.tuples(NAMES, st.floats(0.1, 10)), min_size=1, max_size=3).map(lambda arms: split(*arms))
AUTOS = st.fixed_dictionaries({"simple": st.none() | NAMES, "medium": st.none() | NAMES, "hard": NAMES})
WAYS_ON = st.fixed_dictionaries({"rules": st.lists(RULES, max_size=2), "split": st.none() | SPLITS, "auto": st.none() | AUTOS})
REGIONS = st.sampled_from(["eu", "us", ""])
TABLES = st.tuples(*(st.tuples(REGIONS, WAYS_ON) for _ in "abcde")).map(
    lambda table: [named(name, region, **ways) for name, (region, ways) in zip("abcde", table, strict=True)]
)
POLICIES = st.sampled_from(
    [
        EffectivePolicy(version="1"),
        EU_ONLY,
        EffectivePolicy(version="1", data=DataPolicy(hipaa=True)),
        EffectivePolicy(version="1", route=RoutePolicy(providers=("openai",))),
        EffectivePolicy(version="1", route=RoutePolicy(providers=("azure",))),
    ]
)
JUDGED = st.builds(judged, st.sampled_from(["simple", "medium", "hard"]), st.sampled_from(["chat", "code"]))


def allowed(model: Model, policy: EffectivePolicy) -> bool:
    return any(may_ask(d, policy.data, policy.route) for d in model.deployments)


@given(TABLES, POLICIES, JUDGED, st.text(max_size=5))
def test_no_choice_breaks_a_policy_or_goes_in_circles(
    models: list[Model], policy: EffectivePolicy, said: Judged, user: str
) -> None:
    job = asking(policy=policy, user=user)
    found, reasons = chosen(models, job, said)
    assert allowed(found, policy) or (found is models[0] and not reasons)
    assert len(reasons) <= len(models)
    assert chosen(list(models), job.model_copy(), said) == (found, reasons), "the same again"


@given(TABLES, POLICIES, JUDGED)
def test_who_may_be_asked_is_found(models: list[Model], policy: EffectivePolicy, said: Judged) -> None:
    """Where every way is open: then an allowed model is found if one can be reached at all."""
    opened = [
        m.model_copy(update={"rules": tuple(r.model_copy(update={"when": type(r.when)()}) for r in m.rules)}) for m in models
    ]
    known = {model.name: model for model in opened}
    reached, ahead = {"a"}, ["a"]
    while ahead:
        new = {name for name in chosen_from(known[ahead.pop()]) if name in known} - reached
        reached |= new
        ahead += new
    assume(any(allowed(known[name], policy) for name in reached))
    assert allowed(chosen(opened, asking(policy=policy), said)[0], policy)


# The chooser


class Judges:
    def __init__(self) -> None:
        self.texts = list[str]()

    async def __call__(self, text: str) -> Judged:
        self.texts.append(text)
        return judged("hard", "code")


def chooser(*models: Model) -> tuple[Chooser, Judges]:
    table, judges = ControlTable(), Judges()
    for model in models:
        table.put(model)
    return Chooser(table, judges), judges


async def test_a_model_that_does_not_choose_is_asked_without_a_look_at_the_job() -> None:
    chooses, judges = chooser()
    alone = named("a")
    assert await chooses.choose(cast("Job", None), alone) == (alone, ())
    assert judges.texts == []


@pytest.mark.parametrize("words", [1, 20_000])
async def test_the_classifier_is_asked_where_it_matters_and_once(words: int) -> None:
    models = [
        named("a", rules=[rule("b", has_tools=True), rule("c", task_types=["math"])], auto={"hard": "d"}),
        *map(named, "bcd"),
    ]
    chooses, judges = chooser(*models)
    assert (await chooses.choose(asking("word " * words, tools=1), models[0]))[0].name == "b"
    assert judges.texts == []
    assert (await chooses.choose(asking("word " * words, metadata={"task_type": "math"}), models[0]))[0].name == "c"
    assert judges.texts == []
    found, reasons = await chooses.choose(asking("word " * words), models[0])
    assert (found.name, reasons) == ("d", ("auto: hard (0.50): 2 tokens",))
    assert judges.texts == [("word " * words)[:4000]]
