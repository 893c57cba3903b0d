"""`models` of a sluice.yaml: how each is asked, and where it leads."""

from datetime import date
from itertools import count
from pathlib import Path

import pytest
from pydantic import JsonValue

from infra.kafka.table import ControlTable
from infra.providers import COMPATIBLE, NATIVE, OWN_HOUSE
from schemas.control import Hedge, Model
from schemas.routing import Arm, Auto, Rule, Shadow, Split, When
from schemas.topics import Lane
from services.cli.plan import Change, Difference
from services.cli.plan import changes as planned
from services.portal.config import ConfigError, Parsed, gone, outlived, read
from services.portal.declared import Configuration, changes, standing

LIST = """
model_list:
  - {model_name: a, litellm_params: {model: echo/a}}
  - {model_name: b, litellm_params: {model: echo/b}}
  - {model_name: c, litellm_params: {model: echo/c}}
"""


def parse(text: str, models: str = LIST) -> Parsed:
    return read([("f.yaml", models + text)])


def model(parsed: Parsed, name: str) -> Model:
    return next(model for model in parsed.models or () if model.name == name)


def problems(text: str, models: str = LIST) -> list[str]:
    with pytest.raises(ConfigError) as raised:
        parse(text, models)
    return list(raised.value.problems)


def test_everything_that_may_be_said_of_a_model() -> None:
    found = model(
        parse("""
models:
  a:
    strategy: lane-aware
    num_retries: 1
    allowed_fails: 0
    cooldown_s: 5
    fallbacks: [b, c]
    context_window_fallbacks: [b]
    content_policy_fallbacks: [c]
    rules: [{name: code, when: {task_types: [code], lanes: [batch], metadata: {x: [y]}}, model: b}]
    split: {name: canary, arms: [{model: b, weight: 9}, {model: c, weight: 1}], sticky: key}
    auto: {medium: b, hard: c}
    hedge: {after_s: 2, most_share: 0.5}
    shadow: {model: c, share: 0.01, team: platform}
"""),
        "a",
    )
    assert (found.strategy, found.num_retries, found.allowed_fails, found.cooldown_s) == ("lane-aware", 1, 0, 5)
    assert (found.fallbacks, found.context_window_fallbacks, found.content_policy_fallbacks) == (("b", "c"), ("b",), ("c",))
    assert found.rules == (
        Rule(name="code", when=When(task_types=("code",), lanes=(Lane.BATCH,), metadata={"x": ("y",)}), model="b"),
    )
    assert found.split == Split(name="canary", arms=(Arm(model="b", weight=9), Arm(model="c", weight=1)), sticky="key")
    assert (found.auto, found.hedge) == (Auto(medium="b", hard="c"), Hedge(after_s=2, most_share=0.5))
    assert found.shadow == Shadow(model="c", share=0.01, team="platform")


def test_what_is_said_of_one_model_goes_before_what_is_said_of_all() -> None:
    parsed = parse(
        "router_settings: {routing_strategy: least-busy, num_retries: 3, default_fallbacks: [c]}\n"
        "models: {a: {strategy: usage-priority, fallbacks: []}}"
    )
    assert (model(parsed, "a").strategy, model(parsed, "a").num_retries, model(parsed, "a").fallbacks) == (
        "usage-priority",
        3,
        (),
    )
    assert (model(parsed, "b").strategy, model(parsed, "b").fallbacks) == ("least-busy", ("c",))


def test_a_model_without_deployments_leads_to_others() -> None:
    parsed = parse(
        "models: {smart: {auto: {simple: a, hard: b}}}\n"
        "router_settings: {model_group_alias: {clever: smart}, fallbacks: [{smart: [c]}],"
        " context_window_fallbacks: [{a: [smart]}]}"
    )
    smart, clever = model(parsed, "smart"), model(parsed, "clever")
    assert (smart.deployments, smart.auto, smart.fallbacks) == ((), Auto(simple="a", hard="b"), ("c",))
    assert clever.auto == smart.auto, "an alias is asked as the model is whose alias it is"
    assert model(parsed, "a").context_window_fallbacks == ("smart",)
    assert parsed.warnings == ()


