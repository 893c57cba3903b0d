"""Admission's seal on a job: whoever can write to the router's topic can't make a job of his own (HOUSE.md 3d)."""

import hmac

from schemas.job import Job


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
        digest = hmac.digest(self._key, "\x1f".join(parts).encode(), "sha256")
        return int.from_bytes(digest[:10]) >> 6

    def secret(self, *parts: str) -> bytes:
        """32 bytes for one purpose, which tell nothing of the key, of what it signs, or of each other."""
        subkey = hmac.digest(self._key, b"sluice secrets by purpose", "sha256")
        return hmac.digest(subkey, "\x1f".join(parts).encode(), "sha256")

    def _digest(self, job: Job) -> str:
        return hmac.digest(self._key, job.signed_part(), "sha256").hex()
