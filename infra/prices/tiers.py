"""What a service tier costs in relation to the standard one, where the price list has no price of its own for it.

Only what holds, as far as we know, for all of a provider's models that have the tier; of the others somebody of the house has to
say it (`prices:` in sluice.yaml). Tokens only: a web search costs the same in each. The addresses say where to look; they were
not read again when this was written, so hold them against your contract, and `sluice reconcile` against the invoice.
"""

from collections.abc import Mapping
from decimal import Decimal
from typing import Final

STANDARD: Final = frozenset({"", "auto", "default", "on_demand", "standard", "standard_only"})
"""How providers call the tier that the list's prices are of."""

_HALF = Decimal("0.5")

TIERS: Final[Mapping[str, Mapping[str, Decimal]]] = {
    # platform.openai.com/docs/guides/{batch,flex-processing}: half; docs/pricing: priority is twice for most models, and the
    # list has its price where it is less. `fast` answers as priority.
    "openai": {"batch": _HALF, "flex": _HALF, "priority": Decimal(2), "fast": Decimal(2)},
    # learn.microsoft.com/azure/ai-services/openai/how-to/batch: half.
    "azure": {"batch": _HALF},
    # platform.claude.com/docs/en/build-with-claude/batch-processing: half. Its priority tier is a commitment: no fixed price.
    "anthropic": {"batch": _HALF},
    # ai.google.dev/gemini-api/docs/{batch-mode,flex-inference}: half.
    "google": {"batch": _HALF, "flex": _HALF},
    # docs.aws.amazon.com/bedrock: batch and flex half, priority 75 % more.
    "aws": {"batch": _HALF, "flex": _HALF, "priority": Decimal("1.75")},
    # docs.mistral.ai/capabilities/batch: half.
    "mistral": {"batch": _HALF},
    # console.groq.com/docs/{batch,service-tiers}: batch half; flex costs what on_demand does.
    "groq": {"batch": _HALF, "flex": Decimal(1)},
    # docs.fireworks.ai/guides/batch-inference, docs.together.ai/docs/batch-inference: half.
    "fireworks": {"batch": _HALF},
    "together": {"batch": _HALF},
    # docs.voyageai.com/docs/batch-inference: 33 % off.
    "voyageai": {"batch": Decimal("0.67")},
}