def test_an_alias_may_be_asked_in_its_own_way() -> None:
    text = "router_settings: {model_group_alias: {x: a}}\nmodels: {a: {num_retries: 1}, x: {num_retries: 2}}"
    assert [model(parse(text), name).num_retries for name in ("a", "x")] == [1, 2]


def test_rules_alone_leave_some_with_nobody() -> None:
    rules = "models: {r: {rules: [{name: code, when: {has_code: true}, model: a}%s]}}"
    assert ["a request that no rule fits" in one for one in parse(rules % "").warnings] == [True]
    assert parse(rules % ", {name: rest, model: b}").warnings == ()


WRONG = {
    "models: {a: {fallbacks: [z]}}": "f.yaml: models.a.fallbacks[0]: no model 'z' stands in model_list or under models",
    "models: {a: {rules: [{name: x, model: z}]}}": "f.yaml: models.a.rules[0].model: no model 'z'",
    "models: {a: {split: {arms: [{model: b, weight: 1}, {model: z, weight: 1}]}}}": "f.yaml: models.a.split.arms[1].model: no",
    "models: {a: {auto: {hard: z}}}": "f.yaml: models.a.auto.hard: no model 'z'",
    "models: {a: {shadow: {model: z, share: 0.1, team: t}}}": "f.yaml: models.a.shadow.model: no model 'z'",
    "models: {a: {auto: {simple: b}}}": "f.yaml: models.a.auto: Value error, auto needs a model for `hard`",
    "models: {x: {num_retries: 2}}": "f.yaml: models.x: no deployment of it stands in model_list",
    "models: {a: {strategy: fastest}}": "f.yaml: models.a.strategy",
    "models: {a: {num_retries: 99}}": "f.yaml: models.a.num_retries",
    "models: {a: {cooldown_time: 5}}": "f.yaml: models.a.cooldown_time: no such member; check the spelling",
    "models: {a: {fallbakcs: [b]}}": "f.yaml: models.a.fallbakcs: no such member; check the spelling (did you mean fallbacks?)",
    "models: {a: {rules: [{name: x, wen: {}, model: b}]}}": "f.yaml: models.a.rules[0].wen: no such member; check the spelling "
    "(did you mean when?)",
    "models: {a: {rules: [{name: x, when: {has_cod: true}, model: b}]}}": "f.yaml: models.a.rules[0].when.has_cod: no such",
    "models: {x: {auto: {hard: x}}}": "f.yaml: models.x: it leads back to itself: x -> x",
    "models: {x: {split: {arms: [{model: x, weight: 1}, {model: a, weight: 1}]}}}": "f.yaml: models.x: it leads back to itself: "
    "x -> x",
    "models: {a: {auto: {hard: b}}, b: {rules: [{name: x, model: c}]}, c: {split: {arms: [{model: a, weight: 1}]}}}": "f.yaml: "
    "models.a: it leads back to itself: a -> b -> c -> a",
    "models: {a: [b]}": "f.yaml: models.a",
}


@pytest.mark.parametrize("text", WRONG)
def test_what_is_wrong_is_named(text: str) -> None:
    assert [WRONG[text] in problem for problem in problems(text)] == [True]


def test_models_need_a_list() -> None:
    assert problems("models: {a: {num_retries: 1}}", "") == ["f.yaml: models.a: there is no model_list that it could hold for"]


def test_a_model_stands_in_one_file() -> None:
    with pytest.raises(ConfigError, match=r"models\.a: another file has it already"):
        read([("f.yaml", LIST + "models: {a: {num_retries: 1}}"), ("g.yaml", "models: {a: {num_retries: 2}}")])


def test_a_canary_names_the_model_itself() -> None:
    found = model(parse("models: {a: {split: {arms: [{model: a, weight: 95}, {model: b, weight: 5}]}}}"), "a")
    assert found.split is not None
    assert [arm.model for arm in found.split.arms] == ["a", "b"]


