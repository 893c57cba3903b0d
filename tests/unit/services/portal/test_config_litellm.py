"""LiteLLM's sections: what of them goes into models, what into the policy, and what is listed."""

from pathlib import Path

import pytest
import yaml

from schemas.control import Model
from schemas.policy import CachePolicy, Policy
from services.portal.config import ConfigError, Parsed, import_litellm, read
from services.portal.declared import Configuration

EXAMPLE = Path(__file__).parents[4] / "docs" / "examples" / "litellm-config.yaml"
MODELS = """
model_list:
  - {model_name: a, litellm_params: {model: echo/a, timeout: 5}}
  - {model_name: b, litellm_params: {model: echo/b}}
  - {model_name: c, litellm_params: {model: echo/c}}
"""
SET = {
    "os.environ/AZURE_EU_API_BASE": "https://eu.example/v1",
    "os.environ/AZURE_US_API_BASE": "https://us.example/v1",
    "os.environ/MISTRAL_API_BASE": "https://m.example/v1",
}


def parse(text: str, models: str = MODELS) -> Parsed:
    return read([("f.yaml", models + text)])


def model(parsed: Parsed, name: str) -> Model:
    return next(model for model in parsed.models or () if model.name == name)


def problems(text: str) -> list[str]:
    with pytest.raises(ConfigError) as raised:
        parse(text)
    return list(raised.value.problems)


def test_routing_goes_into_every_model() -> None:
    parsed = parse(
        "router_settings: {routing_strategy: usage-based-routing-v2, num_retries: 3, allowed_fails: 2, cooldown_time: 40,"
        " timeout: 9}"
    )
    for name in "abc":
        found = model(parsed, name)
        assert (found.strategy, found.num_retries, found.allowed_fails, found.cooldown_s) == ("usage-based-routing", 3, 2, 40)
    assert [model(parsed, name).deployments[0].timeout_s for name in "abc"] == [5, 9, 9], "what a deployment says itself holds"
    assert parsed.warnings == ()


def test_streams_have_a_time_of_their_own() -> None:
    parsed = parse("router_settings: {stream_timeout: 7}")
    assert [model(parsed, name).deployments[0].first_token_timeout_s for name in "abc"] == [7, 7, 7]
    assert parse("litellm_settings: {stream_timeout: 8}").warnings == ()


def test_models_without_routing_are_as_they_were() -> None:
    assert (model(parse(""), "a").strategy, model(parse(""), "a").num_retries) == ("simple-shuffle", None)


def test_fallbacks_of_each_kind() -> None:
    parsed = parse(
        "router_settings: {fallbacks: [{a: [b, c]}], context_window_fallbacks: [{a: [c]}], content_policy_fallbacks: [{b: [a]}],"
        " default_fallbacks: [c]}"
    )
    assert [model(parsed, name).fallbacks for name in "abc"] == [("b", "c"), ("c",), ()]
    assert [model(parsed, name).context_window_fallbacks for name in "ab"] == [("c",), ()]
    assert model(parsed, "b").content_policy_fallbacks == ("a",)


def test_a_star_stands_for_all_models() -> None:
    parsed = parse("litellm_settings: {fallbacks: [{'*': [a]}]}")
    assert [model(parsed, name).fallbacks for name in "abc"] == [(), ("a",), ("a",)]


def test_router_settings_go_before_litellm_settings_and_that_is_said() -> None:
    parsed = parse("router_settings: {num_retries: 1}\nlitellm_settings: {num_retries: 2, allowed_fails: 4}")
    assert (model(parsed, "a").num_retries, model(parsed, "a").allowed_fails) == (1, 4)
    assert parsed.warnings == ("f.yaml: litellm_settings.num_retries: router_settings says otherwise, and that holds",)


def test_an_alias_is_a_further_model_with_the_same_deployments() -> None:
    parsed = parse("router_settings: {model_group_alias: {x: a, y: {model: b, hidden: true}}, fallbacks: [{x: [c]}]}")
    assert model(parsed, "x").deployments == model(parsed, "a").deployments
    assert (model(parsed, "x").fallbacks, model(parsed, "a").fallbacks) == (("c",), ())
    assert model(parsed, "y").deployments == model(parsed, "b").deployments
    assert ["model_group_alias.y.hidden" in warning for warning in parsed.warnings] == [True]


