"""One or more messages of each type, with every member filled in somewhere.

`python -m tests.contract.examples` records those whose file is not there yet in `tests/recorded/v0.1`. What is recorded stays:
today's models must read it for ever. Messages of real runs will stand beside them.
"""

from datetime import date, time
from decimal import Decimal
from pathlib import Path

from schemas.alert import Alert
from schemas.alerting import Alerting, AlertRules, EmailChannel, Only, SlackChannel, Slo, WebhookChannel
from schemas.attempt import Attempt
from schemas.audit import AuditRecord, Heard
from schemas.base import Message
from schemas.batch import BatchError, BatchLine, BatchOrder, BatchResponse, BatchResult
from schemas.budget import Budget, Increase, Period
from schemas.cancel import Cancel
from schemas.completion import Completion
from schemas.control import (
    Analyst,
    Approval,
    Deployment,
    DeploymentState,
    EchoSettings,
    Environment,
    GroupRule,
    Hold,
    IdentityProvider,
    Membership,
    Model,
    OldSecret,
    Operator,
    Organization,
    Price,
    Project,
    Team,
    User,
    VirtualKey,
)
from schemas.errors import ProviderError, RateLimited
from schemas.event import AdminEvent
from schemas.feedback import Feedback
from schemas.job import Api, CacheRequest, Caller, Estimate, GuardFinding, Job, JobStatus, Labels, ReplyTo, Step, Verdict
from schemas.kept import Kept
from schemas.policy import (
    CachePolicy,
    Ceiling,
    DataPolicy,
    EffectivePolicy,
    GuardAction,
    GuardPolicy,
    Limits,
    ModelGrant,
    Policy,
    RoutePolicy,
    RunawayPolicy,
    WebhookPolicy,
)
from schemas.prices import CallPrices, Capacity, Hours, PriceEntry, TokenPrices
from schemas.reply import Answer, Closed, Delta, Failed, Opened, Reply, Served
from schemas.roles import Role
from schemas.slip import Stage
from schemas.ticket import Ended, Ticket
from schemas.topics import Lane
from schemas.usage import Usage
from schemas.webhook import WebhookDelivery

RECORDED = Path(__file__).parents[1] / "recorded"
RELEASE = "v0.1"

