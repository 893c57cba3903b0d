"""Requests for a key, more budget or a model: asked for, decided, collected. Everything ends on the control topic.

What a grant makes is written before the grant itself, and is the same if it is written again: one that was cut off in
between stands as pending still, and is granted anew.
"""

import logging
from dataclasses import dataclass

from pydantic import BaseModel, Field

from infra.alerts import Alerts
from infra.clock import new_id
from infra.credentials import key_hash, new_key
from infra.kafka.table import OURSELVES
from infra.redis.once import Once
from schemas.control import Approval, Resource, VirtualKey, resource_key
from schemas.errors import Conflict, NotFound, Unavailable
from schemas.event import Author
from services.portal import approval_policy as decide
from services.portal import policy
from services.portal.access import Actor, Right, check, visible
from services.portal.approval_policy import Status
from services.portal.approval_wanted import AskFor, Grant, WantedBudget, WantedKey, WantedModel, wanted_of
from services.portal.store import Store

log = logging.getLogger(__name__)

CLAIM_MS = 10_000
"""For so long one process alone acts on a request: by then the others' tables have what it wrote."""


class Taken(Conflict):
    """Another process is at the request, and may yet fail."""

    code = "approval_taken"


class ApprovalsAsked(BaseModel):
    """GET /admin/v1/approvals."""

    team: str | None = None
    status: Status | None = None
    after: str = ""
    limit: int = Field(default=100, ge=1, le=1000)


class KeyCollected(BaseModel):
    """The key that was asked for; the only time that its secret is shown. `expires_ms` in unix milliseconds, 0: never."""

    id: str
    key: str
    team: str
    last4: str
    expires_ms: int
    approval: str