WRONG = {
    "router_settings: {routing_strategy: fastest}": "f.yaml: router_settings.routing_strategy",
    "router_settings: {num_retries: 99}": "f.yaml: router_settings.num_retries",
    "router_settings: {fallbacks: [{a: [z]}]}": "f.yaml: router_settings.fallbacks[0].a: no model 'z' stands in model_list",
    "router_settings: {fallbacks: [{z: [a]}]}": "f.yaml: router_settings.fallbacks[0].z: no model 'z' stands in model_list",
    "router_settings: {default_fallbacks: [z]}": "f.yaml: router_settings.default_fallbacks: no model 'z'",
    "router_settings: {fallbacks: [{a: [b]}, {a: [c]}]}": "f.yaml: router_settings.fallbacks[1].a: its fallbacks stand twice",
    "router_settings: {model_group_alias: {x: z}}": "f.yaml: router_settings.model_group_alias.x: no model 'z'",
    "router_settings: {model_group_alias: {a: b}}": "f.yaml: router_settings.model_group_alias.a: a model of this name",
    "litellm_settings: {cache: true, cache_params: {type: rediss}}": "f.yaml: litellm_settings.cache_params.type",
    "litellm_settings: {cache: true}\npolicy: {cache: {ttl_s: 5}}": "policy.cache says it already",
}


@pytest.mark.parametrize("text", WRONG)
def test_what_is_wrong_is_named(text: str) -> None:
    assert [WRONG[text] in problem for problem in problems(text)] == [True]


def test_cache_and_time_go_into_the_policy_of_the_organization_and_leave_the_rest_of_it() -> None:
    parsed = parse(
        "litellm_settings: {cache: true, cache_params: {type: redis, ttl: 60.0, similarity_threshold: 0.8}, request_timeout: 30}"
    )
    assert parsed.organization_policy == Policy(cache=CachePolicy(ttl_s=60, similarity_threshold=0.8), timeout_s=30)
    assert parsed.organization_members == ("cache", "timeout_s")
    beside = parse("litellm_settings: {cache: false}\npolicy: {timeout_s: 3}")
    assert beside.organization_policy == Policy(cache=CachePolicy(enabled=False), timeout_s=3)
    assert beside.organization_members is None


LISTED = {
    "router_settings: {enable_pre_call_checks: true}": ("note", "router_settings.enable_pre_call_checks: always on"),
    "router_settings: {redis_host: os.environ/REDIS_HOST}": ("note", "redis_host: Sluice has a Redis of its own"),
    "router_settings: {retry_policy: {}}": ("warning", "router_settings.retry_policy: failures are told apart"),
    "router_settings: {num_retrys: 2}": ("warning", "router_settings.num_retrys: not supported; it has no effect (did you mean"),
    "litellm_settings: {drop_params: true}": ("note", "litellm_settings.drop_params: what a provider is known not to take"),
    "litellm_settings: {default_team_settings: []}": ("warning", "default_team_settings: write the teams under `teams`"),
    "litellm_settings: {json_logs: true}": ("note", "litellm_settings.json_logs: logs are lines of JSON"),
    "litellm_settings: {callbacks: prometheus}": ("note", "litellm_settings.callbacks: prometheus: each process shows"),
    "litellm_settings: {callbacks: [datadog]}": ("warning", "litellm_settings.callbacks: datadog: not supported"),
    "litellm_settings: {cache_params: {ttl: 5}}": ("warning", "litellm_settings.cache_params: without `cache: true`"),
    "litellm_settings: {cache: true, cache_params: {namespace: x}}": ("warning", "cache_params.namespace: an answer is shared"),
    "litellm_settings: {cache: true, cache_params: {type: s3}}": ("note", "cache_params.type: answers are kept in Sluice's own"),
    "litellm_settings: {cache: true, cache_params: {host: h}}": ("note", "cache_params.host: Sluice has a Redis of its own"),
    "general_settings: {database_url: os.environ/NO}": ("warning", "general_settings.database_url: Sluice keeps keys and teams"),
    "general_settings: {what_is_this: 1}": ("warning", "general_settings.what_is_this: not supported"),
}


@pytest.mark.parametrize("text", LISTED)
def test_nothing_is_ignored_in_silence(text: str) -> None:
    kind, told = LISTED[text]
    parsed = parse(text)
    here, elsewhere = (parsed.notes, parsed.warnings) if kind == "note" else (parsed.warnings, parsed.notes)
    assert [told in one for one in here] == [True]
    assert elsewhere == ()


def test_langfuse_is_heard_under_each_name() -> None:
    for member in ("callbacks: langfuse", "success_callback: [langfuse]", "failure_callback: [langfuse, prometheus]"):
        assert parse(f"litellm_settings: {{{member}}}").langfuse
    assert not parse("").langfuse


def test_the_master_key_shows_nowhere() -> None:
    parsed = parse("general_settings: {master_key: sk-very-secret}")
    assert parsed.master_key == "sk-very-secret"
    assert "very-secret" not in repr(parsed)
    assert "very-secret" not in parsed.over(Configuration()).model_dump_json()


