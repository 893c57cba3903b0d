"""What `sluice up` does before its ready line: the configuration is applied, and whoever tries it out gets a key."""

import os
from pathlib import Path

from infra.secret_files import admin_key
from infra.settings import Settings
from services.cli.client import Api, System
from services.cli.config import apply, put, remember, standing
from services.portal.catalog import default_models
from services.portal.config import Parsed

QUICKSTART_TEAM = "quickstart"


def apply_config(settings: Settings, url: str, config: Path | None, parsed: Parsed | None) -> None:
    """Applies a configuration file, as it was read; without one, models that need nothing from outside. Raises Failed."""
    api = _api(settings, url)
    if config is not None and parsed is not None:
        apply(api, parsed, settings.data_dir)
        remember([config], parsed, System(settings, url, "", "", "", {}, is_local=True))
        return
    now = standing(api)
    defaults = default_models("OPENAI_API_KEY" in os.environ, os.environ.get("OPENAI_BASE_URL"))
    known = {model.name for model in now.models}
    if not known or defaults[0].name in known:
        # Nobody has written a configuration of his own: what is missing of the defaults is added.
        wanted = now.models + [model for model in defaults if model.name not in known]
        put(api, now.model_copy(update={"models": wanted}))


def first_key(settings: Settings, url: str) -> str:
    """The key of the quick start: made at the first start, kept in DATA_DIR/quickstart.key (mode 0600)."""
    path = settings.data_dir / "quickstart.key"
    if path.exists():
        return path.read_text().strip()
    api = _api(settings, url)
    if QUICKSTART_TEAM not in [team.name for team in standing(api).teams]:
        api.post("/admin/v1/teams", {"name": QUICKSTART_TEAM})
    key = str(api.post("/admin/v1/keys", {"team": QUICKSTART_TEAM, "environment": "dev"})["key"])
    path.touch(mode=0o600)
    path.write_text(key + "\n")
    return key


def try_this(url: str, key: str, data_dir: Path) -> str:
    """Three commands for another shell."""
    shown = _shown(data_dir)
    return f"""
Your key: {key}

Try, in another shell:

  curl {url}/v1/chat/completions -H "Authorization: Bearer {key}" -H "content-type: application/json" \\
    -d '{{"model": "echo", "messages": [{{"role": "user", "content": "Hello, Sluice"}}]}}'

  OPENAI_BASE_URL={url}/v1 OPENAI_API_KEY={key} .venv/bin/python -c 'import openai
messages = [{{"role": "user", "content": "Hello again"}}]
for chunk in openai.OpenAI().chat.completions.create(model="echo", messages=messages, stream=True):
    print(chunk.choices[0].delta.content or "", end="", flush=True)
print()'

  .venv/bin/sluice sql "SELECT ts, team, model, cache, prompt_tokens, completion_tokens, cost_usd FROM usage ORDER BY ts"{shown}

Stop with Ctrl-C."""


def _shown(data_dir: Path) -> str:
    return "" if data_dir == (Path.cwd() / ".sluice").absolute() else f" --data-dir {data_dir}"


def _api(settings: Settings, url: str) -> Api:
    return Api(url, admin_key(settings.data_dir, settings.admin_key.get_secret_value()))
