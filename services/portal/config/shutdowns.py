"""Deployments that their provider shuts down: who relies on them for longer than they live. Pure."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import date

from infra.reachable import chosen_from
from schemas.control import Model


def outlived(models: Sequence[Model], today: date) -> list[str]:
    """Each way to a model that is gone when it is needed: before, or on the day when, the model that leads there loses its first
    deployment, or already."""
    by_name = {model.name: model for model in models}
    problems: list[str] = []
    for model in models:
        first = min(_dates(model), default=None)
        for verb, name in dict.fromkeys(_ways(model)):
            end = _end(name, by_name, {model.name})
            if end is None:
                continue
            if end <= today:
                problems.append(f"{model.name} {verb} {name}, which was shut down on {end}: name another model")
            elif first is not None and end <= first:
                problems.append(
                    f"{model.name} {verb} {name}, which is shut down on {end}, and {model.name} itself not before {first}: "
                    "it would be gone when it is needed; name another model"
                )
    return problems


def gone(models: Sequence[Model], today: date) -> Iterator[str]:
    """Deployments that are past their day."""
    for model in models:
        for deployment in model.deployments:
            if deployment.shutdown_date is not None and deployment.shutdown_date <= today:
                yield f"{model.name}: {deployment.id} was shut down by its provider on {deployment.shutdown_date}; take it out"


def _dates(model: Model) -> list[date]:
    return [d.shutdown_date for d in model.deployments if d.shutdown_date is not None]


def _ways(model: Model) -> Iterator[tuple[str, str]]:
    for name in (*model.fallbacks, *model.context_window_fallbacks, *model.content_policy_fallbacks):
        yield "falls back on", name
    for name in chosen_from(model):
        yield "leads to", name


def _end(name: str, models: Mapping[str, Model], seen: set[str]) -> date | None:
    """The last day on which a model can answer, by itself or by those to which it leads; None: no end is known."""
    model = models.get(name)
    if model is None or name in seen:
        return None
    ends: list[date | None] = [deployment.shutdown_date for deployment in model.deployments]
    ends += [_end(other, models, seen | {name}) for other in chosen_from(model)]
    known = [end for end in ends if end is not None]
    return max(known) if known and len(known) == len(ends) else None