def test_the_example_in_the_documentation() -> None:
    parsed = read([("f.yaml", EXAMPLE.read_text())], SET.get)
    gpt = model(parsed, "gpt-4o")
    assert [deployment.id for deployment in gpt.deployments] == ["gpt-4o-eu", "gpt-4o-us"]
    assert (gpt.strategy, gpt.num_retries, gpt.allowed_fails, gpt.cooldown_s) == ("latency-based-routing", 2, 1, 30)
    assert (gpt.fallbacks, model(parsed, "gpt-4").deployments) == (("small",), gpt.deployments)
    assert parsed.organization_policy == Policy(cache=CachePolicy(ttl_s=600, similarity_threshold=0.8), timeout_s=120)
    assert (parsed.langfuse, parsed.master_key) == (True, "os.environ/LITELLM_MASTER_KEY")
    assert ["similarity_threshold" in warning for warning in parsed.warnings] == [True], "nothing else of it is without effect"


def meaning(parsed: Parsed) -> tuple[object, ...]:
    return parsed.models, parsed.organization_policy, parsed.langfuse, parsed.master_key


def test_what_is_imported_says_the_same() -> None:
    imported = import_litellm("f.yaml", EXAMPLE.read_text())
    assert ["similarity_threshold" in one for one in imported.left_out] == [True]
    assert [one.split(": ")[1] for one in imported.notes] == [f"model_list[{n}].litellm_params.api_base" for n in range(3)]
    assert meaning(read([("g.yaml", imported.text)], SET.get)) == meaning(read([("f.yaml", EXAMPLE.read_text())], SET.get))


def test_what_cannot_be_used_is_left_out_and_listed() -> None:
    text = """
model_list:
  - {model_name: "*", litellm_params: {model: "openai/*"}}
  - {model_name: a, litellm_params: {model: gpt-4o, api_key: sk-literal-1, tags: [x]}}
  - {model_name: b, litellm_params: {model: acme/llama}}
  - {model_name: c, litellm_params: {model: openai/c, api_key: sk-literal-2, api_version: x}, model_info: {id: c, base_model: d}}
  - {model_name: d, litellm_params: {model: openai/d, api_key: sk-literal-1}}
router_settings: {fallbacks: [{a: [b, c]}, {b: [c]}], default_fallbacks: [b], redis_host: h, model_group_alias: {x: a, y: b}}
general_settings: {master_key: sk-master}
"""
    imported = import_litellm("f.yaml", text)
    document = yaml.safe_load(imported.text)
    assert document == {
        "model_list": [
            {"model_name": "a", "litellm_params": {"model": "openai/gpt-4o", "api_key": "os.environ/OPENAI_API_KEY"}},
            {
                "model_name": "c",
                "litellm_params": {"model": "openai/c", "api_key": "os.environ/OPENAI_API_KEY_2"},
                "model_info": {"id": "c"},
            },
            {"model_name": "d", "litellm_params": {"model": "openai/d", "api_key": "os.environ/OPENAI_API_KEY"}},
        ],
        "router_settings": {"fallbacks": [{"a": ["c"]}], "model_group_alias": {"x": "a"}},
    }
    left_out = "\n".join(imported.left_out)
    for told in (
        "model_list[0].model_name: wildcards",
        "model_list[2].litellm_params.api_base: give the address",
        "model_list[1].litellm_params.tags",
        "model_list[3].litellm_params.api_version",
        "model_list[3].model_info.base_model",
        "router_settings.fallbacks[0].a: no model 'b'",
        "router_settings.fallbacks[1].b: no model 'b'",
        "router_settings.default_fallbacks: no model 'b'",
        "router_settings.model_group_alias.y: no model 'b'",
    ):
        assert told in left_out
    everything = imported.text + left_out + "".join(imported.notes)
    assert "sk-" not in everything, "a secret is never printed"
    assert "master_key: it stands literally" in "".join(imported.notes)
    assert read([("g.yaml", imported.text)]).warnings == ()


def test_no_credential_of_any_kind_is_printed() -> None:
    text = """
model_list:
  - model_name: a
    litellm_params: {model: bedrock/x, aws_region_name: r, aws_access_key_id: literal-1, aws_secret_access_key: literal-2}
  - {model_name: b, litellm_params: {model: vertex_ai/x, vertex_location: r, vertex_credentials: {private_key: literal-3}}}
  - {model_name: c, litellm_params: {model: openai/c, api_key: "vault:secret/x#key"}}
  - {model_name: d, litellm_params: {model: vertex_ai/x, vertex_credentials: /etc/vertex.json}}
"""
    imported = import_litellm("f.yaml", text)
    params = [entry["litellm_params"] for entry in yaml.safe_load(imported.text)["model_list"]]
    assert params[0]["aws_access_key_id"] == "os.environ/AWS_ACCESS_KEY_ID"
    assert params[0]["aws_secret_access_key"] == "os.environ/AWS_SECRET_ACCESS_KEY"
    assert params[1]["vertex_credentials"] == "os.environ/VERTEX_CREDENTIALS"
    assert params[2]["api_key"] == "vault:secret/x#key"
    assert params[3]["vertex_credentials"] == "file:/etc/vertex.json"
    assert "literal-" not in imported.text + "".join((*imported.left_out, *imported.notes))
