"""`models` of a sluice.yaml: how each model is asked, and where it leads. Pure."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from pydantic import ValidationError

from infra.reachable import chosen_from
from schemas.base import JsonObject
from schemas.control import Model
from schemas.routing import When
from services.portal.config.findings import Findings
from services.portal.config.shape import SPELLING, explain, unknown

FALLBACKS: Final = ("fallbacks", "context_window_fallbacks", "content_policy_fallbacks")
_MEMBERS: Final = frozenset(
    {"strategy", "rules", "split", "auto", "hedge", "shadow", "num_retries", "allowed_fails", "cooldown_s", *FALLBACKS}
)


@dataclass(frozen=True, slots=True)
class Said:
    """What a file says of a model at `path`: the members that are written there."""

    path: str
    members: Mapping[str, object]


def said(path: str, name: str, written: JsonObject, found: Findings) -> Said:
    """Reads one entry; what is wrong with it is told to `found`."""
    given = {member: value for member, value in written.items() if member in _MEMBERS}
    try:
        model = Model.model_validate({**given, "name": name, "deployments": ()})
    except ValidationError as error:
        errors = error.errors(include_url=False, include_input=False)
        found.problems += [explain("", e["loc"], e["msg"], f"{path}.") for e in errors]
        return Said(path, {})
    known: JsonObject = model.model_dump(mode="json", include=set(_MEMBERS))
    found.problems += [f"{where}: no such member; {SPELLING}{guess}" for where, guess in unknown(path, written, known)]
    return Said(path, {member: getattr(model, member) for member in given})


def check(models: Sequence[Model], of_files: Mapping[str, Said], found: Findings) -> None:
    """Whatever a model leads to must be there, and must not lead back; who has no deployments must lead somewhere.

    A model that has some may name itself: such a request stays with it.
    """
    by_name = {model.name: model for model in models}
    for model in models:
        entry = of_files.get(model.name)
        if entry is None:
            continue
        written = model.model_copy(update={kind: () for kind in FALLBACKS if kind not in entry.members})
        found.problems += [
            f"{entry.path}.{where}: no model {target!r} stands in model_list or under models"
            for where, target in _leads(written)
            if target not in by_name
        ]
        if not model.deployments:
            _check_empty(model, entry.path, found)
    _check_circles(by_name, of_files, found)


def _leads(model: Model) -> Iterator[tuple[str, str]]:
    """Each model that this one names, and where."""
    yield from ((f"rules[{n}].model", rule.model) for n, rule in enumerate(model.rules))
    yield from ((f"split.arms[{n}].model", arm.model) for n, arm in enumerate(model.split.arms if model.split else ()))
    tiers = model.auto.model_dump(exclude_none=True) if model.auto else {}
    yield from ((f"auto.{tier}", target) for tier, target in tiers.items())
    for kind in FALLBACKS:
        yield from ((f"{kind}[{n}]", target) for n, target in enumerate(getattr(model, kind)))
    if model.shadow:
        yield "shadow.model", model.shadow.model


def _check_empty(model: Model, path: str, found: Findings) -> None:
    if not any(chosen_from(model)):
        found.problems.append(
            f"{path}: no deployment of it stands in model_list, so `rules`, `split` or `auto` must lead to another model"
        )
    elif not (model.split or model.auto or any(rule.when == When() for rule in model.rules)):
        found.warnings.append(
            f"{path}: a request that no rule fits can't be served: end with a rule without `when`, or give split, auto or "
            "a deployment"
        )


def _check_circles(models: Mapping[str, Model], of_files: Mapping[str, Said], found: Findings) -> None:
    told = set[frozenset[str]]()
    for name in models:
        circle = _circle(name, models)
        if circle and frozenset(circle) not in told:
            told.add(frozenset(circle))
            where = of_files[name].path if name in of_files else name
            found.problems.append(f"{where}: it leads back to itself: {' -> '.join((*circle, name))}")


def _circle(name: str, models: Mapping[str, Model]) -> list[str]:
    """The names on the way by which a model's rules, split and classifier lead back to it; none if they don't."""
    ways = [[name]]
    seen = set[str]()
    while ways:
        way = ways.pop(0)
        for target in chosen_from(models[way[-1]]):
            if target == way[-1] and models[target].deployments:
                continue
            if target == name:
                return way
            if target in models and target not in seen:
                seen.add(target)
                ways.append([*way, target])
    return []
