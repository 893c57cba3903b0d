"""Admission's seal on a job: whoever can write to the router's topic can't make a job of his own (HOUSE.md 3d)."""

import hashlib
import hmac
import os
from pathlib import Path

from schemas.job import Job

_KEY_BYTES = 32


class Signer:
    """Signs and checks jobs with a key that all services share (HMAC-SHA256)."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def sign(self, job: Job) -> Job:
        """The job with its signature."""
        return job.model_copy(update={"signature": self._digest(job)})

    def holds(self, job: Job) -> bool:
        """True if admission made this job and its slip is what is left of the way it was given."""
        rest = job.way[len(job.way) - len(job.slip) :] if job.slip else ()
        return rest == job.slip and hmac.compare_digest(self._digest(job).encode(), job.signature.encode())

    def derive(self, *parts: str) -> int:
        """A number of 74 bits that only holders of the key can compute: ids of records that come twice are the same."""
        digest = hmac.new(self._key, "\x1f".join(parts).encode(), hashlib.sha256).digest()
        return int.from_bytes(digest[:10]) >> 6

    def _digest(self, job: Job) -> str:
        return hmac.new(self._key, job.signed_part(), hashlib.sha256).hexdigest()


def shared_secret(path: Path, given: str = "") -> bytes:
    """The secret of this installation: what is given, else what lies at `path`, made on first use (mode 0600).

    Safe when several processes start at once: whoever links the file first wins.
    """
    if given:
        return hashlib.sha256(given.encode()).digest()
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f"{path.name}.{os.getpid()}")
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(os.urandom(_KEY_BYTES).hex().encode())
        try:
            os.link(partial, path)
        except FileExistsError:
            pass
        finally:
            partial.unlink()
    return bytes.fromhex(path.read_text().strip())
