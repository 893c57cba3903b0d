"""sluice.yaml → resources, case by case."""

from pathlib import Path
from typing import Any, cast

import pytest
import yaml

from schemas.control import Model
from schemas.policy import GuardAction, Limits
from services.portal.catalog import default_models
from services.portal.config import ConfigError, Configuration, Parsed, read

Cases = dict[str, dict[str, Any]]
CASES = cast("dict[str, Cases]", yaml.safe_load((Path(__file__).parent / "config_cases.yaml").read_text()))
ENVIRONMENT = {"os.environ/BASE": "https://base.example/v1", "os.environ/RPM": "600"}


def parse(*texts: str) -> Parsed:
    return read([("f.yaml" if not number else f"g{number}.yaml", text) for number, text in enumerate(texts)], ENVIRONMENT.get)


@pytest.mark.parametrize("case", CASES["good"].values(), ids=CASES["good"])
def test_good(case: dict[str, Any]) -> None:
    parsed = parse(case["file"])
    deployments = [d for model in parsed.models or () for d in model.deployments]
    assert parsed.warnings == ()
    if "ids" in case:
        assert [d.id for d in deployments] == case["ids"]
    for deployment, expected in zip(deployments, case.get("deployments", deployments), strict=True):
        if isinstance(expected, dict):
            told = deployment.model_dump(mode="json", include=set(cast("dict[str, object]", expected)))
            if isinstance(price := told.get("price"), dict):
                told["price"] = {name: price[name] for name in cast("list[str]", expected["price"])}
            assert told == expected


@pytest.mark.parametrize("case", CASES["warned"].values(), ids=CASES["warned"])
def test_warned(case: dict[str, Any]) -> None:
    assert list(parse(case["file"]).warnings) == case["warnings"]