_JOB_ID = "job_019b76daa8007000800000000000002a"
_ACCEPTED_MS = 1_767_225_600_000
_CALLER = Caller(organization="acme", team="fraud", project="scores", environment="prod", key_id="key_1", user="ada")
_LABELS = Labels(feature="triage", segment="eu", metadata={"ticket": "4711"})
_VERDICT = Verdict(verdict="redact", findings=(GuardFinding(kind="card", action="redact", count=2),))
_POLICY = EffectivePolicy(
    version="3.1.4",
    guard=GuardPolicy(actions={"card": GuardAction.REDACT, "email": GuardAction.FLAG}),
    cache=CachePolicy(enabled=True, ttl_s=600, namespace="shared"),
    models=("small", "large"),
    timeout_s=30,
)
_USAGE = Usage(
    input_tokens=1200, cache_read_tokens=1024, cache_write_tokens=0, output_tokens=300, reasoning_tokens=128, source="provider"
)
_ATTEMPT = Attempt(
    id=f"att_{_JOB_ID.removeprefix('job_')}_1",
    n=1,
    deployment="small-eu",
    provider="openai",
    provider_model="gpt-small-2026",
    started_ms=_ACCEPTED_MS + 12,
    latency_ms=812.5,
    ttft_ms=90.25,
    status="completed",
    http_status=200,
    usage=_USAGE,
    cost_usd=Decimal("0.001234567"),
    price_version="genai-prices 0.0.40",
    service_tier="default",
    raw_usage='{"prompt_tokens": 1200}',
)
_COMPLETION = Completion(
    job_id=_JOB_ID,
    status=JobStatus.COMPLETED,
    api=Api.CHAT,
    lane=Lane.INTERACTIVE,
    model="small",
    caller=_CALLER,
    labels=_LABELS,
    policy_version="3.1.4",
    accepted_ms=_ACCEPTED_MS,
    ended_ms=_ACCEPTED_MS + 900,
    ended_by="router",
    attempts=(_ATTEMPT,),
    cache="miss",
    cache_key="5e0f",
    cache_ttl_s=600,
    saved_usd=Decimal("0.5"),
    verdict=_VERDICT,
    custom_id="line 7",
    queue_ms=12,
    trace_id="0af7651916cd43dd8448eb211c80319c",
    steps=(Step(stage="guard", at_ms=_ACCEPTED_MS + 2), Step(stage="router", at_ms=_ACCEPTED_MS + 9)),
)
_SERVED = Served(
    model="small", deployment="small-eu", cache="miss", verdict=_VERDICT, cost_usd=Decimal("0.001"), provider_ms=812.5, age_s=7
)
_WRITTEN_POLICY = Policy(
    guard=GuardPolicy(actions={"iban": GuardAction.BLOCK, "phone": GuardAction.ALLOW}),
    cache=CachePolicy(enabled=False),
    models=("small",),
    limits=Limits(requests_per_minute=60),
    timeout_s=12.5,
    keep_results_s=3600,
    attach_retries=False,
    webhooks=WebhookPolicy(only=("hooks.acme.example",), internal=("hooks.internal:8443",)),
)
_WHOLE_POLICY = Policy(
    models=("small", "large"),
    granted_models=(ModelGrant(model="huge", until_ms=_ACCEPTED_MS + 86_400_000, approval="apr_1"),),
    lanes=(Lane.BATCH,),
    limits=Limits(requests_per_minute=60, requests_per_day=1000, tokens_per_minute=10_000, tokens_per_day=100_000, concurrency=8),
    budgets=(
        Budget(
            usd=Decimal("50.00"),
            tokens=1_000_000,
            period=Period.WEEK,
            hard=False,
            alerts=(0.5, 0.8),
            increases=(Increase(usd=Decimal(5), tokens=10, until_ms=_ACCEPTED_MS + 3_600_000, approval="apr_2"),),
        ),
    ),
    route=RoutePolicy(providers=("openai",), max_attempts=2),
    data=DataPolicy(regions=("eu-central-1",), hipaa=True, log=False),
    metadata_required=("feature",),
    max_output_tokens=2048,
    unpriced=Ceiling(input_usd=Decimal("0.00001"), output_usd=Decimal("0.00003")),
    when_redis_is_away="open",
    concurrency_wait_s=1.5,
    runaway=RunawayPolicy(action="pause", same_prompt=20, z_score=6, least_requests=10, least_usd=Decimal("0.5")),
    identity="required",
    weight=3,
)
_DEPLOYMENT = Deployment(
    id="small-eu",
    provider="openai",
    model="gpt-small-2026",
    api_base="http://127.0.0.1:9999/v1",
    api_key="os.environ/OPENAI_API_KEY",
    weight=2,
    timeout_s=20,
    price=Price(input_usd=Decimal("0.00000015"), output_usd=Decimal("0.0000006"), cache_read_usd=Decimal("0.000000075")),
)
_ECHO = Deployment(
    id="echo", provider="echo", model="echo", echo=EchoSettings(latency_ms=20, token_ms=1, tokens=16, failure_rate=0.1)
)

