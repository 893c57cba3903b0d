"""Requests that are made again, by a key of the caller's or by an SDK's own retry: how the job is found that runs already. Pure.

`Idempotency-Key` is that of the IETF draft and of Stripe: kept for a day, another body under the same key is refused. OpenAI's
SDKs send no key when they try again, but the number of their try and how long they wait for an answer (openai-python 2.54,
`x-stainless-retry-count`, `x-stainless-read-timeout`): by these, and the same body of the same caller, a retry is known.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

from schemas.base import Part
from schemas.errors import IdempotencyKeyReused, InvalidRequest

MAX_KEY = 255
KEY_KEPT_MS = 24 * 3_600_000
LINGER_S = 15.0
"""How long a job goes on whose SDK gave up waiting: its next try comes after 0.5 to 8 s."""

_RETRY_MARGIN_MS = 30_000
_GIVEN_UP = 0.9


class Claim(Part):
    """What is kept of a request under its key: the job it became, and where that job's events stand."""

    job_id: str
    sha: str
    partition: int
    accepted_ms: int
    deadline_ms: int


@dataclass(frozen=True, slots=True)
class Repeatable:
    """How a request is recognised when it is made again.

    `key`: where its claim lies; `sha`: of what was asked. `attaches`: it may be such a repetition itself; otherwise it is the
    first, and takes the claim. `patience_s`: how long an SDK waits for the next byte; None: the caller gave a key of his own.
    """

    key: str
    sha: str
    attaches: bool
    patience_s: float | None

    @property
    def by_key(self) -> bool:
        return self.patience_s is None

    def kept_ms(self, rest_ms: int) -> int:
        """How long the claim is kept; `rest_ms`: until the job's deadline."""
        if self.patience_s is None:
            return max(KEY_KEPT_MS, rest_ms)
        return min(int(self.patience_s * 1000), rest_ms) + _RETRY_MARGIN_MS


def repeatable(headers: Mapping[str, str], path: str, body: bytes, team: str, key_id: str) -> Repeatable | None:
    """How this request can be made again, or None. Raises InvalidRequest for a key that can't be one."""
    key = headers.get("idempotency-key")
    if key is not None:
        if not 1 <= len(key) <= MAX_KEY:
            raise InvalidRequest(f"Idempotency-Key must have 1 to {MAX_KEY} characters", param="Idempotency-Key")
        return Repeatable(_digest("key", team, path, key), hashlib.sha256(body).hexdigest(), attaches=True, patience_s=None)
    count, patience_s = headers.get("x-stainless-retry-count", ""), _patience_s(headers)
    if not count.isdecimal() or patience_s is None:
        return None
    sha = hashlib.sha256(body).hexdigest()
    return Repeatable(_digest("retry", key_id, path, sha), sha, attaches=int(count) > 0, patience_s=patience_s)


def the_same(claim: bytes, again: Repeatable) -> Claim:
    """The claim under which a request was made before. Raises IdempotencyKeyReused if that was another one."""
    found = Claim.model_validate_json(claim)
    if found.sha != again.sha:
        raise IdempotencyKeyReused("This Idempotency-Key was used with another body. Use a new key for each request.")
    return found


def gave_up_waiting(patience_s: float | None, quiet_s: float) -> bool:
    """True if who closed the connection after such a silence is an SDK that has waited long enough, and will try again."""
    return patience_s is not None and quiet_s >= _GIVEN_UP * patience_s


def _patience_s(headers: Mapping[str, str]) -> float | None:
    """What the SDK waits for an answer: httpx's read time-out in Python, the whole of it in Node."""
    given = headers.get("x-stainless-read-timeout") or headers.get("x-stainless-timeout") or ""
    try:
        seconds = float(given)
    except ValueError:
        return None
    return seconds if 0 < seconds < 86_400 else None


def _digest(*parts: str) -> str:
    return f"claim:{hashlib.sha256(chr(31).join(parts).encode('utf-8', 'surrogatepass')).hexdigest()}"
