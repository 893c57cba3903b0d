"""What the system that the suites share serves besides: models that have a suite of their own, and that nobody else asks."""

import json
from typing import Any

from tests.system import INPUT_USD, OUTPUT_USD, PROVIDER_KEY, Provider, config

AWAY, NARROW = "mock-away", "mock-narrow"
"""One whose provider is away for some seconds, and one with a small quota."""


def served(provider: Provider, recorder_url: str) -> str:
    """A sluice.yaml. Deployments that are named here are named after their model; the mock does what their names say."""
    known: dict[str, Any] = json.loads(config(provider, recorder_url))
    price = {"input_cost_per_token": str(INPUT_USD), "output_cost_per_token": str(OUTPUT_USD)}

    def entry(name: str, mock: str, rpm: int | None = None, **info: Any) -> dict[str, object]:
        params = {"model": f"mocked/{mock}", "api_base": provider.base_url, "api_key": PROVIDER_KEY, "rpm": rpm}
        return {"model_name": name, "litellm_params": params, "model_info": {"id": f"{name}@{mock}", **price, **info}}

    models = [
        *known["model_list"],
        entry("small", "mock-small"),
        entry("large", "mock-large"),
        entry("slow-or-not", "mock-slow"),
        entry("slow-or-not", "mock-quick"),
        entry("watched", "mock-watched"),
        entry("candidate", "mock-candidate"),
        entry("breaks", "mock-breaks"),
        entry("breaks", "mock-rest"),
        entry("short", "mock-short", max_input_tokens=50),
        entry("blind", "mock-blind", capabilities=["streaming", "tools"]),
        entry(AWAY, AWAY),
        entry(NARROW, NARROW, rpm=6),
    ]
    ways = {
        "by-rule": {
            "rules": [
                {"name": "code", "when": {"has_code": True}, "model": "large"},
                {"name": "long", "when": {"min_prompt_tokens": 500}, "model": "large"},
                {"name": "rest", "model": "small"},
            ]
        },
        "canary": {"split": {"name": "c", "arms": [{"model": "small", "weight": 3}, {"model": "large", "weight": 1}]}},
        "automatic": {"auto": {"simple": "small", "hard": "large"}},
        "slow-or-not": {"hedge": {"after_s": 0.3, "most_share": 1}},
        "watched": {"shadow": {"model": "candidate", "share": 1, "team": "lab"}},
        "short": {"context_window_fallbacks": ["large"]},
    }
    gates = {NARROW: [{"quota_share": 0.5}]}
    return json.dumps({"model_list": models, "models": ways, "teams": {"lab": {}}, "gates": gates})
