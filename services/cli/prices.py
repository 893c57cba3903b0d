"""Which deployments have no price: what they cost would be booked as nothing."""

from collections.abc import Iterable, Iterator

from genai_prices import Usage, calc_price

from schemas.control import Deployment, Model

FREE = frozenset({"echo", "local"})
_TOKEN = Usage(input_tokens=1, output_tokens=1)


def unpriced(models: Iterable[Model]) -> Iterator[tuple[str, str]]:
    """Alias and deployment id of each deployment without a price of its own and without one in the price data."""
    for model in models:
        yield from ((model.name, d.id) for d in model.deployments if not _has_price(d))


def _has_price(deployment: Deployment) -> bool:
    if deployment.price is not None or deployment.provider in FREE:
        return True
    try:
        calc_price(_TOKEN, deployment.model, provider_id=deployment.provider)
    except LookupError:
        return False
    return True
