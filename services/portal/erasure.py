"""What a person, or a key, has asked and been answered, erased wherever it lies; sums for billing stay.

After a crash the same erasure is asked for again, and goes on behind the steps that are done. The bills, which tell whose
what is, come last. What lies in Kafka's logs goes when their retention ends; the certificate says when.
"""

import asyncio
import logging
from collections import Counter
from typing import Final

from infra.clickhouse.client import ClickHouse, ClickHouseUnavailable, open_clickhouse
from infra.clock import new_id
from infra.events import Acts
from infra.platform import Platform
from infra.redis.client import RedisUnavailable
from schemas.errors import NotFound, Unavailable
from services.portal.access import Actor, Right, check
from services.portal.erasing import Eraser
from services.portal.erasure_policy import Erasure, ErasureAsked, log_ends

_PAUSE_S: Final = 1.0
_SELECT: Final = """
SELECT id, subject, actor, reason, steps, counts, jobs, failed,
       toUnixTimestamp64Milli(asked_at) AS asked_ms, toUnixTimestamp64Milli(done_at) AS done_ms
FROM sluice.erasures WHERE {condition} ORDER BY asked_ms DESC LIMIT 1000
"""

log = logging.getLogger(__name__)


class Erasures:
    """Erasures of this house; one at a time of one subject."""

    def __init__(self, platform: Platform, acts: Acts) -> None:
        self._platform, self._acts = platform, acts
        self._running: dict[str, asyncio.Task[None]] = {}
        self._clickhouse: ClickHouse | None = None

    async def ask(self, wanted: ErasureAsked, actor: Actor) -> Erasure:
        """Begins an erasure, or goes on with one of the same subject that is not done. Raises NotAllowed, Unavailable."""
        check(actor, Right.ERASE, what="Erasing what somebody asked")
        begun = await self._unfinished(wanted.subject)
        if begun is None:
            now_ms = self._platform.clock()
            begun = Erasure(
                id=new_id("erasure", now_ms),
                subject=wanted.subject,
                actor=actor.name,
                reason=wanted.reason,
                asked_ms=now_ms,
                logs=log_ends(now_ms),
            )
            await self._save(begun)
            await self._tell(actor.name, "erasure.asked", begun)
        if begun.id not in self._running:
            if begun.failed:
                begun.failed = ""
                await self._save(begun)
            task = asyncio.create_task(self._patiently(begun, wanted))
            self._running[begun.id] = task
            task.add_done_callback(lambda _: self._running.pop(begun.id, None))
        return begun

    async def show(self, erasure_id: str, actor: Actor) -> Erasure:
        """A certificate. Raises NotFound, NotAllowed, Unavailable."""
        check(actor, Right.READ, what="Looking at certificates of erasure")
        for found in await self._find("id = {what:String}", erasure_id):
            return found
        raise NotFound(f"There is no erasure {erasure_id[:64]!r}.", param="id")

    async def all(self, actor: Actor) -> list[Erasure]:
        """The certificates, the youngest first. Raises NotAllowed, Unavailable."""
        check(actor, Right.READ, what="Looking at certificates of erasure")
        return await self._find("{what:String} = ''", "")

    async def stop(self) -> None:
        """What isn't done goes on when it is asked for again."""
        for task in list(self._running.values()):
            task.cancel()
        await asyncio.gather(*self._running.values(), return_exceptions=True)
        if self._clickhouse is not None:
            await self._clickhouse.close()

    async def _patiently(self, erasure: Erasure, wanted: ErasureAsked) -> None:
        while True:
            try:
                await self._run(erasure, wanted)
                return
            except (ClickHouseUnavailable, RedisUnavailable, Unavailable, OSError) as error:
                log.warning("%s waits: %s", erasure.id, type(error).__name__)
            except Exception as error:
                log.exception("%s is not done; ask for it again", erasure.id)
                erasure.failed = type(error).__name__
                await self._save(erasure)
                return
            await asyncio.sleep(_PAUSE_S)

    async def _run(self, erasure: Erasure, wanted: ErasureAsked) -> None:
        eraser = Eraser(self._platform, await self._opened(), wanted, erasure.id)
        for name, step in eraser.steps().items():
            if name not in erasure.steps:
                erasure.counts = dict(Counter(erasure.counts) + Counter(await step()))
                erasure.jobs = max(erasure.jobs, len(eraser.jobs))
                erasure.steps.append(name)
                await self._save(erasure)
        erasure.done_ms = self._platform.clock()
        await self._save(erasure)
        await self._tell(erasure.actor, "erasure.done", erasure)

    async def _tell(self, actor: str, action: str, erasure: Erasure) -> None:
        await self._acts.tell(
            actor, action, f"erasure/{erasure.id}", reason=erasure.reason, after=erasure.model_dump(mode="json")
        )

    async def _unfinished(self, subject: str) -> Erasure | None:
        found = await self._find("subject = {what:String} AND toUnixTimestamp64Milli(done_at) = 0", subject)
        return found[0] if found else None

    async def _find(self, condition: str, what: str) -> list[Erasure]:
        rows = await (await self._opened()).query(_SELECT.replace("{condition}", condition), {"what": what})
        found = [Erasure.model_validate(row) for row in rows]
        return [one.model_copy(update={"logs": log_ends(one.asked_ms)}) for one in found]

    async def _save(self, one: Erasure) -> None:
        row = one.model_dump(include={"id", "subject", "actor", "reason", "steps", "counts", "jobs", "failed"})
        row |= {"asked_at": one.asked_ms, "done_at": one.done_ms, "log_until": one.log_until_ms}
        # The end must be told from the step before it, however little time that took.
        row["version"] = 2 * self._platform.clock() + bool(one.done_ms)
        await (await self._opened()).insert(
            "sluice.erasures_log", {name: [value] for name, value in row.items()}, f"{one.id}:{row['version']}"
        )

    async def _opened(self) -> ClickHouse:
        url = self._platform.settings.clickhouse
        if not url:
            raise Unavailable("Nobody has said where the books are: set SLUICE_CLICKHOUSE.", code="books_unavailable")
        if self._clickhouse is None:
            self._clickhouse = await open_clickhouse(url)
        return self._clickhouse
