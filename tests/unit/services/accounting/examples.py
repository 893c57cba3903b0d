"""A job that was accepted, called a provider once and was answered."""

from decimal import Decimal

from schemas.attempt import Attempt
from schemas.completion import Completion
from schemas.ids import attempt_id, uuid7_hex
from schemas.job import Api, Caller, GuardFinding, JobStatus, Labels, Step, Verdict
from schemas.topics import Lane
from schemas.usage import Usage

ACCEPTED_MS = 1_790_000_000_123
JOB_ID = f"job_{uuid7_hex(ACCEPTED_MS, 7)}"


def attempt(n: int = 1, **told: object) -> Attempt:
    """The n-th call. `told` replaces members."""
    call = Attempt(
        id=attempt_id(JOB_ID, n),
        n=n,
        deployment="fast-eu",
        provider="openai",
        provider_model="gpt-5",
        started_ms=ACCEPTED_MS + 40,
        latency_ms=500.5,
        ttft_ms=90.5,
        status="completed",
        http_status=200,
        usage=Usage(input_tokens=100, cache_read_tokens=20, output_tokens=50, reasoning_tokens=5, source="provider"),
        cost_usd=Decimal("0.000789500"),
        price_version="genai-prices:0.2.3",
        service_tier="default",
        raw_usage='{"prompt_tokens":100}',
    )
    return call.model_copy(update=told)


def completion(**told: object) -> Completion:
    """`told` replaces members."""
    fact = Completion(
        job_id=JOB_ID,
        status=JobStatus.COMPLETED,
        api=Api.CHAT,
        lane=Lane.BATCH,
        model="fast",
        caller=Caller(organization="acme", team="fraud", project="p", environment="prod", key_id="key_1", user="u"),
        labels=Labels(feature="chat", segment="s", metadata={"a": "b"}),
        policy_version="7",
        accepted_ms=ACCEPTED_MS,
        ended_ms=ACCEPTED_MS + 600,
        ended_by="router",
        attempts=(attempt(),),
        cache="miss",
        verdict=Verdict(verdict="flag", findings=(GuardFinding(kind="email", action="flag", count=2),)),
        custom_id="line-1",
        queue_ms=40,
        trace_id="4bf92f3577b34da6a3ce929d0e0e4736",
        steps=(Step(stage="guard", at_ms=ACCEPTED_MS + 2), Step(stage="router", at_ms=ACCEPTED_MS + 9)),
    )
    return fact.model_copy(update=told)
