"""What is known of Bedrock's models by their ids. Pure.

Of an id that says nothing, such as an application inference profile's, the best is assumed; but it isn't told how hard to think.
"""

import re
from dataclasses import dataclass
from typing import Literal

from services.router.providers.claude import keeps_to_schemas, takes_samplers, thinks_adaptively

Effort = Literal["adaptive", "budget", "reasoning_effort", "reasoningConfig"]
"""How `reasoning_effort` is said: Anthropic's adaptive thinking or its budget of tokens, OpenAI's word, Nova's."""

Caches = Literal["nothing", "messages", "tools", "hours"]
"""Where cache points may stand: in messages; in tools too; and there they may be for an hour. Elsewhere they are an error."""

_FAMILY = re.compile(r"(?:^|[./])(ai21|amazon|anthropic|cohere|deepseek|google|meta|mistral|openai|qwen|writer)\.")
_NO_FORMAT = re.compile(
    r"(ai21|amazon|cohere|meta|writer)\.|deepseek\.r1|mistral\.(mistral-7b|mixtral|mistral-large-24)|opus-4-1"
)
_NO_CACHE = re.compile(r"claude-3-(haiku|sonnet|opus|5-sonnet-20240620)")


@dataclass(frozen=True, slots=True)
class Traits:
    """`claude`: it is one, or may be. `samplers`: it takes temperature and such. `text_format`: it keeps to a JSON schema."""

    family: str
    claude: bool
    samplers: bool
    text_format: bool
    effort: Effort | None
    caches: Caches


def traits_of(model: str) -> Traits:
    """What is known of a model by its id or ARN."""
    found = _FAMILY.search(model)
    family = found[1] if found else ""
    claude = family == "anthropic"
    return Traits(
        family=family,
        claude=claude or not family,
        samplers=not claude or takes_samplers(model),
        # AWS, "Get validated JSON results from models": Claude from 4.5 on, and open weights.
        text_format=not _NO_FORMAT.search(model) and (not claude or keeps_to_schemas(model)),
        effort=_effort(family, model),
        caches=_caches(family, model),
    )


def _effort(family: str, model: str) -> Effort | None:
    match family:
        case "anthropic":
            if "claude-3" in model and "claude-3-7" not in model:
                return None
            return "adaptive" if thinks_adaptively(model) else "budget"
        case "openai":
            return "reasoning_effort"
        case "amazon":
            return "reasoningConfig" if "nova-2" in model else None
        case _:
            return None


def _caches(family: str, model: str) -> Caches:
    """AWS, "Prompt caching for faster model inference": Claude and Nova, an hour from Claude 4.5 on."""
    match family:
        case "anthropic" if _NO_CACHE.search(model):
            return "nothing"
        case "anthropic":
            return "hours" if keeps_to_schemas(model) and "opus-4-1" not in model else "tools"
        case "":
            return "hours"
        case "amazon":
            return "messages"
        case _:
            return "nothing"
