"""A policy of webhooks, as code."""

import re
from pathlib import Path

import pytest

from schemas.policy import WebhookPolicy
from services.portal.config import ConfigError, read

DOCS = Path(__file__).parents[4] / "docs" / "webhooks.md"


def test_the_policy_in_the_documentation_can_be_applied() -> None:
    (text,) = re.findall(r"```yaml\n(.*?)```", DOCS.read_text(), re.DOTALL)
    parsed = read([("webhooks.yaml", text)])
    (team,) = parsed.teams
    assert parsed.warnings == ()
    assert team.policy.webhooks == WebhookPolicy(
        only=("hooks.acme.example", "hooks.partner.example:9443"), internal=("hooks.internal:8080",)
    )


def test_a_list_that_is_misspelt_does_not_look_as_if_it_held() -> None:
    with pytest.raises(ConfigError, match=r"policy\.webhooks\.onyl"):
        read([("x.yaml", "policy: {webhooks: {onyl: [hooks.acme.example]}}")])