EXAMPLES: dict[str, Message] = {
    "chat": Job(
        id=_JOB_ID,
        api=Api.CHAT,
        lane=Lane.INTERACTIVE,
        model="small",
        body={"model": "small", "messages": [{"role": "user", "content": "Grüße, 世界"}], "x_unknown": {"a": [1, None, 0.5]}},
        stream=True,
        include_usage=True,
        caller=_CALLER,
        labels=_LABELS,
        policy=_POLICY,
        slip=(Stage.CACHE, Stage.ROUTER),
        way=(Stage.GUARD, Stage.CACHE, Stage.ROUTER),
        accepted_ms=_ACCEPTED_MS,
        deadline_ms=_ACCEPTED_MS + 120_000,
        reply_to=ReplyTo(kind="inbox", partition=17),
        cache=CacheRequest(read=True, write=False, max_age_s=60, ttl_s=90, key="5e0f", status="miss"),
        verdict=_VERDICT,
        signature="c0ffee",
    ),
    "embeddings of a batch line": Job(
        id=_JOB_ID,
        api=Api.EMBEDDINGS,
        lane=Lane.BATCH,
        model="vectors",
        body={"model": "vectors", "input": ["a", "b"]},
        caller=Caller(organization="acme", team="search", key_id="key_2"),
        policy=EffectivePolicy(version="1"),
        slip=(Stage.ROUTER,),
        way=(Stage.ROUTER,),
        accepted_ms=_ACCEPTED_MS,
        deadline_ms=_ACCEPTED_MS + 86_400_000,
        reply_to=ReplyTo(kind="results"),
        custom_id="line 7",
    ),
    "asynchronous, put off": Job(
        id=_JOB_ID,
        api=Api.CHAT,
        lane=Lane.BATCH,
        model="small",
        body={"model": "small", "messages": [{"role": "user", "content": "later"}]},
        caller=_CALLER,
        policy=_POLICY,
        slip=(Stage.ROUTER,),
        way=(Stage.GUARD, Stage.ROUTER),
        accepted_ms=_ACCEPTED_MS,
        deadline_ms=_ACCEPTED_MS + 86_400_000,
        reply_to=ReplyTo(kind="batch", partition=3, batch_id="batch_1"),
        custom_id="line 7",
        steps=(Step(stage="guard", at_ms=_ACCEPTED_MS + 2),),
        detached=True,
        keep_s=3600,
        not_before_ms=_ACCEPTED_MS + 60_000,
        webhook="https://hooks.acme.example/sluice",
        known_as="response",
        made=(_ATTEMPT,),
    ),
    "opened": Reply(job_id=_JOB_ID, attempt=1, seq=0, event=Opened(served=_SERVED)),
    "delta": Reply(job_id=_JOB_ID, attempt=1, seq=1, event=Delta(data=('{"choices":[]}', '{"choices":[{"index":0}]}'))),
    "closed": Reply(job_id=_JOB_ID, attempt=1, seq=2, event=Closed()),
    "answer": Reply(job_id=_JOB_ID, event=Answer(status=200, body='{"id": "x"}', served=_SERVED)),
    "failed": Reply(
        job_id=_JOB_ID,
        attempt=2,
        event=Failed(fault=RateLimited("Slow down.", param="model", retry_after_s=3).fault(), served=_SERVED),
    ),
    "completed": _COMPLETION,
    "failed by the provider": _COMPLETION.model_copy(
        update={
            "status": JobStatus.FAILED,
            "fault": ProviderError("The provider answered 500.").fault(),
            "attempts": (_ATTEMPT.model_copy(update={"status": "failed", "http_status": 500, "error": "server_error"}),),
        }
    ),
    "cancel": Cancel(job_id=_JOB_ID, reason="the caller went away"),
    "line": BatchLine(custom_id="line 7", method="POST", url="/v1/chat/completions", body={"model": "small", "messages": []}),
    "response": BatchResult(
        id="batch_req_1", custom_id="line 7", response=BatchResponse(status_code=200, request_id=_JOB_ID, body={"id": "x"})
    ),
    "error": BatchResult(
        id="batch_req_2", custom_id="line 8", error=BatchError(code="batch_expired", message="The deadline passed.")
    ),
    "batch": BatchOrder(
        id="batch_1",
        caller=_CALLER,
        input_file_id="file_1",
        endpoint="/v1/chat/completions",
        api=Api.CHAT,
        metadata={"night": "monday"},
        labels=_LABELS,
        created_ms=_ACCEPTED_MS,
        deadline_ms=_ACCEPTED_MS + 86_400_000,
        output_expires_after_s=7200,
        webhook="https://hooks.acme.example/sluice",
    ),
    "ticket": Ticket(
        job_id=_JOB_ID,
        api=Api.CHAT,
        lane=Lane.BATCH,
        model="small",
        caller=_CALLER,
        labels=_LABELS,
        known_as="response",
        stream=True,
        detached=True,
        partition=17,
        accepted_ms=_ACCEPTED_MS,
        deadline_ms=_ACCEPTED_MS + 86_400_000,
        not_before_ms=_ACCEPTED_MS + 60_000,
    ),
    "ticket of a message": Ticket(
        job_id=_JOB_ID,
        api=Api.CHAT,
        lane=Lane.INTERACTIVE,
        model="small",
        caller=_CALLER,
        partition=17,
        accepted_ms=_ACCEPTED_MS,
        deadline_ms=_ACCEPTED_MS + 60_000,
        endpoint="/v1/messages",
    ),
    "end of a stream": Ended(
        status=JobStatus.COMPLETED,
        ended_ms=_ACCEPTED_MS + 900,
        last=Closed(),
        stream=('{"choices":[]}',),
        usage=_USAGE,
        cost_usd=Decimal("0.001234567"),
        attempts=1,
    ),
    "webhook": WebhookDelivery(
        id="evt_1",
        url="https://hooks.acme.example/sluice",
        team="fraud",
        key_id="key_1",
        payload={"id": "evt_1", "object": "event", "type": "job.completed", "data": {"id": _JOB_ID}},
        created_ms=_ACCEPTED_MS,
        attempt=2,
        not_before_ms=_ACCEPTED_MS + 60_000,
    ),
    "kept answer": Kept(completion=_COMPLETION, answer=Answer(body='{"id": "x"}', served=_SERVED)),
    "kept failure": Kept(completion=_COMPLETION, failed=Failed(fault=ProviderError("no").fault(), served=_SERVED)),
    "kept stream": Kept(completion=_COMPLETION, stream=('{"choices":[]}',), seq=2),
    "kept audited stream": Kept(completion=_COMPLETION, seq=2, heard=Heard(text="Grüße", first='{"choices":[]}')),
    "audit": AuditRecord(
        job_id=_JOB_ID,
        content="redacted",
        salt="5a17",
        expires_ms=_ACCEPTED_MS + 90 * 86_400_000,
        caller=_CALLER,
        api=Api.CHAT,
        model="small",
        deployment="small-eu",
        provider="openai",
        provider_model="gpt-small-2026",
        model_version="gpt-small-2026-01 fp_1",
        status=JobStatus.COMPLETED,
        error="none",
        cache="miss",
        verdict=_VERDICT,
        policy_version="3.1.4",
        price_version="genai-prices 0.0.40",
        accepted_ms=_ACCEPTED_MS,
        ended_ms=_ACCEPTED_MS + 900,
        ended_by="router",
        trace_id="0af7651916cd43dd8448eb211c80319c",
        prompt='{"messages": []}',
        context="[]",
        completion='{"choices": []}',
        kinds=("card",),
    ),
    "organization": Organization(id="org_1", name="acme", version=2, policy=_WRITTEN_POLICY),
    "team": Team(
        id="team_1",
        name="fraud",
        organization="acme",
        version=5,
        policy=_WRITTEN_POLICY,
        created_ms=_ACCEPTED_MS,
        webhook_secret_version=3,
    ),
    "key": VirtualKey(
        id="key_1",
        sha256="a" * 64,
        last4="9f3c",
        team="fraud",
        project="scores",
        environment="prod",
        user="ada",
        version=1,
        policy=_WRITTEN_POLICY,
        revoked=True,
        created_ms=_ACCEPTED_MS,
    ),
    "key that runs away": VirtualKey(
        id="key_2",
        sha256="b" * 64,
        last4="77aa",
        team="fraud",
        name="nightly",
        version=9,
        policy=_WHOLE_POLICY,
        created_ms=_ACCEPTED_MS,
        expires_ms=_ACCEPTED_MS + 86_400_000,
        rotated_ms=_ACCEPTED_MS + 60_000,
        old=(OldSecret(sha256="c" * 64, until_ms=_ACCEPTED_MS + 120_000),),
        ip_ranges=("10.0.0.0/8", "2001:db8::/32"),
        held=Hold(reason="412 equal requests within a minute", since_ms=_ACCEPTED_MS, requests_per_minute=6),
    ),
    "project": Project(id="proj_1", team="fraud", name="scores", version=2, policy=_WHOLE_POLICY, created_ms=_ACCEPTED_MS),
    "environment": Environment(
        id="env_1", team="fraud", project="scores", name="prod", version=2, policy=_WHOLE_POLICY, created_ms=_ACCEPTED_MS
    ),
    "user": User(
        id="user_1",
        name="ada@acme.example",
        version=3,
        policy=_WHOLE_POLICY,
        memberships=(Membership(role=Role.TEAM_ADMIN, team="fraud"), Membership(role=Role.AUDITOR)),
        created_ms=_ACCEPTED_MS,
    ),
    "operator": Operator(
        id="op_1",
        name="night watch",
        role=Role.MEMBER,
        team="fraud",
        sha256="d" * 64,
        last4="00ff",
        version=2,
        revoked=True,
        created_ms=_ACCEPTED_MS,
        expires_ms=_ACCEPTED_MS + 86_400_000,
    ),
    "analyst": Analyst(
        name="finance",
        organization="acme",
        teams=("fraud",),
        sha256="e" * 64,
        last4="77bc",
        version=3,
        revoked=True,
        created_ms=_ACCEPTED_MS,
        rotated_ms=_ACCEPTED_MS + 60_000,
    ),
    "identity provider": IdentityProvider(
        name="okta",
        issuer="https://acme.okta.example/oauth2/default",
        jwks_url="https://acme.okta.example/oauth2/default/v1/keys",
        audiences=("sluice",),
        algorithms=("RS256", "ES256"),
        user_claim="email",
        groups_claim="roles",
        groups=(
            GroupRule(
                group="fraud-team",
                team="fraud",
                project="scores",
                environment="dev",
                role=Role.TEAM_ADMIN,
                policy=_WHOLE_POLICY,
            ),
        ),
        leeway_s=10,
        version=4,
        created_ms=_ACCEPTED_MS,
    ),
    "approval": Approval(
        id="apr_1",
        what="budget",
        team="fraud",
        wanted={"usd": "5.00", "period": "week"},
        why="quarter's end",
        requester="user/ada@acme.example",
        status="granted",
        decided_by="itsm/grace",
        reason="as agreed",
        ticket="RITM0012345",
        result="team/fraud",
        version=2,
        created_ms=_ACCEPTED_MS,
        decided_ms=_ACCEPTED_MS + 1_000,
        expires_ms=_ACCEPTED_MS + 86_400_000,
        until_ms=_ACCEPTED_MS + 3_600_000,
    ),
    "alert": Alert(
        id="alert_1",
        at_ms=_ACCEPTED_MS,
        what="budget_share",
        scope="team/fraud",
        team="fraud",
        severity="critical",
        message="team/fraud has spent 40.00 of 50.00 USD in 2026-11: 80% of its budget",
        facts={"share": 0.8, "period": "2026-11"},
        same="2c26b46b68ffc68ff99b453c",
        link="https://sluice.acme.example/admin/v1/alerts/alert_1",
    ),
    "alerting": Alerting(
        rules=AlertRules(slos={"gpt-4o-mini": Slo(ttft_ms=2000, objective=0.995), "*": Slo(ttft_ms=5000)}),
        channels=(
            WebhookChannel(name="pager", url="https://pager.example/hook", secret="vault:secret/data/pager#key"),
            SlackChannel(name="ops", url="env:SLACK_URL", only=Only(severities=("critical",))),
            EmailChannel(name="finance", to=("finance@acme.example",), only=Only(kinds=("budget_forecast",), teams=("fraud",))),
        ),
        since_ms={"pager": _ACCEPTED_MS, "ops": _ACCEPTED_MS, "finance": _ACCEPTED_MS},
        version=2,
    ),
    "feedback": Feedback(
        id="fb_0199a1b2c3d47e5f8a9b0c1d2e3f4a5b",
        at_ms=1_800_000_001_000,
        job_id=_JOB_ID,
        caller=_CALLER,
        name="helpfulness",
        author="ada",
        score=-1,
        label="too long",
        comment="It said the same thing twice.",
    ),
    "event": AdminEvent(
        id="evt_2",
        at_ms=_ACCEPTED_MS,
        actor="operator/op_1",
        action="job.cancelled",
        resource=f"job/{_JOB_ID}",
        version=1,
        before={"status": "queued"},
        after={"status": "cancelled"},
        reason="by mistake",
    ),
    "estimated": Job(
        id=_JOB_ID,
        api=Api.CHAT,
        lane=Lane.INTERACTIVE,
        model="small",
        body={"model": "small", "messages": []},
        caller=_CALLER.model_copy(update={"identity": "okta:ada@acme.example"}),
        policy=EffectivePolicy(
            version="1.2.3.4.5.6.7",
            granted_models=_WHOLE_POLICY.granted_models,
            lanes=(Lane.INTERACTIVE,),
            route=RoutePolicy(providers=("openai",), max_attempts=2),
            data=DataPolicy(regions=("eu-central-1",), hipaa=True, log=False),
            metadata_required=("feature",),
            max_output_tokens=2048,
            unpriced=_WHOLE_POLICY.unpriced,
            when_redis_is_away="open",
            concurrency_wait_s=1.5,
            runaway=RunawayPolicy(action="off"),
            identity="required",
            weight=3,
        ),
        slip=(Stage.ROUTER,),
        way=(Stage.ROUTER,),
        accepted_ms=_ACCEPTED_MS,
        deadline_ms=_ACCEPTED_MS + 120_000,
        reply_to=ReplyTo(kind="inbox"),
        estimate=Estimate(input_tokens=120, output_tokens=1024, usd_nano=1_234_000),
        fingerprint="00c0ffee00c0ffee",
    ),
    "completed for a person": _COMPLETION.model_copy(
        update={"caller": _CALLER.model_copy(update={"identity": "okta:ada"}), "fingerprint": "00c0ffee00c0ffee"}
    ),
    "routed model": Model(
        name="large",
        deployments=(
            _DEPLOYMENT.model_copy(update={"tpm": 90_000, "region": "eu-central-1", "hipaa": True, "max_output_tokens": 8192}),
        ),
        strategy="latency-based-routing",
        fallbacks=("small",),
        context_window_fallbacks=("huge",),
        content_policy_fallbacks=("small",),
        num_retries=1,
        allowed_fails=3,
        cooldown_s=30,
    ),
    "model": Model(name="small", deployments=(_DEPLOYMENT, _ECHO), version=4, owned_by="platform team", created_ms=_ACCEPTED_MS),
    "price of the house": PriceEntry(
        name="azure-2026",
        provider="azure",
        model="gpt-5*",
        since=date(2026, 11, 1),
        until=date(2027, 11, 1),
        per_million=TokenPrices(input=Decimal("1.25"), output=Decimal(10), cache_read=Decimal("0.125")),
        per_call=CallPrices(request=Decimal("0.0001"), web_search=Decimal("0.01")),
        tiers={"batch": Decimal("0.5"), "flex": Decimal("0.5")},
        multiplier=Decimal("0.85"),
        regions={"eu-central-1": Decimal("1.1")},
        hours=(Hours(begin=time(16, 30), end=time(0, 30), multiplier=Decimal("0.5")),),
        margin=Decimal("1.05"),
        version=3,
        created_ms=_ACCEPTED_MS,
    ),
    "price of capacity": PriceEntry(
        name="ptu",
        deployment="azure/gpt-5#2",
        since=date(2026, 11, 1),
        capacity=Capacity(hourly_usd=Decimal(100), tokens_per_hour=1_000_000),
    ),
    "completion of audio and searches": _COMPLETION.model_copy(
        update={
            "attempts": (
                _ATTEMPT.model_copy(
                    update={
                        "usage": Usage(
                            input_tokens=1200,
                            cache_read_tokens=1024,
                            input_audio_tokens=900,
                            cache_read_audio_tokens=800,
                            input_image_tokens=100,
                            output_tokens=300,
                            output_audio_tokens=200,
                            output_image_tokens=10,
                            rejected_prediction_tokens=20,
                            web_searches=2,
                            storage_searches=1,
                            code_executions=1,
                            audio_ms=1500,
                            source="provider",
                        ),
                        "margin_usd": Decimal("0.0001"),
                    }
                ),
            )
        }
    ),
    "drained deployment": DeploymentState(
        id="azure/gpt-5#2", drained=True, why="moves to another region", since_ms=_ACCEPTED_MS, version=2
    ),
}


def record() -> None:
    """Writes the examples that aren't recorded yet, as they are when every member is written."""
    for name, message in EXAMPLES.items():
        path = RECORDED / RELEASE / message.TYPE / f"{name.replace(' ', '_')}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            path.write_text(message.model_dump_json(indent=2) + "\n")


if __name__ == "__main__":
    record()
