"""Files of teams in the object store: content under `files/<team>/<id>`, what is known of it beside it in `<id>.json`.

A file exists when its `.json` does. What ends has a mark under `expiring/<unix second>/…`, so that sweeping reads nothing else.
"""

import asyncio
import re
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path

from pydantic import ValidationError

from infra.clock import Clock
from infra.objects import ObjectStore
from schemas.job import Caller
from schemas.openai.batches import Batch
from schemas.openai.files import OpenAIFile, Purpose

DEFAULT_LIFE_S = 30 * 86_400
"""OpenAI's own for files of batches."""

_ID = re.compile(r"(file|batch)_[0-9a-f]{32}")
_AT_ONCE = 32
_MARKS = "expiring"


class _Known(OpenAIFile):
    """What lies beside a file. `uploaded_by`: for who erases what is somebody's."""

    uploaded_by: Caller | None = None


class Files:
    """What teams uploaded, and what batches made. Who is of another team finds nothing.

    All methods raise ObjectsUnavailable.
    """

    def __init__(self, store: ObjectStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    async def upload(
        self, team: str, file_id: str, filename: str, chunks: AsyncIterator[bytes], life_s: int | None, by: Caller | None = None
    ) -> OpenAIFile:
        """Keeps an input file, and who uploaded it. Raises what `chunks` raises; then nothing is kept."""
        size = await self._store.put_chunks(_content(team, file_id), chunks)
        return await self._enter(team, file_id, filename, "batch", size, life_s or DEFAULT_LIFE_S, by)

    async def keep(self, team: str, file_id: str, filename: str, path: Path, life_s: int | None) -> OpenAIFile:
        """Keeps a file that a batch has made. Kept again under its id, it replaces the earlier one."""
        size = await self._store.upload(_content(team, file_id), path)
        return await self._enter(team, file_id, filename, "batch_output", size, life_s or DEFAULT_LIFE_S)

    async def find(self, team: str, file_id: str) -> OpenAIFile | None:
        """The file, unless there is none of this team, or it has expired."""
        if not _ID.fullmatch(file_id):
            return None
        try:
            file = OpenAIFile.model_validate_json(await self._store.get(_known(team, file_id)))
        except (FileNotFoundError, ValidationError):
            return None
        return None if file.expires_at is not None and file.expires_at <= self._now_s() else file

    def content(self, team: str, file_id: str) -> AsyncGenerator[bytes]:
        """The bytes of a file that was found. Raises FileNotFoundError if it is gone meanwhile."""
        return self._store.chunks(_content(team, file_id))

    async def copy(self, team: str, file_id: str, path: Path) -> None:
        """Copies a file's bytes to a local path. Raises FileNotFoundError."""
        if await self.find(team, file_id) is None:
            raise FileNotFoundError(file_id)
        await self._store.download(_content(team, file_id), path)

    async def delete(self, team: str, file_id: str) -> None:
        """Removes a file; what is known of it goes first, so that no file is ever without its bytes."""
        await self._remove(f"files/{team}/{file_id}")

    async def page(
        self, team: str, after: str, limit: int, purpose: str | None, *, oldest_first: bool
    ) -> tuple[list[OpenAIFile], bool]:
        """Files of a team in the order of their birth, from behind `after` on, and whether there are more."""
        names = await self._store.names(f"files/{team}")
        ids = sorted({Path(name).stem for name in names if name.endswith(".json")}, reverse=not oldest_first)
        if after:
            ids = [file_id for file_id in ids if (file_id > after if oldest_first else file_id < after)]
        found: list[OpenAIFile] = []
        for start in range(0, len(ids), _AT_ONCE):
            files = await asyncio.gather(*(self.find(team, file_id) for file_id in ids[start : start + _AT_ONCE]))
            found += [file for file in files if file is not None and purpose in (None, file.purpose)]
            if len(found) > limit:
                break
        return found[:limit], len(found) > limit

    async def sweep(self) -> int:
        """Removes what has expired; gives how many files went."""
        swept = 0
        for mark in await self._store.names(_MARKS):
            _, expires_s, name = mark.split("/", 2)
            if int(expires_s) <= self._now_s():
                await self._remove(name)
                await self._store.delete(mark)
                swept += 1
        return swept

    async def remember(self, team: str, batch: Batch) -> None:
        """Keeps how a batch ended: from then on it is over, whatever becomes of Redis."""
        name = f"batches/{team}/{batch.id}"
        await self._mark(name, self._now_s() + DEFAULT_LIFE_S)
        await self._store.put(f"{name}.json", batch.model_dump_json().encode())

    async def remembered(self, team: str, batch_id: str) -> Batch | None:
        """How a batch of this team ended, or None if it didn't (or long ago)."""
        if not _ID.fullmatch(batch_id):
            return None
        try:
            return Batch.model_validate_json(await self._store.get(f"batches/{team}/{batch_id}.json"))
        except (FileNotFoundError, ValidationError):
            return None

    async def _enter(
        self, team: str, file_id: str, filename: str, purpose: Purpose, size: int, life_s: int, by: Caller | None = None
    ) -> OpenAIFile:
        now_s = self._now_s()
        file = OpenAIFile(id=file_id, bytes=size, created_at=now_s, expires_at=now_s + life_s, filename=filename, purpose=purpose)
        await self._mark(f"files/{team}/{file_id}", now_s + life_s)
        known = _Known(**file.model_dump(), uploaded_by=by).model_dump_json(exclude_none=True)
        await self._store.put(_known(team, file_id), known.encode())
        return file

    async def _mark(self, name: str, expires_s: int) -> None:
        await self._store.put(f"{_MARKS}/{expires_s:012d}/{name}", b"")

    async def _remove(self, name: str) -> None:
        await self._store.delete(f"{name}.json")
        await self._store.delete(name)

    def _now_s(self) -> int:
        return self._clock() // 1000


def _content(team: str, file_id: str) -> str:
    return f"files/{team}/{file_id}"


def _known(team: str, file_id: str) -> str:
    return f"files/{team}/{file_id}.json"
