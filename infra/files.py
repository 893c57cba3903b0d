"""The file store of the claim check: bodies too large for a topic. A folder that all services share."""

import asyncio
import secrets
import time
from pathlib import Path

_KEEP_S = 4 * 86_400


class FileStore:
    """Puts bytes, gives a reference, gets them back. Files are older than any job's retention when they are swept."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def put(self, data: bytes) -> str:
        """Keeps `data` durably and gives its reference."""
        reference = secrets.token_hex(16)
        await asyncio.to_thread(self._write, reference, data)
        return reference

    async def get(self, reference: str) -> bytes:
        """Raises FileNotFoundError if nothing lies there (any longer), or the reference is none of ours."""
        if len(reference) != 32 or not all(c in "0123456789abcdef" for c in reference):
            raise FileNotFoundError(f"not a reference: {reference[:40]!r}")
        return await asyncio.to_thread((self._folder / reference).read_bytes)

    async def remove(self, reference: str) -> None:
        """Removes what `put` has kept; nothing happens if it is gone."""
        await asyncio.to_thread((self._folder / Path(reference).name).unlink, missing_ok=True)

    async def sweep(self) -> int:
        """Removes what no topic can refer to any more; gives how many files went."""
        return await asyncio.to_thread(self._sweep)

    def _write(self, reference: str, data: bytes) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        partial = self._folder / f"{reference}.part"
        partial.write_bytes(data)
        partial.rename(self._folder / reference)

    def _sweep(self) -> int:
        if not self._folder.is_dir():
            return 0
        oldest = time.time() - _KEEP_S
        old = [path for path in self._folder.iterdir() if path.stat().st_mtime < oldest]
        for path in old:
            path.unlink(missing_ok=True)
        return len(old)
