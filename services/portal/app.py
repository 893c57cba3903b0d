"""Portal: people look and decide. So far its admin API."""

from collections.abc import Sequence

from starlette.routing import BaseRoute

from infra.platform import Platform
from infra.secret_files import admin_key
from services.portal.admin.operators import operator_endpoints
from services.portal.admin.routes import admin_routes
from services.portal.dead import Dead
from services.portal.handler import Admin
from services.portal.jobs import Jobs
from services.portal.replay import Replay


class Portal:
    """The admin API on the public listener."""

    name = "portal"

    def __init__(self, platform: Platform) -> None:
        settings = platform.settings
        self._admin = Admin(platform)
        key = admin_key(settings.data_dir, settings.admin_key.get_secret_value())
        dead = Dead(platform)
        operators = operator_endpoints(Jobs(platform), dead, Replay(platform, self._admin, dead))
        self.routes: Sequence[BaseRoute] = admin_routes(self._admin, key, operators)

    async def start(self) -> None:
        await self._admin.ensure_organization()

    def not_ready(self) -> str | None:
        return None

    async def drain(self) -> None:
        return

    async def stop(self) -> None:
        return


def build(platform: Platform) -> Portal:
    return Portal(platform)