def test_fallbacks_may_go_round() -> None:
    assert model(parse("models: {a: {fallbacks: [b]}, b: {fallbacks: [a]}}"), "b").fallbacks == ("a",)


DOCS = Path(__file__).parents[4] / "docs"


@pytest.mark.parametrize("page", ["providers.md", "routing.md"])
def test_the_examples_in_the_documentation_are_understood(page: str) -> None:
    _, _, example = (DOCS / page).read_text().partition("```yaml\n")
    parsed = parse(example.partition("```")[0], "")
    assert parsed.models
    assert (parsed.warnings, parsed.notes) == ((), ())
    assert outlived(parsed.models, TODAY) == []


def test_every_provider_is_in_the_documentation() -> None:
    page = (DOCS / "providers.md").read_text()
    assert [name for name in (*COMPATIBLE, *NATIVE, *OWN_HOUSE) if f"`{name}/" not in page] == []
    assert [known.key for known in (*COMPATIBLE.values(), *NATIVE.values()) if known.key and f"`{known.key}`" not in page] == []


# What is shut down, and when

TODAY = date(2027, 1, 1)


def listed(**dates: str) -> str:
    """Models with a deployment for each date; `-`: without one."""
    entries = [
        f"  - {{model_name: {name}, litellm_params: {{model: echo/{name}}}, model_info: "
        f"{{{'' if day == '-' else f'shutdown_date: {day}'}}}}}"
        for name, days in dates.items()
        for day in days.split()
    ]
    return "\n".join(["model_list:", *entries, ""])


SHUT: list[tuple[str, str, str, list[str]]] = [
    (
        "before it is needed",
        listed(a="2027-06-01", b="2027-05-01"),
        "{a: {fallbacks: [b]}}",
        ["which is shut down on 2027-05-01"],
    ),
    ("on the same day", listed(a="2027-06-01", b="2027-06-01"), "{a: {fallbacks: [b]}}", ["not before 2027-06-01"]),
    ("a day later is in time", listed(a="2027-06-01", b="2027-06-02"), "{a: {fallbacks: [b]}}", []),
    ("never", listed(a="2027-06-01", b="-"), "{a: {fallbacks: [b]}}", []),
    ("some of it lives on", listed(a="2027-06-01", b="2027-05-01 -"), "{a: {fallbacks: [b]}}", []),
    ("the last of it counts", listed(a="2027-06-01", b="2027-05-01 2027-07-01"), "{a: {fallbacks: [b]}}", []),
    ("the first of its own counts", listed(a="2027-06-01 -", b="2027-05-01"), "{a: {content_policy_fallbacks: [b]}}", ["b"]),
    ("it may go before a model without a day", listed(a="-", b="2027-05-01"), "{a: {context_window_fallbacks: [b]}}", []),
    ("but not be gone", listed(a="-", b="2027-01-01"), "{a: {fallbacks: [b]}}", ["which was shut down on 2027-01-01"]),
    ("nor a rule's target", listed(a="-", b="2026-12-31"), "{a: {rules: [{name: x, model: b}]}}", ["a leads to b"]),
    (
        "behind a model that leads elsewhere",
        listed(a="2027-06-01", b="2027-05-01", c="2027-04-01"),
        "{a: {fallbacks: [v]}, v: {split: {arms: [{model: b, weight: 1}, {model: c, weight: 1}]}}}",
        ["a falls back on v, which is shut down on 2027-05-01"],
    ),
    (
        "unless one of those lives on",
        listed(a="2027-06-01", b="2027-05-01", c="-"),
        "{a: {fallbacks: [v]}, v: {split: {arms: [{model: b, weight: 1}, {model: c, weight: 1}]}}}",
        [],
    ),
]


@pytest.mark.parametrize(("models", "text", "told"), [case[1:] for case in SHUT], ids=[case[0] for case in SHUT])
def test_a_fallback_must_outlive_whom_it_stands_in_for(models: str, text: str, told: list[str]) -> None:
    found = outlived(parse(f"models: {text}", models).models or (), TODAY)
    assert len(found) == len(told)
    assert all(expected in problem for expected, problem in zip(told, found, strict=True))