@pytest.mark.parametrize("case", CASES["bad"].values(), ids=CASES["bad"])
def test_bad(case: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as raised:
        parse(case["file"])
    assert case["problem"] in str(raised.value)


def test_all_problems_come_at_once() -> None:
    with pytest.raises(ConfigError) as raised:
        parse(CASES["bad"]["no provider"]["file"], CASES["bad"]["a misspelt rule"]["file"])
    assert [problem.split(":")[0] for problem in raised.value.problems] == ["f.yaml", "g1.yaml"]


def test_literal_key_becomes_a_reference_that_tells_nothing() -> None:
    text = "model_list: [{model_name: a, litellm_params: {model: openai/a, api_key: sk-very-secret}}]"
    parsed, again = parse(text), parse(text)
    [(name, secret)] = parsed.secrets.items()
    assert secret == "sk-very-secret"
    assert parsed.models is not None
    assert parsed.models[0].deployments[0].api_key == f"file/{name}"
    assert again.secrets == parsed.secrets
    assert "very-secret" not in repr(parsed)


def test_every_literal_credential_becomes_a_reference() -> None:
    parsed = parse(
        "model_list: [{model_name: a, litellm_params: {model: bedrock/a, aws_region_name: x, aws_access_key_id: AKIA-literal,"
        " aws_secret_access_key: aws-literal, aws_session_token: token-literal}},"
        " {model_name: b, litellm_params: {model: vertex_ai/a, vertex_credentials: {private_key: json-literal}}}]"
    )
    assert set(parsed.secrets.values()) == {"AKIA-literal", "aws-literal", "token-literal", '{"private_key":"json-literal"}'}
    aws, vertex = (model.deployments[0] for model in parsed.models or ())
    references = [aws.aws.access_key_id, aws.aws.secret_access_key, aws.aws.session_token, vertex.vertex.credentials]
    assert {f"file/{name}" for name in parsed.secrets} == set(references)
    assert "literal" not in repr(parsed)


def test_policies_of_organization_and_teams() -> None:
    parsed = parse(
        "policy: {guard: {actions: {card: block}}}\nteams: {fraud: {policy: {limits: {requests_per_minute: 5}}}, risk: {}}"
    )
    assert parsed.organization_policy is not None
    assert parsed.organization_policy.guard is not None
    assert parsed.organization_policy.guard.actions == {"card": GuardAction.BLOCK}
    assert [team.name for team in parsed.teams] == ["fraud", "risk"]
    assert parsed.teams[0].policy.limits == Limits(requests_per_minute=5)


def test_one_policy_in_two_files_is_refused() -> None:
    with pytest.raises(ConfigError, match="another file has one already"):
        parse("policy: {}", "policy: {}")
    with pytest.raises(ConfigError, match="another file has it already"):
        parse("teams: {a: {}}", "teams: {a: {}}")


def test_gates_stand_with_their_model() -> None:
    models = parse(
        "model_list: [{model_name: a, litellm_params: {model: echo/a}}, {model_name: b, litellm_params: {model: echo/b}}]",
        "gates: {a: [{window: '22:00-06:00', tz: Europe/Berlin}, {quota_share: 0.5}, {price_below_usd_per_mtok: 1.0},"
        " {prometheus: {url: 'http://prometheus:9090', query: up, below: 0.8}}]}",
    ).models
    assert models
    assert [type(gate).__name__ for gate in models[0].gates] == ["WindowGate", "QuotaGate", "PriceGate", "PrometheusGate"]
    assert models[1].gates == ()
    assert Model.model_validate_json(models[0].model_dump_json()) == models[0]


def test_the_example_in_the_documentation_says_what_it_says() -> None:
    text = (Path(__file__).parents[4] / "docs" / "lanes.md").read_text()
    parsed = parse(text.partition("```yaml\n")[2].partition("```")[0])
    assert parsed.warnings == ()
    assert [len(model.gates) for model in parsed.models or ()] == [1, 3]


def test_file_without_models_leaves_them_as_they_are() -> None:
    standing = Configuration(models=list(default_models(False)))
    assert parse("policy: {}").over(standing).models == standing.models
    assert parse("model_list: []").over(standing).models == []


def test_models_of_several_files_stand_together() -> None:
    entry = "model_list: [{{model_name: a, litellm_params: {{model: echo/{}}}}}]"
    models = parse(entry.format("x"), entry.format("y")).models
    assert models
    assert [d.model for d in models[0].deployments] == ["x", "y"]


def test_defaults_need_nobody() -> None:
    assert {d.provider for m in default_models(False) for d in m.deployments} == {"echo", "local"}


def test_defaults_with_a_key_are_what_chats_and_embeds() -> None:
    models = {m.name: m.deployments[0] for m in default_models(True, "http://h/v1")}
    assert {"gpt-4o-mini", "text-embedding-3-small", "gpt-4o-2024-08-06"} <= set(models)
    assert not [name for name in models if any(word in name for word in ("audio", "image", "realtime", "tts", "whisper", "ft:"))]
    assert (models["gpt-4o"].api_base, models["gpt-4o"].api_key) == ("http://h/v1", "os.environ/OPENAI_API_KEY")


def test_the_file_with_everything_in_the_documentation() -> None:
    text = (Path(__file__).parents[4] / "docs" / "configuration.md").read_text()
    parsed = parse(text.partition("```yaml\n")[2].partition("```")[0])
    assert (parsed.warnings, parsed.notes) == ((), ())
    assert {model.name: model.fallbacks for model in parsed.models or ()} == {
        "fast": ("night",),
        "night": (),
        "gpt-4": ("night",),
    }
    assert [(e.team, e.project, e.name) for e in parsed.environments] == [
        ("fraud", "", "sandbox"),
        ("fraud", "screening", "prod"),
        ("fraud", "screening", "dev"),
    ]
    assert parsed.time_zone == "Europe/Berlin"
    assert [provider.groups[0].team for provider in parsed.identity_providers] == ["fraud"]
