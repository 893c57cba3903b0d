"""Providers by the names that stand in front of a model: LiteLLM's, so that its files mean the same here. Data.

Configuration asks who needs an address, the router where to call. Who isn't named here speaks OpenAI's API at the address that
the deployment gives.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Known:
    """`api_base`: where it is called unless a deployment says otherwise; "": see NATIVE and OWN_HOUSE, else nobody knows.

    `key`: the variable of the environment with its key, as LiteLLM's users have it; taken where a deployment that is called at
    that address names none. `telemetry`: OpenTelemetry's name (gen_ai.provider.name) where it is another one.
    """

    api_base: str = ""
    key: str = ""
    telemetry: str = ""


OPENAI: Final = "https://api.openai.com/v1"

COMPATIBLE: Final[Mapping[str, Known]] = {
    "openai": Known(OPENAI, "OPENAI_API_KEY"),
    "ai21": Known("https://api.ai21.com/studio/v1", "AI21_API_KEY"),
    "cerebras": Known("https://api.cerebras.ai/v1", "CEREBRAS_API_KEY"),
    "codestral": Known("https://codestral.mistral.ai/v1", "CODESTRAL_API_KEY", "mistral_ai"),
    "cohere": Known("https://api.cohere.ai/compatibility/v1", "COHERE_API_KEY"),
    "cohere_chat": Known("https://api.cohere.ai/compatibility/v1", "COHERE_API_KEY", "cohere"),
    "dashscope": Known("https://dashscope-intl.aliyuncs.com/compatible-mode/v1", "DASHSCOPE_API_KEY"),
    "deepinfra": Known("https://api.deepinfra.com/v1/openai", "DEEPINFRA_API_KEY"),
    "deepseek": Known("https://api.deepseek.com/v1", "DEEPSEEK_API_KEY"),
    "featherless_ai": Known("https://api.featherless.ai/v1", "FEATHERLESS_AI_API_KEY"),
    "fireworks_ai": Known("https://api.fireworks.ai/inference/v1", "FIREWORKS_API_KEY"),
    "github": Known("https://models.github.ai/inference", "GITHUB_API_KEY"),
    "groq": Known("https://api.groq.com/openai/v1", "GROQ_API_KEY"),
    "huggingface": Known("https://router.huggingface.co/v1", "HUGGINGFACE_API_KEY"),
    "hyperbolic": Known("https://api.hyperbolic.xyz/v1", "HYPERBOLIC_API_KEY"),
    "meta_llama": Known("https://api.llama.com/compat/v1", "LLAMA_API_KEY"),
    "mistral": Known("https://api.mistral.ai/v1", "MISTRAL_API_KEY", "mistral_ai"),
    "moonshot": Known("https://api.moonshot.ai/v1", "MOONSHOT_API_KEY", "moonshot_ai"),
    "novita": Known("https://api.novita.ai/v3/openai", "NOVITA_API_KEY"),
    "nvidia_nim": Known("https://integrate.api.nvidia.com/v1", "NVIDIA_NIM_API_KEY"),
    "openrouter": Known("https://openrouter.ai/api/v1", "OPENROUTER_API_KEY"),
    "perplexity": Known("https://api.perplexity.ai", "PERPLEXITYAI_API_KEY"),
    "sambanova": Known("https://api.sambanova.ai/v1", "SAMBANOVA_API_KEY"),
    "together_ai": Known("https://api.together.xyz/v1", "TOGETHERAI_API_KEY"),
    "xai": Known("https://api.x.ai/v1", "XAI_API_KEY", "x_ai"),
    "zai": Known("https://api.z.ai/api/paas/v4", "ZAI_API_KEY"),
    # Servers of one's own, where they listen by default.
    "hosted_vllm": Known(),
    "llamacpp": Known("http://localhost:8080/v1"),
    "llamafile": Known("http://localhost:8080/v1"),
    "lm_studio": Known("http://localhost:1234/v1"),
    "ollama": Known("http://localhost:11434/v1"),
    "ollama_chat": Known("http://localhost:11434/v1", telemetry="ollama"),
    "tgi": Known(),
    "vllm": Known(),
}
"""Who speaks OpenAI's API, by its own documentation."""

NATIVE: Final[Mapping[str, Known]] = {
    "anthropic": Known(key="ANTHROPIC_API_KEY"),
    "azure": Known(telemetry="azure.ai.openai"),
    "bedrock": Known(telemetry="aws.bedrock"),
    "gemini": Known(key="GEMINI_API_KEY", telemetry="gcp.gemini"),
    "litellm": Known(),
    "vertex_ai": Known(telemetry="gcp.vertex_ai"),
}
"""Who has an API of its own."""

OWN_HOUSE: Final = frozenset({"echo", "local"})
"""Who is served by this process."""

_TELEMETRY: Final = {name: known.telemetry for name, known in (COMPATIBLE | NATIVE).items() if known.telemetry} | {
    "azure_ai": "azure.ai.inference",
    "watsonx": "ibm.watsonx.ai",
}
_NEED_AN_ADDRESS: Final = frozenset({"azure"})


def address(provider: str) -> str | None:
    """Where a provider that speaks OpenAI's API is called, or None if only a deployment can say."""
    known = COMPATIBLE.get(provider)
    return known.api_base or None if known else None


def needs_address(provider: str) -> bool:
    """True if a deployment of this provider must say where it is called."""
    if provider in NATIVE or provider in OWN_HOUSE:
        return provider in _NEED_AN_ADDRESS
    return address(provider) is None


def usual_key(provider: str) -> str | None:
    """The variable of the environment that holds this provider's key by habit."""
    known = COMPATIBLE.get(provider) or NATIVE.get(provider)
    return known.key or None if known else None


def telemetry_name(provider: str) -> str:
    """The provider as OpenTelemetry calls it (gen_ai.provider.name); its own name where that has none."""
    return _TELEMETRY.get(provider, provider)
