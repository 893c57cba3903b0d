"""Open while little of the providers' quota is in use. Pure."""

from collections.abc import Callable
from dataclasses import dataclass

from schemas.gates import QuotaGate
from services.router.gates.base import LOOK_AGAIN_MS


@dataclass(frozen=True, slots=True)
class Quota:
    """`share` gives how much of the quota is in use at the least used deployment, from 0 to 1."""

    rule: QuotaGate
    share: Callable[[int], float]

    def closed_until(self, now_ms: int) -> int:
        return 0 if self.share(now_ms) < self.rule.quota_share else now_ms + LOOK_AGAIN_MS
