"""What auditors look at: records of jobs as they were kept, with their links in the chain. Who looked at what is told."""

from datetime import UTC, datetime
from typing import Final, Self

from pydantic import BaseModel, Field, model_validator

from infra.audit import LINK_COLUMNS, ROW_COLUMNS, AuditRow, Link
from infra.events import Acts
from services.portal.access import Actor, Right, check
from services.portal.books import Books

_ANSWER_S: Final = 25.0
_ROWS: Final = f"""
SELECT {ROW_COLUMNS} FROM sluice.audit_log FINAL
WHERE audit_log.expires_at > now('UTC') AND job_id > {{after:String}} AND {{condition}}
ORDER BY job_id LIMIT {{most:UInt32}}
"""
_LINKS: Final = f"""
SELECT {LINK_COLUMNS} FROM sluice.audit_chain FINAL WHERE (partition, seq) IN {{places:Array(Tuple(UInt32, UInt64))}}
"""
_HEADS: Final = f"SELECT {LINK_COLUMNS} FROM sluice.audit_chain FINAL ORDER BY partition, n DESC LIMIT 1 BY partition"


class AuditAsked(BaseModel):
    """GET /admin/v1/audit: of a job, a user, a key or a month (UTC, 2026-07). `after`: the last job of the page before."""

    job: str | None = None
    user: str | None = None
    key: str | None = None
    month: str | None = Field(default=None, pattern=r"^\d{4}-(0[1-9]|1[0-2])$")
    after: str = ""
    limit: int = Field(default=100, ge=1, le=500)

    @model_validator(mode="after")
    def _is_one(self) -> Self:
        if sum(one is not None for one in (self.job, self.user, self.key, self.month)) != 1:
            raise ValueError("say one of job, user, key, month")
        return self

    @property
    def subject(self) -> str:
        """As events name it."""
        given = self.model_dump(include={"job", "user", "key", "month"}, exclude_none=True)
        return next(f"{kind}/{name}" for kind, name in given.items())


class AuditShown(BaseModel):
    """A record and its link."""

    row: AuditRow
    link: Link | None


class AuditDesk:
    """Reads the audit log."""

    def __init__(self, books: Books, acts: Acts) -> None:
        self._books, self._acts = books, acts

    async def page(self, asked: AuditAsked, actor: Actor) -> tuple[list[AuditShown], str | None]:
        """Records by the time of their jobs, and the id to go on from, if there may be more. Raises NotAllowed, Unavailable."""
        check(actor, Right.AUDIT, what="Looking at prompts and answers")
        condition, parameters = _condition(asked)
        sql = _ROWS.replace("{condition}", condition)
        found = await self._books.ask(sql, {**parameters, "after": asked.after, "most": asked.limit}, _ANSWER_S)
        rows = [AuditRow.model_validate(row) for row in found]
        links = await self._links([(row.partition, row.seq) for row in rows])
        await self._acts.tell(actor.name, "audit.read", asked.subject, after={"records": len(rows), "after": asked.after})
        shown = [AuditShown(row=row, link=links.get((row.partition, row.seq))) for row in rows]
        return shown, rows[-1].job_id if len(rows) == asked.limit else None

    async def heads(self, actor: Actor) -> list[Link]:
        """The last link of each chain. Raises NotAllowed, Unavailable."""
        check(actor, Right.READ, what="Looking at the audit log's chain")
        return [Link.model_validate(row) for row in await self._books.ask(_HEADS, {})]

    async def _links(self, places: list[tuple[int, int]]) -> dict[tuple[int, int], Link]:
        if not places:
            return {}
        found = (Link.model_validate(row) for row in await self._books.ask(_LINKS, {"places": places}, _ANSWER_S))
        return {(link.partition, link.seq): link for link in found}


def _condition(asked: AuditAsked) -> tuple[str, dict[str, object]]:
    if asked.job is not None:
        return "job_id = {what:String}", {"what": asked.job}
    if asked.key is not None:
        return "key_id = {what:String}", {"what": asked.key}
    if asked.user is not None:
        return "(user = {what:String} OR identity = {what:String})", {"what": asked.user}
    begins = datetime.strptime(f"{asked.month}-01+0000", "%Y-%m-%d%z").astimezone(UTC)
    ends = begins.replace(year=begins.year + begins.month // 12, month=begins.month % 12 + 1)
    return "audit_log.ts >= {begins:DateTime64(3, 'UTC')} AND audit_log.ts < {ends:DateTime64(3, 'UTC')}", {
        "begins": begins,
        "ends": ends,
    }
