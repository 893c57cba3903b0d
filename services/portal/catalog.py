"""The models that a system has before anybody configured one. Pure."""

import re
from collections.abc import Iterator

from genai_prices.data import providers
from genai_prices.types import ClauseEquals, ClauseOr, MatchLogic

from schemas.control import Deployment, Model
from services.portal.config import OPENAI_KEY

# The price data doesn't say which endpoint serves a model: names do.
_ANSWERS = re.compile(r"^(gpt-\d|gpt-chat|chatgpt-|o\d|text-embedding-)")
_ELSEWHERE = re.compile(
    r"audio|codex|cyber|deep-research|image|instruct|live|oss|preview|realtime|rosalind|transcribe|translate|tts|vision"
    r"|-pro\b|-\d{4}$|:|-$"
)
_SNAPSHOT = re.compile(r"-\d{4}-\d{2}-\d{2}$")


def default_models(openai_key_present: bool, openai_base_url: str | None = None) -> tuple[Model, ...]:
    """`echo` and `all-minilm-l6-v2`, which need nobody else; and OpenAI's chat and embedding models, if there is a key.

    OpenAI's names come from the bundled prices (genai-prices), so that each of them has a price.
    """
    models = [
        _model("echo", "echo", "echo"),
        _model("all-minilm-l6-v2", "local", "all-minilm-l6-v2"),
    ]
    if openai_key_present:
        models += [_model(name, "openai", name, openai_base_url, OPENAI_KEY) for name in sorted(set(_openai_names()))]
    return tuple(models)


def _model(name: str, provider: str, model: str, api_base: str | None = None, api_key: str | None = None) -> Model:
    deployment = Deployment(id=f"{provider}/{model}", provider=provider, model=model, api_base=api_base, api_key=api_key)
    return Model(name=name, deployments=(deployment,), owned_by=provider)


def _openai_names() -> Iterator[str]:
    openai = next(provider for provider in providers if provider.id == "openai")
    for info in openai.models:
        if _ANSWERS.search(info.id) and not _ELSEWHERE.search(info.id):
            yield info.id
            yield from (name for name in _equals(info.match) if _SNAPSHOT.sub("", name) == info.id)


def _equals(match: MatchLogic) -> Iterator[str]:
    if isinstance(match, ClauseEquals):
        yield match.equals
    elif isinstance(match, ClauseOr):
        for clause in match.or_:
            yield from _equals(clause)
