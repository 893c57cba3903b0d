"""Where what somebody asked may lie, and how it goes from there. Each step may be repeated."""

import json
import re
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from typing import Final, cast

from pydantic import ValidationError

from infra.clickhouse.client import ClickHouse
from infra.objects import ObjectStore
from infra.platform import Platform
from infra.redis.held import forget, held
from schemas.job import Caller
from schemas.kept import Kept
from schemas.openai.batches import Batch
from schemas.ticket import Ticket
from services.portal.erasure_policy import ErasureAsked, quoted

_AT_ONCE: Final = 50_000
_LONGEST_ID: Final = 64
_DIGITS: Final = re.compile(rb"(?:job|resp|batch_req|evt)_([0-9a-f]{32})")
_OUTPUT: Final = "batch_output"
_NAMED: Final = """
SELECT table, groupArray(name) AS names FROM system.columns
WHERE database = 'sluice' AND name IN ('user', 'identity') AND NOT is_in_sorting_key AND NOT is_in_partition_key
  AND table IN (SELECT name FROM system.tables WHERE database = 'sluice' AND engine LIKE '%MergeTree')
GROUP BY table ORDER BY table = 'usage_log' DESC, table
"""


class Eraser:
    """Finds and removes what is a subject's. `jobs`: the digits of its jobs' ids, as far as they are known yet."""

    def __init__(self, platform: Platform, clickhouse: ClickHouse, wanted: ErasureAsked, erasure_id: str) -> None:
        self._platform, self._clickhouse, self._wanted, self._id = platform, clickhouse, wanted, erasure_id
        self.jobs: set[str] = set()

    def steps(self) -> Mapping[str, Callable[[], Awaitable[dict[str, int]]]]:
        """In this order. `jobs` is repeated in every life, and what came meanwhile is looked for again before the bills."""
        return {
            "redis": self._redis,
            "files": self._files,
            "objects": self._objects,
            "audit": self._audit,
            "feedback": self._feedback,
            "bills": self._bills,
        }

    async def _know_jobs(self) -> None:
        """From the bills, and from tickets of jobs that are not billed yet."""
        after = ""
        sql = f"SELECT job_id FROM sluice.usage_log WHERE job_id > {{after:String}} AND {self._wanted.condition()}"
        while rows := await self._clickhouse.query(f"{sql} ORDER BY job_id LIMIT {_AT_ONCE}", {"after": after}):
            self.jobs |= {_digits(str(row["job_id"])) for row in rows}
            after = str(rows[-1]["job_id"])

    async def _redis(self) -> dict[str, int]:
        redis, gone, running = self._platform.redis, Counter[str](), 0
        await self._know_jobs()
        async for one in held(redis, "ticket:"):
            if not self._covers(Ticket, one.text):
                continue
            # The end of a job that nobody asks for later is noted in the bills alone.
            if not one.ended and _digits(one.key) not in self.jobs:
                running += 1
                continue
            self.jobs.add(_digits(one.key))
            await self._forget_file(one.reference)
            gone["tickets"] += await forget(redis, [one.key])
        async for one in held(redis, "response:"):
            if _digits(one.key) in self.jobs:
                await self._forget_file(one.reference)
                gone["responses"] += await forget(redis, [one.key])
        for prefix, name in (("answer:", "answers"), ("cache:", "cache")):
            async for one in held(redis, prefix):
                if _digits(one.key) in self.jobs or self._covers(Kept, one.text):
                    gone[name] += await forget(redis, [one.key])
        return dict(gone) | ({"running_jobs": running} if running else {})

    def _covers(self, kind: type[Ticket] | type[Kept], text: bytes) -> bool:
        try:
            found = kind.model_validate_json(text)
        except ValidationError:
            return False
        return self._wanted.covers(found.caller if isinstance(found, Ticket) else found.completion.caller)

    async def _forget_file(self, reference: str) -> None:
        if reference:
            await self._platform.files.remove(reference)

    async def _files(self) -> dict[str, int]:
        """Bodies that lie beside their records: those that name one of the jobs."""
        await self._know_jobs()
        folder = self._platform.settings.files_dir
        names = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
        gone = 0
        for name in names:
            try:
                body = await self._platform.files.get(name)
            except FileNotFoundError:
                continue
            if self._names_a_job(body):
                await self._platform.files.remove(name)
                gone += 1
        return {"files": gone}

    def _names_a_job(self, body: bytes) -> bool:
        return any(digits.decode() in self.jobs for digits in _DIGITS.findall(body))

    async def _objects(self) -> dict[str, int]:
        """Files that the subject uploaded, and those that batches made of its jobs, with what these were made from."""
        await self._know_jobs()
        store = ObjectStore(self._platform.settings.objects_url)
        try:
            teams = await store.folders("files")
            gone = [await self._objects_of(store, team) for team in teams]
        finally:
            store.close()
        return {"objects": sum(gone)}

    async def _objects_of(self, store: ObjectStore, team: str) -> int:
        doomed: set[str] = set()
        for name in await store.names(f"files/{team}"):
            if name.endswith(".json") and await self._is_ours(store, name):
                doomed.add(name.removesuffix(".json").rpartition("/")[2])
        for name in await store.names(f"batches/{team}"):
            batch = Batch.model_validate_json(await store.get(name))
            made = {batch.output_file_id, batch.error_file_id} & doomed
            doomed |= {batch.input_file_id} if made else set()
        for file_id in doomed:
            await store.delete(f"files/{team}/{file_id}.json")
            await store.delete(f"files/{team}/{file_id}")
        return len(doomed)

    async def _is_ours(self, store: ObjectStore, name: str) -> bool:
        """Read only where the subject can't be told from what is known of the file."""
        try:
            known = json.loads(await store.get(name))
            if known.get("purpose") != _OUTPUT:
                return "uploaded_by" in known and self._wanted.covers(Caller.model_validate(known["uploaded_by"]))
            rest = b""
            async for chunk in store.chunks(name.removesuffix(".json")):
                if self._names_a_job(rest + chunk):
                    return True
                rest = (rest + chunk)[-_LONGEST_ID:]
        except FileNotFoundError:
            return False
        return False

    async def _audit(self) -> dict[str, int]:
        condition, before = self._wanted.condition(), await self._count("audit_log")
        await self._clickhouse.command(
            "INSERT INTO sluice.audit_erased (job_id, erasure) SELECT job_id, "
            f"{quoted(self._id)} FROM sluice.audit_log WHERE {condition}"
        )
        await self._change("audit_log", f"DELETE WHERE {condition}")
        return {"audit": before}

    async def _feedback(self) -> dict[str, int]:
        whose = quoted(self._wanted.key or self._wanted.user or "")
        jobs = f"job_id IN (SELECT job_id FROM sluice.usage_log WHERE {self._wanted.condition()})"
        await self._change("feedback_log", f"DELETE WHERE author = {whose} OR key_id = {whose} OR {jobs}")
        return {}

    async def _bills(self) -> dict[str, int]:
        """Sums stay; a person's name in them becomes a pseudonym. A key is nobody's name. What came meanwhile goes too."""
        came = await self._audit()
        if self._wanted.key:
            return came
        changed = await self._count("usage_log")
        pseudonym = f"erased_{self._id.removeprefix('erasure_')[-12:]}"
        for table, columns in (await self._named_tables()).items():
            whose = quoted(self._wanted.user or "")
            sets = ", ".join(f"{name} = if({name} = {whose}, {quoted(pseudonym)}, {name})" for name in columns)
            await self._change(table, f"UPDATE {sets} WHERE {' OR '.join(f'{name} = {whose}' for name in columns)}")
        return came | {"bills_pseudonymised": changed}

    async def _named_tables(self) -> dict[str, list[str]]:
        """Tables that name users, the log of jobs first, for others are summed up from it."""
        rows = await self._clickhouse.query(_NAMED)
        return {str(row["table"]): cast("list[str]", row["names"]) for row in rows}

    async def _count(self, table: str) -> int:
        (row,) = await self._clickhouse.query(f"SELECT count() AS n FROM sluice.{table} FINAL WHERE {self._wanted.condition()}")
        return cast("int", row["n"])

    async def _change(self, table: str, what: str) -> None:
        await self._clickhouse.command(f"ALTER TABLE sluice.{table} {what} SETTINGS mutations_sync = 2")


def _digits(name: str) -> str:
    return name.rpartition("_")[2]
