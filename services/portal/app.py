"""Portal: people look and decide. So far its admin API."""

from collections.abc import Sequence

from starlette.routing import BaseRoute

from infra.alerts import Alerts
from infra.events import Acts
from infra.oidc.tokens import IdentityTokens
from infra.platform import Platform
from infra.redis.once import Once
from infra.secret_files import admin_key
from services.portal.admin.alerts import alert_endpoints
from services.portal.admin.analysts import analyst_endpoints
from services.portal.admin.approvals import approval_operations
from services.portal.admin.audit import audit_endpoints
from services.portal.admin.authentication import Authentication
from services.portal.admin.deployments import deployment_endpoints
from services.portal.admin.explain import explain_endpoints
from services.portal.admin.live import live_endpoints
from services.portal.admin.operators import operator_endpoints
from services.portal.admin.prices import price_endpoints
from services.portal.admin.refusals import Refusals
from services.portal.admin.reports import report_endpoints
from services.portal.admin.routes import admin_operations, admin_routes
from services.portal.admin.spending import spending_endpoints
from services.portal.alert_channels import AlertChannels
from services.portal.alerts import AlertDesk
from services.portal.analysts import Analysts
from services.portal.approvals import Approvals
from services.portal.audit import AuditDesk
from services.portal.books import Books
from services.portal.dead import Dead
from services.portal.deployments import Deployments
from services.portal.erasure import Erasures
from services.portal.handler import Admin
from services.portal.hooks import ItsmHook, itsm_secrets
from services.portal.identities import Identities
from services.portal.jobs import Jobs
from services.portal.live import LiveDesk
from services.portal.replay import Replay
from services.portal.reports.desk import Reports
from services.portal.repricing import Repricing
from services.portal.spending import Explanations


class Portal:
    """The admin API on the public listener."""

    name = "portal"

    def __init__(self, platform: Platform) -> None:
        settings, clock, table = platform.settings, platform.clock, platform.control.table
        acts, once = Acts(platform.kafka, clock), Once(platform.redis)
        self._admin = Admin(platform, acts)
        self._tokens = IdentityTokens(lambda: list(table.identity_providers.values()), clock)
        self._books = Books(settings.clickhouse)
        self._alerts = AlertDesk(platform, self._admin.store)
        self._channels = AlertChannels(platform)
        self._erasures = Erasures(platform, acts)
        alerts = Alerts(platform.kafka, clock, "portal", settings.public)
        approvals = Approvals(self._admin.store, once, alerts)
        dead = Dead(platform)
        operations = [
            *admin_operations(self._admin, acts),
            *operator_endpoints(Jobs(platform), dead, Replay(platform, self._admin, dead), acts),
            *approval_operations(approvals),
            *analyst_endpoints(Analysts(self._admin.store, settings.clickhouse)),
            *spending_endpoints(Explanations(platform, self._admin.budgets)),
            *explain_endpoints(table, self._books, clock),
            *audit_endpoints(AuditDesk(self._books, acts), self._erasures),
            *alert_endpoints(self._alerts.kept, self._channels, acts),
            *price_endpoints(Repricing(self._books, table, clock)),
            *report_endpoints(Reports(self._books, table, clock)),
            *live_endpoints(LiveDesk(self._books, platform.loads, clock)),
            *deployment_endpoints(Deployments(self._admin.store, platform.redis, acts)),
        ]
        key = admin_key(settings.data_dir, settings.admin_key.get_secret_value())
        authentication = Authentication(key, table, clock, Identities(self._tokens, table).actor)
        self.routes: Sequence[BaseRoute] = [
            *admin_routes(authentication, Refusals(acts, clock), operations),
            *ItsmHook(approvals, once, clock, itsm_secrets(settings)).routes,
        ]

    async def start(self) -> None:
        await self._admin.ensure_organization()
        await self._alerts.start()
        await self._channels.start()

    def not_ready(self) -> str | None:
        return self._alerts.not_ready()

    async def drain(self) -> None:
        await self._alerts.drain()
        await self._channels.drain()

    async def stop(self) -> None:
        await self._alerts.stop()
        await self._channels.stop()
        await self._erasures.stop()
        await self._tokens.close()
        await self._books.close()


def build(platform: Platform) -> Portal:
    return Portal(platform)
