"""What becomes of a delivery after a try, and when the next one is. Pure."""

from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Literal

from schemas.control import Organization, Team, VirtualKey
from schemas.policy import WebhookPolicy, inherit
from schemas.webhook import WebhookDelivery

MAX_TRIES = 12

_FIRST_S, _FACTOR, _LONGEST_S = 10, 3, 5 * 3600
_GONE = 410
_REDIRECTS = range(300, 400)


@dataclass(frozen=True, slots=True)
class Over:
    """Nothing more is to be done."""

    how: Literal["delivered", "gone"]


@dataclass(frozen=True, slots=True)
class Again:
    """The delivery, as it waits for its next try."""

    delivery: WebhookDelivery


@dataclass(frozen=True, slots=True)
class PutAside:
    """No further try: an operator may look at it. `why` is a sentence for him."""

    how: Literal["refused", "given_up"]
    why: str


Next = Over | Again | PutAside


def after_answer(delivery: WebhookDelivery, status: int, retry_after: str, now_ms: int, chance: float) -> Next:
    """What follows on an endpoint's answer. `chance` is from 0 to 1."""
    if 200 <= status < 300:
        return Over("delivered")
    if status == _GONE:
        return Over("gone")
    if status in _REDIRECTS:
        return PutAside("refused", f"the endpoint answered {status}: redirects are not followed")
    return after_failure(delivery, f"the endpoint answered {status}", now_ms, chance, retry_after)


def after_failure(delivery: WebhookDelivery, why: str, now_ms: int, chance: float, retry_after: str = "") -> Next:
    """What follows on a try that went wrong."""
    tries = delivery.attempt + 1
    if tries >= MAX_TRIES:
        return PutAside("given_up", f"not delivered in {tries} tries; at last: {why}")
    wait_ms = max(round(chance * longest_wait_s(tries) * 1000), _asked_for_ms(retry_after, now_ms))
    return Again(delivery.model_copy(update={"attempt": tries, "not_before_ms": now_ms + wait_ms}))


def longest_wait_s(tries: int) -> int:
    """The most seconds between this many tries and the next: 10 s, 30 s, 90 s … 5 h; all together within 24 hours.

    The wait itself is anything up to that (full jitter), so that those who failed together don't come back together.
    """
    return min(_LONGEST_S, _FIRST_S * _FACTOR ** (tries - 1))


def webhooks_of(organization: Organization, team: Team, key: VirtualKey | None) -> WebhookPolicy:
    """Where events of a team's key may go, as the policies stand now."""
    levels = [organization.policy, team.policy, *([key.policy] if key and key.team == team.name else [])]
    return inherit(levels, "").webhooks


def _asked_for_ms(retry_after: str, now_ms: int) -> int:
    """`retry-after` in seconds or as a date (RFC 9110); at most the longest wait of ours, 0 for what is neither."""
    is_number = retry_after.isascii() and retry_after.isdigit()
    wait_ms = int(retry_after[:9]) * 1000 if is_number else _unix_ms(retry_after) - now_ms
    return min(max(0, wait_ms), _LONGEST_S * 1000)


def _unix_ms(date: str) -> int:
    try:
        moment = parsedate_to_datetime(date)
        return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)
    except (ValueError, OverflowError):
        return 0
