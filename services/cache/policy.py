"""What the cache decides: under which key an answer lies, and whether it is fresh enough. Pure."""

import hashlib
import json

from schemas.job import CacheRequest, Job
from schemas.kept import Kept

_NOT_IN_KEY = frozenset({"stream", "stream_options", "user", "metadata", "store"})
"""Members of a body that change nothing in the answer's content."""


def cache_key(job: Job) -> str:
    """The key of a job's answer: tenant, policy, model and everything in the body that may change the answer.

    Streams lie under keys of their own, since what is kept of them are their events.
    """
    asked = {name: value for name, value in job.body.items() if name not in _NOT_IN_KEY}
    parts = (
        job.caller.organization,
        job.policy.cache.namespace or f"team:{job.caller.team}",
        job.policy.version,
        job.api.value,
        job.model,
        f"stream:{job.include_usage}" if job.stream else "plain",
        json.dumps(asked, sort_keys=True, separators=(",", ":"), ensure_ascii=False),
    )
    return hashlib.sha256("\x1f".join(parts).encode("utf-8", "surrogatepass")).hexdigest()


def age_s(kept: Kept, now_ms: int) -> int:
    """How old an answer is, in whole seconds."""
    return max(0, now_ms - kept.completion.ended_ms) // 1000


def serves(kept: Kept, asked: CacheRequest, stream: bool, now_ms: int) -> bool:
    """True if the kept answer may be given: of the right form, and not older than the caller takes."""
    fits = bool(kept.stream) if stream else kept.answer is not None
    return fits and (asked.max_age_s is None or age_s(kept, now_ms) <= asked.max_age_s)
