"""The deployments of the control table, by id, and what has become of them since one looked last."""

from collections.abc import Mapping
from typing import NamedTuple

from infra.kafka.table import ControlTable
from schemas.control import Deployment, Model


class News(NamedTuple):
    """Deployments that are there no more, and those that are called with another credential, or elsewhere."""

    gone: frozenset[str] = frozenset()
    rekeyed: tuple[str, ...] = ()


class Roster:
    """What stood in the table when one looked last."""

    def __init__(self, table: ControlTable) -> None:
        self._table = table
        self._models: tuple[Model, ...] = ()
        self.deployments: Mapping[str, Deployment] = {}

    def look(self) -> News:
        """Looks again. Cheap where nothing has changed."""
        models = tuple(self._table.models.values())
        if models == self._models:
            return News()
        before, self._models = self.deployments, models
        self.deployments = {one.id: one for model in models for one in model.deployments}
        both = before.keys() & self.deployments.keys()
        rekeyed = tuple(name for name in both if _door(before[name]) != _door(self.deployments[name]))
        return News(frozenset(before.keys() - self.deployments.keys()), rekeyed)

    def drained(self) -> frozenset[str]:
        """Those that an operator has taken out."""
        return frozenset(state.id for state in self._table.deployment_states.values() if state.drained)

    def with_secret(self, reference: str) -> list[str]:
        """Those whose credential this reference is part of."""
        return [name for name, one in self.deployments.items() if reference in one.references]


def _door(deployment: Deployment) -> tuple[object, ...]:
    return deployment.provider, deployment.api_base, deployment.api_key, deployment.aws, deployment.vertex