def test_deployments_past_their_day_are_told_of() -> None:
    models = parse("", listed(a="2026-12-31 2027-01-02", b="2027-01-01 -")).models or ()
    assert list(gone(models, TODAY)) == [
        "a: echo/a was shut down by its provider on 2026-12-31; take it out",
        "b: echo/b was shut down by its provider on 2027-01-01; take it out",
    ]


# Planned, applied, and as it was

FULL = """
model_list:
  - model_name: a
    litellm_params:
      model: bedrock/x
      api_key: "env:K"
      api_base: https://b.example
      order: 1
      timeout: 60
      stream_timeout: 5
      silence_timeout: 9
      aws_region_name: eu-central-1
      aws_access_key_id: "env:A"
      aws_secret_access_key: "vault:secret/aws#key"
      aws_profile_name: p
      aws_role_name: r
    model_info:
      {id: a1, max_input_tokens: 9, capabilities: [tools, images], reserved: true, lanes: [interactive], health_check: true,
       shutdown_date: 2027-06-01}
  - model_name: b
    litellm_params: {model: vertex_ai/x, vertex_location: global, vertex_project: p, vertex_credentials: "file:v.json"}
  - {model_name: c, litellm_params: {model: azure/x, api_base: "https://z.example", api_version: "2024-10-21"}}
models:
  a: {fallbacks: [b], hedge: {after_s: 1}, shadow: {model: c, share: 0.5, team: t}, strategy: usage-priority}
  v:
    rules: [{name: r, when: {teams: [t], metadata: {x: [y, z]}}, model: a}]
    split: {arms: [{model: b, weight: 2}]}
    auto: {hard: c}
"""


def test_what_is_applied_stands_as_it_was_written() -> None:
    asked = parse(FULL, "").over(Configuration())
    sent = Configuration.model_validate_json(asked.model_dump_json())
    assert sent == asked
    table, numbers = ControlTable(), count()
    found = changes(table, sent, 1000, lambda prefix: f"{prefix}_{next(numbers)}")
    for resource in found.writes:
        table.put(resource)
    assert sorted(table.models) == ["a", "b", "c", "v"]
    now = Configuration.model_validate_json(standing(table).model_dump_json())
    assert planned(now, parse(FULL, "")) == []
    assert changes(table, now, 2000, lambda prefix: prefix).writes == ()


CHANGED: list[tuple[str, str, str, JsonValue, JsonValue]] = [
    ("order: 1", "order: 2", "deployments[a1].order", 1, 2),
    ("stream_timeout: 5", "stream_timeout: 6", "deployments[a1].first_token_timeout_s", 5.0, 6.0),
    ("aws_role_name: r", "aws_role_name: s", "deployments[a1].aws.role_arn", "r", "s"),
    ("2027-06-01", "2027-07-01", "deployments[a1].shutdown_date", "2027-06-01", "2027-07-01"),
    ("reserved: true", "reserved: false", "deployments[a1].reserved", True, False),
    ("[tools, images]", "[tools]", "deployments[a1].capabilities", ["tools", "images"], ["tools"]),
    ("usage-priority", "lane-aware", "strategy", "usage-priority", "lane-aware"),
    ("share: 0.5", "share: 0.25", "shadow.share", 0.5, 0.25),
    ("after_s: 1", "after_s: 2", "hedge.after_s", 1.0, 2.0),
]


@pytest.mark.parametrize(("before", "after", "path", "was", "then"), CHANGED, ids=[case[2] for case in CHANGED])
def test_each_change_is_planned_and_nothing_else(before: str, after: str, path: str, was: JsonValue, then: JsonValue) -> None:
    stands = parse(FULL, "").over(Configuration())
    assert planned(stands, parse(FULL.replace(before, after), "")) == [
        Change("change", "model/a", (Difference(path, was, then),)),
    ]
