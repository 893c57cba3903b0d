"""Why a member of a LiteLLM file has no effect here, or needs none. Data.

What is not named here is told of all the same, without a reason.
"""

from collections.abc import Mapping
from typing import Final

OWN_REDIS: Final = "Sluice has a Redis of its own; `sluice serve` takes its address from SLUICE_REDIS"

LEFT_OUT: Final = "what a provider is known not to take is left out or translated always; all else is passed on as it came"

GRANTED: Final[Mapping[str, Mapping[str, str]]] = {
    "router_settings": {
        "enable_pre_call_checks": "always on",
        **dict.fromkeys(("redis_host", "redis_port", "redis_password", "redis_url", "redis_db", "redis_ssl"), OWN_REDIS),
        "cache_kwargs": OWN_REDIS,
    },
    "litellm_settings": {
        "json_logs": "logs are lines of JSON always",
        "set_verbose": "set SLUICE_LOG_LEVEL=DEBUG instead",
        "drop_params": LEFT_OUT,
        "modify_params": LEFT_OUT,
    },
    "litellm_params": {"drop_params": LEFT_OUT},
    "litellm_settings.cache_params": dict.fromkeys(
        ("host", "port", "password", "username", "url", "db", "ssl", "redis_startup_nodes", "service_name", "sentinel_nodes"),
        OWN_REDIS,
    ),
}
"""What holds anyway, by section: nobody loses anything."""

_NO_DATABASE: Final = (
    "Sluice keeps keys and teams on Kafka and spend in ClickHouse; what stands in that database has to be made anew "
    "(`teams`, `users`, `sluice keys create`)"
)

MISSING: Final[Mapping[str, Mapping[str, str]]] = {
    "": {
        **dict.fromkeys(
            (
                "agent_list",
                "assistant_settings",
                "callback_settings",
                "credential_list",
                "files_settings",
                "finetune_settings",
                "guardrails",
                "include",
                "mcp_servers",
                "mcp_tools",
                "prompts",
                "search_tools",
                "vector_store_registry",
            ),
            "a setting of LiteLLM's that Sluice doesn't have; it has no effect",
        ),
        "guardrails": "Sluice has a guard of its own: see policy.guard; it has no effect",
        "include": "give all files on the command line instead; it has no effect",
    },
    "router_settings": {
        "retry_policy": "failures are told apart without it: what a provider refuses for good is not repeated",
        "model_group_retry_policy": "failures are told apart without it: what a provider refuses for good is not repeated",
        "allowed_fails_policy": "failures of all kinds count alike: see allowed_fails",
        "routing_strategy_args": "strategies have no settings of their own",
        "retry_after": "the wait between tries is a backoff with jitter, or what the provider says",
        "max_fallbacks": "all fallbacks are asked in their order",
        "disable_cooldowns": "a deployment that fails cools down always; see allowed_fails and cooldown_time",
    },
    "litellm_settings": {
        "default_team_settings": "write the teams under `teams`, and what holds for all of them under `policy`",
        "max_budget": "write it under `policy.budgets`, such as {usd: 100, period: month}",
        "budget_duration": "write it under `policy.budgets`, such as {usd: 100, period: month}",
        "turn_off_message_logging": "write `policy: {data: {log: false}}`",
        "priority_reservation": "write `policy.weight` of each team",
        "priority_reservation_settings": "write `policy.weight` of each team",
        "default_internal_user_params": "write the people under `users`",
        "guardrails": "Sluice has a guard of its own: see policy.guard",
    },
    "litellm_settings.cache_params": {
        "namespace": "an answer is shared within its team; `policy.cache.namespace` says otherwise",
        "supported_call_types": "answers of all calls are kept that may be",
        "mode": "`policy.cache.enabled` of a team says whether its answers are kept",
        "redis_semantic_cache_embedding_model": "no model has to be named for it",
        "qdrant_semantic_cache_embedding_model": "no model has to be named for it",
    },
    "general_settings": {
        "database_url": _NO_DATABASE,
        "database_connection_pool_limit": _NO_DATABASE,
        "store_model_in_db": "models that are made by hand stay until the next `sluice config apply`",
        "alerting": "alerts go to the topic sluice.alerts",
        "salt_key": "no provider's key is stored here",
        "max_parallel_requests": "write `policy.limits.concurrency`",
        "global_max_parallel_requests": "write `policy.limits.concurrency`",
        "enable_jwt_auth": "write the issuer under `identity_providers`",
        "litellm_jwtauth": "write the issuer under `identity_providers`",
        "proxy_budget_rescheduler_min_time": "no budget is ever reset: the period is part of its counter",
        "proxy_budget_rescheduler_max_time": "no budget is ever reset: the period is part of its counter",
        "background_health_checks": "write `model_info.health_check: true` of a deployment",
    },
    "litellm_params": {
        "max_retries": "see router_settings.num_retries",
        "max_tokens": "write model_info.max_output_tokens, or policy.max_output_tokens",
        "tags": "no deployment is chosen by tags",
        "max_budget": "write a budget under `policy.budgets` of an organization, a team, a project…",
        "budget_duration": "write a budget under `policy.budgets` of an organization, a team, a project…",
        "custom_llm_provider": "the provider stands before the slash of `model`",
        "organization": "the provider's key says which organization pays",
        "api_version": "only Azure's API has versions",
        **dict.fromkeys(
            (
                "aws_access_key_id",
                "aws_secret_access_key",
                "aws_session_token",
                "aws_profile_name",
                "aws_role_name",
                "aws_bedrock_runtime_endpoint",
            ),
            "only Bedrock is called with it",
        ),
        **dict.fromkeys(("vertex_project", "vertex_credentials"), "only Vertex AI is called with it"),
        "azure_ad_token": "give the resource's key as api_key",
        **dict.fromkeys(("tenant_id", "client_id", "client_secret"), "give the resource's key as api_key"),
        **dict.fromkeys(
            ("aws_session_name", "aws_web_identity_token", "aws_sts_endpoint"), "AWS's own configuration (a profile) says it"
        ),
        "input_cost_per_second": "prices are by token",
    },
    "model_info": {
        "base_model": "write input_cost_per_token and output_cost_per_token",
        **dict.fromkeys(
            (
                "supports_assistant_prefill",
                "supports_parallel_function_calling",
                "supports_prompt_caching",
                "supports_tool_choice",
            ),
            "no deployment is chosen by it",
        ),
    },
}
"""What is lost, by section: with the reason, or with what to write instead."""


def granted(section: str, member: str) -> str | None:
    """Why nothing is lost by leaving this out, or None."""
    return GRANTED.get(section, {}).get(member)


def missing(section: str, member: str) -> str | None:
    """Why this has no effect, or None if that isn't known."""
    return MISSING.get(section, {}).get(member)
