"""sluice.yaml → resources. Pure: text in, resources out.

The shape is LiteLLM's (docs.litellm.ai, "Proxy config.yaml"): `model_list` with `model_name`, `litellm_params` and
`model_info`; the same `model_name` twice means two deployments; `router_settings`, `litellm_settings`, `general_settings`. Ours
besides: `policy` (of the organization), `organization`, `teams`, `users`, `identity_providers`, and by model `models`
and `gates`. What can't be understood is an error, what has no effect is a warning: nothing is dropped in silence.
"""

from collections.abc import Sequence

from services.portal.config.deployments import OPENAI_KEY
from services.portal.config.environment import Lookup
from services.portal.config.importing import Imported, import_litellm
from services.portal.config.reading import ConfigError, Parsed, Reading
from services.portal.config.references import secret_name
from services.portal.config.shutdowns import gone, outlived
from services.portal.declared import Configuration, TeamPolicy

__all__ = [
    "OPENAI_KEY",
    "ConfigError",
    "Configuration",
    "Imported",
    "Lookup",
    "Parsed",
    "TeamPolicy",
    "gone",
    "import_litellm",
    "outlived",
    "read",
    "secret_name",
]


def read(texts: Sequence[tuple[str, str]], environment: Lookup = lambda _: None) -> Parsed:
    """Reads files (name, text) as one configuration. Raises ConfigError with everything that is wrong.

    `environment` gives what a reference `os.environ/NAME` stands for; it's asked only for what is no secret (`api_base`).
    """
    reading = Reading(environment)
    for name, text in texts:
        reading.add(name, text)
    return reading.result()
