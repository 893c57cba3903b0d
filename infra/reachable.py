"""Which deployments a job may reach: those of its model and of the models that it may fall back on, as far as its policy lets it.

Ingress asks for the price of the dearest one, the router asks none but these. Pure.
"""

from collections.abc import Iterator, Mapping

from schemas.control import Deployment, Model
from schemas.errors import NotAllowed
from schemas.policy import DataPolicy, RoutePolicy


class NoDeploymentAllowed(NotAllowed):
    """The caller's policy leaves no deployment to ask. The sentence says which of its rules."""

    code = "no_deployment_allowed"


def reachable(models: Mapping[str, Model], model: Model, data: DataPolicy, route: RoutePolicy) -> tuple[Deployment, ...]:
    """All deployments that may be asked for a job of `model`, its own first; none if the policy leaves none."""
    return tuple(d for one in chain(models, model) for d in one.deployments if may_ask(d, data, route))


def chain(models: Mapping[str, Model], model: Model) -> Iterator[Model]:
    """The model, and whatever it may lead to: by rules, split and classifier, and its fallbacks of all kinds, and theirs.

    Names that nobody knows lead nowhere.
    """
    ahead, seen = [model], {model.name}
    while ahead:
        current = ahead.pop(0)
        yield current
        for name in (
            *chosen_from(current),
            *current.fallbacks,
            *current.context_window_fallbacks,
            *current.content_policy_fallbacks,
        ):
            if name in models and name not in seen:
                seen.add(name)
                ahead.append(models[name])


def chosen_from(model: Model) -> Iterator[str]:
    """The models to which this one may lead a request before anybody is asked."""
    yield from (rule.model for rule in model.rules)
    if model.split:
        yield from (arm.model for arm in model.split.arms)
    if model.auto:
        yield from filter(None, (model.auto.simple, model.auto.medium, model.auto.hard))


def may_ask(deployment: Deployment, data: DataPolicy, route: RoutePolicy) -> bool:
    """True if the caller's policy lets its data go to this deployment, and its jobs to this provider."""
    return (
        (data.regions is None or deployment.region in data.regions)
        and (deployment.hipaa or not data.hipaa)
        and (route.providers is None or deployment.provider in route.providers)
    )


def none_allowed(model: str, data: DataPolicy, route: RoutePolicy) -> NoDeploymentAllowed:
    """The error of a job of `model` for which nothing is reachable."""
    rules = [
        *([f"only these regions: {_listed(data.regions)}"] if data.regions is not None else []),
        *(["only deployments for health data (hipaa)"] if data.hipaa else []),
        *([f"only these providers: {_listed(route.providers)}"] if route.providers is not None else []),
    ]
    return NoDeploymentAllowed(
        f"No deployment of `{model}` may be asked for you: your policy allows {', and '.join(rules)}. "
        "Ask for another model, or have the policy or the model's deployments changed.",
        param="model",
    )


def _listed(names: tuple[str, ...]) -> str:
    return ", ".join(names) or "none"