@dataclass(frozen=True, slots=True)
class Approvals:
    """Acts on requests. Deciding and collecting raise RedisUnavailable: another process may be at it, and only Redis knows."""

    store: Store
    once: Once
    alerts: Alerts | None = None

    async def ask(self, actor: Actor, asked: AskFor, requester: str = "", ticket: str = "") -> Approval:
        """A new request, of `requester` if that is somebody else. Raises NotFound, NotAllowed, InvalidRequest, Conflict."""
        check(actor, Right.ASK, asked.team, "Asking for something")
        policy.the_team(visible(actor, self.store.table.teams), asked.team)
        wanted = wanted_of(asked.what, asked.wanted, asked.team)
        if (above := decide.level_above(wanted)) and above != actor.name:
            check(actor, Right.ASK, what="Asking for something at this level")
        async with self.store.writing():
            now_ms = self.store.clock()
            decide.check_wanted(wanted, asked.team, requester or actor.name, self.store.table.get)
            await self._check_news(asked.team, ticket, now_ms)
            approval = Approval(
                id=new_id("apr", now_ms),
                what=asked.what,
                team=asked.team,
                wanted=wanted.model_dump(mode="json", exclude_none=True),
                why=asked.why,
                requester=requester or actor.name,
                ticket=ticket,
                created_ms=now_ms,
                expires_ms=now_ms + asked.expires_in * 1000,
                until_ms=asked.at(now_ms) or 0,
            )
            await self.store.write(approval, author=actor.author("approval.asked", asked.why))
            await self._forget_surplus(asked.team, now_ms)
        if not ticket:
            await self._tell(approval)
        return approval

    async def grant(self, actor: Actor, approval_id: str, grant: Grant, ticket: str = "") -> Approval:
        """Grants a request. Raises NotFound, NotAllowed, InvalidRequest if it can't be granted as things stand now, Conflict."""
        async with self.store.writing():
            approval, now_ms = self._decidable(actor, approval_id), self.store.clock()
            until_ms = decide.end_of(approval, grant, now_ms)
            made, action = self._made(approval, until_ms, now_ms)
            granted = decide.decided(approval, "granted", actor.name, grant.reason, now_ms, ticket, resource_key(made), until_ms)
            await self._claim(approval, "decide")
            await self.store.write(made, author=actor.author(action, f"{approval.id}: {grant.reason}"))
            if isinstance(made, VirtualKey):
                await self.store.make_place(made.team, made.project, made.environment, actor)
            await self.store.write(granted, author=actor.author("approval.granted", grant.reason))
            return granted

    async def refuse(self, actor: Actor, approval_id: str, reason: str, ticket: str = "") -> Approval:
        """Refuses a request. Raises NotFound, NotAllowed, Conflict."""
        async with self.store.writing():
            approval = self._decidable(actor, approval_id)
            refused = decide.decided(approval, "refused", actor.name, reason, self.store.clock(), ticket)
            await self._claim(approval, "decide")
            await self.store.write(refused, author=actor.author("approval.refused", reason))
            return refused

    async def collect(self, actor: Actor, approval_id: str) -> KeyCollected:
        """The key that was granted, for who asked for it, once. Raises NotFound, NotAllowed, Conflict."""
        async with self.store.writing():
            approval = self._seen(actor, approval_id)
            key = decide.check_collectable(approval, self._key(approval), actor.name, self.store.clock())
            secret = new_key()
            collected = decide.collected(key, key_hash(secret), secret[-4:])
            done = approval.model_copy(update={"status": "collected", "version": approval.version + 1})
            await self._claim(approval, "collect")
            # A secret that got lost between these two was shown to nobody: until the second is written, another may be made.
            await self.store.write(collected, author=actor.author("key.collected", approval.id))
            await self.store.write(done, author=actor.author("approval.collected"))
        return KeyCollected(
            id=key.id, key=secret, team=key.team, last4=collected.last4, expires_ms=key.expires_ms, approval=approval.id
        )

    def show(self, actor: Actor, approval_id: str) -> Approval:
        """A request as it stands. Raises NotFound."""
        return decide.shown(self._seen(actor, approval_id), self.store.clock())

    def page(self, actor: Actor, asked: ApprovalsAsked) -> tuple[list[Approval], str | None]:
        """Requests of the teams that one sees, the youngest first; and the id to go on from, if there are more.

        Raises NotFound for a team that one doesn't see.
        """
        if asked.team is not None:
            check(actor, Right.READ, asked.team)
        now_ms = self.store.clock()
        known = (decide.shown(one, now_ms) for one in self.store.table.approvals.values() if actor.may(Right.READ, one.team))
        found = sorted((one for one in known if _is_asked_for(one, asked)), key=lambda one: one.id, reverse=True)
        page = found[: asked.limit]
        return page, page[-1].id if len(found) > len(page) else None

    def by_ticket(self, ticket: str) -> Approval | None:
        """The request that a ticket stands for."""
        return next((one for one in self.store.table.approvals.values() if ticket and one.ticket == ticket), None)

    def _seen(self, actor: Actor, approval_id: str) -> Approval:
        approval = self.store.table.approvals.get(approval_id)
        if approval is None or not actor.may(Right.READ, approval.team):
            raise NotFound(f"There is no request {approval_id[:64]!r}. `sluice approvals list` shows them.")
        return approval

    def _key(self, approval: Approval) -> VirtualKey | None:
        return self.store.table.keys.get(decide.key_id_of(approval))

    def _decidable(self, actor: Actor, approval_id: str) -> Approval:
        """The request, if `actor` may decide about it and nobody has yet. Raises NotFound, NotAllowed, Conflict."""
        approval = self._seen(actor, approval_id)
        wanted = wanted_of(approval.what, approval.wanted, approval.team)
        team = "" if decide.level_above(wanted) else approval.team
        check(actor, decide.right_to_decide(approval.what), team, "Deciding about it")
        decide.check_four_eyes(approval.requester, actor.name)
        decide.check_pending(approval, self.store.clock())
        return approval

    async def _claim(self, approval: Approval, act: str) -> None:
        """Of all processes this one alone does this to the request, now. Raises Conflict.

        Nobody gives a claim back: of a write that failed nobody knows whether it is there after all, and the others' tables lag.
        """
        if await self.once.begin(f"approval:{approval.id}:{act}", CLAIM_MS):
            raise Taken(f"Somebody else is at the request {approval.id} just now. Look again in {CLAIM_MS // 1000} s.")

    def _made(self, approval: Approval, until_ms: int, now_ms: int) -> tuple[Resource, str]:
        """What the grant makes or changes, and what that is called. Raises as `check_wanted`, and Conflict."""
        find = self.store.table.get
        wanted = wanted_of(approval.what, approval.wanted, approval.team)
        decide.check_same_team(approval, policy.the_team(self.store.table.teams, approval.team))
        decide.check_wanted(wanted, approval.team, approval.requester, find)
        match wanted:
            case WantedKey():
                nobodys, before = key_hash(new_key()), self._key(approval)
                key = decide.key_of(approval, wanted, nobodys, until_ms, now_ms, before.version + 1 if before else 1)
                return key, "key.granted"
            case WantedBudget():
                level = decide.level_of(wanted.level, approval.team, approval.requester, find)
                return decide.increased(level, wanted, approval.id, until_ms, now_ms), "budget.increased"
            case WantedModel():
                level = decide.level_of(wanted.level, approval.team, approval.requester, find)
                return decide.allowed(level, wanted, approval.id, until_ms, now_ms), "model.granted"

    async def _check_news(self, team: str, ticket: str, now_ms: int) -> None:
        """Raises Conflict if too much waits, or if the ticket was acted on before; Unavailable if it's acted on now."""
        decide.check_room(self._of(team), now_ms)
        if before := self.by_ticket(ticket):
            state = decide.status_at(before, now_ms)
            raise Conflict(f"The ticket {ticket} stands for {before.id} already, which is {state}.", code="ticket_used")
        if ticket and await self.once.begin(f"ticket:{ticket}", CLAIM_MS):
            raise Unavailable(f"The ticket {ticket} is being acted on.", retry_after_s=CLAIM_MS // 1000)

    async def _forget_surplus(self, team: str, now_ms: int) -> None:
        for one in decide.surplus(self._of(team), now_ms):
            await self.store.delete(resource_key(one), author=Author(actor=OURSELVES.actor, action="approval.forgotten"))

    def _of(self, team: str) -> list[Approval]:
        return [one for one in self.store.table.approvals.values() if one.team == team]

    async def _tell(self, approval: Approval) -> None:
        """Those who may decide should know. What was asked for stands, told or not."""
        if self.alerts is None:
            return
        message = f"{approval.requester} asks for a {approval.what} for team {approval.team}: {approval.why}"
        try:
            await self.alerts.raise_("approval", resource_key(approval), approval.team, message, "info")
        except Exception as error:
            log.warning("the alert about %s could not be raised (%s)", approval.id, type(error).__name__)


def _is_asked_for(approval: Approval, asked: ApprovalsAsked) -> bool:
    return (
        asked.team in (None, approval.team)
        and asked.status in (None, approval.status)
        and (not asked.after or approval.id < asked.after)
    )
