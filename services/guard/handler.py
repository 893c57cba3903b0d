"""The way of one job through the guard: every text in its body is looked at, rewritten or refused as the policy says."""

import asyncio
from collections import Counter
from collections.abc import Mapping
from functools import lru_cache

from infra.clock import Clock
from infra.kafka.carriage import Delivery, Finish, Forward, Outcome
from infra.telemetry import metrics, spans
from schemas.base import JsonObject
from schemas.completion import completion_of
from schemas.errors import ContentBlocked
from schemas.job import Job, JobStatus
from schemas.policy import FindingKind, GuardAction
from schemas.reply import Failed, Served
from schemas.slip import Stage
from services.guard import policy
from services.guard.detectors import Scanner, redact

_LOOK_IN_THREAD_BYTES = 64 * 1024


class Guard:
    """Looks at jobs."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    async def handle(self, job: Job, delivery: Delivery) -> Outcome:
        """Sends the job on, its findings redacted, or ends it if something in it is to be blocked."""
        actions = job.policy.guard.actions
        if policy.weight(job.body) > _LOOK_IN_THREAD_BYTES:
            found, body = await asyncio.to_thread(look, job.body, actions)
        else:
            found, body = look(job.body, actions)
        decided = policy.verdict(found, actions)
        metrics.GUARD_VERDICTS.labels(decided.verdict).inc()
        if decided.verdict != GuardAction.BLOCK:
            return Forward(job.past(Stage.GUARD).model_copy(update={"body": body, "verdict": decided}))
        fault = ContentBlocked(policy.refusal(decided), code="content_filter").fault()
        trace_id = spans.trace_id(delivery.traceparent)
        completion = completion_of(
            job, JobStatus.FAILED, Stage.GUARD.value, self._clock(), fault=fault, verdict=decided, trace_id=trace_id
        )
        return Finish(completion, Failed(fault=fault, served=Served(model=job.model, verdict=decided)))


def look(body: JsonObject, actions: Mapping[FindingKind, GuardAction]) -> tuple[Counter[str], JsonObject]:
    """How often each kind is in the body, and the body with what is to be redacted replaced."""
    scanner = scanner_for(frozenset(actions))
    hidden = {kind for kind, action in actions.items() if action is GuardAction.REDACT}
    found: Counter[str] = Counter()

    def look_at(text: str) -> str:
        findings = scanner.scan(text)
        if not findings:
            return text
        found.update(finding.kind for finding in findings)
        return redact(text, [finding for finding in findings if finding.kind in hidden])

    return found, policy.rewritten(body, look_at)


@lru_cache(maxsize=256)
def scanner_for(kinds: frozenset[FindingKind]) -> Scanner:
    """One compiled set of patterns for each set of kinds that some policy names."""
    return Scanner(kinds)
