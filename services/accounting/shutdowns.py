"""Teams whose requests a deployment answers that its provider will shut down soon: each is warned once a day."""

from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime, timedelta
from functools import partial
from typing import Final

from infra.alerts import Alerts
from infra.kafka.table import ControlTable
from infra.redis.once import Once, OnceEach
from schemas.control import Model
from services.accounting.sums import Ended

NEAR: Final = timedelta(days=30)
_TOLD_MS: Final = 2 * 86_400_000


class Shutdowns:
    """Looks at who was answered by what."""

    def __init__(self, table: ControlTable, alerts: Alerts, once: Once) -> None:
        self._table, self._alerts, self._each = table, alerts, OnceEach(once)
        self._known: tuple[int, date] | None = None
        self._near: Mapping[str, tuple[str, date]] = {}

    async def look(self, seen: Iterable[Ended]) -> None:
        """Raises RedisUnavailable, and what the connection raises."""
        today = datetime.fromtimestamp(self._alerts.clock() / 1000, UTC).date()
        if self._known != (self._table.version, today):
            self._known, self._near = (self._table.version, today), near(self._table.models.values(), today)
        if not self._near:
            return
        used = {(ended.caller.team, attempt.deployment) for ended in seen for attempt in ended.attempts}
        for team, deployment in sorted(used):
            if found := self._near.get(deployment):
                tell = partial(self._tell, team, deployment, *found, today)
                await self._each.do(f"alert:shutdown:{today}:{team}:{deployment}", _TOLD_MS, tell)

    async def _tell(self, team: str, deployment: str, model: str, day: date, today: date) -> None:
        left = (day - today).days
        await self._alerts.raise_(
            "shutdown_near",
            f"deployment/{deployment}",
            team,
            f"{deployment}, which answers team {team} as {model}, is shut down by its provider on {day}, in {left} days",
            facts={"model": model, "shutdown_date": day.isoformat()},
            about=f"{team}:{today}",
        )


def near(models: Iterable[Model], today: date) -> Mapping[str, tuple[str, date]]:
    """Deployments that end within the time of notice, each with a model that it serves, and its day."""
    return {
        deployment.id: (model.name, deployment.shutdown_date)
        for model in models
        for deployment in model.deployments
        if deployment.shutdown_date is not None and timedelta() <= deployment.shutdown_date - today <= NEAR
    }
