"""Every metric, once, with its meaning. Labels come from bounded sets only: never a user, a key, a job or a free model name.

Names follow Prometheus' habits; those of GenAI follow OpenTelemetry's conventions v1.41 in Prometheus form.
"""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

REGISTRY = CollectorRegistry()

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
_GENAI_SECONDS = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
_FIRST_SECONDS = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 30, 60)
_TOKEN_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5)
_QUEUE_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800, 7200, 86400)
_TOKENS = tuple(float(4**power) for power in range(14))

ADMITTED = Counter("sluice_jobs_admitted_total", "jobs admitted", ("lane", "door"), registry=REGISTRY)
REFUSED = Counter("sluice_jobs_refused_total", "requests refused at admission", ("code",), registry=REGISTRY)
ENDED = Counter("sluice_jobs_ended_total", "jobs ended, by the stage that ended them", ("stage", "status"), registry=REGISTRY)
LIMITS_DEGRADED = Gauge("sluice_limits_degraded", "1 while limits are approximate, because Redis is away", registry=REGISTRY)
ADMITTED_UNCHECKED = Counter("sluice_admitted_unchecked_total", "requests admitted by approximate limits", registry=REGISTRY)
BUDGET_CUTS = Counter("sluice_budget_cuts_total", "streams that were cut because their budget was used up", registry=REGISTRY)
LEDGER_OPEN = Gauge("sluice_ledger_open", "1 while the counters of budgets can be trusted", registry=REGISTRY)
HOLDS_SWEPT = Counter(
    "sluice_holds_swept_total", "reservations whose job died, given back at the end of their lease", registry=REGISTRY
)
STAGE_SECONDS = Histogram(
    "sluice_stage_seconds",
    "from taking a record to its effects being acknowledged",
    ("stage", "lane"),
    buckets=_SECONDS,
    registry=REGISTRY,
)
STAGE_BUSY = Gauge("sluice_stage_busy", "records at work", ("stage",), registry=REGISTRY)
STAGE_OLDEST = Gauge("sluice_stage_oldest_seconds", "age of the oldest record at work", ("stage",), registry=REGISTRY)
PACE = Gauge("sluice_pace_batch_per_second", "how fast batch may begin in this process", registry=REGISTRY)
LOOP_BUSY = Gauge("sluice_loop_busy_ratio", "share of the time that the event loop is busy", registry=REGISTRY)
LOOP_LAG = Gauge("sluice_loop_lag_seconds", "how late the event loop is", registry=REGISTRY)
REDELIVERED = Counter("sluice_redelivered_total", "records that were delivered again and skipped", ("stage",), registry=REGISTRY)
DEAD = Counter("sluice_dead_total", "records sent to the dead letters", ("stage", "reason"), registry=REGISTRY)
REBALANCES = Counter("sluice_rebalances_total", "rebalances of a group this process is in", ("stage",), registry=REGISTRY)
INBOX_DROPPED = Counter("sluice_inbox_dropped_total", "reply events nobody waits for", ("why",), registry=REGISTRY)
WAITING = Gauge("sluice_waiting", "connections that wait for an answer", registry=REGISTRY)
CACHE_LOOKUPS = Counter("sluice_cache_lookups_total", "looks into the exact cache", ("result",), registry=REGISTRY)
GUARD_VERDICTS = Counter("sluice_guard_verdicts_total", "what the guard decided", ("verdict",), registry=REGISTRY)
WEBHOOKS = Counter("sluice_webhooks_total", "tries to deliver a webhook, by what became of them", ("result",), registry=REGISTRY)
ATTEMPTS = Counter("sluice_attempts_total", "provider calls", ("provider", "status"), registry=REGISTRY)
SHADOWS = Counter("sluice_shadows_total", "copies of jobs for another model: sent, or dropped", ("result",), registry=REGISTRY)
PUT_OFF = Counter("sluice_put_off_total", "batch jobs that were put off", ("why",), registry=REGISTRY)
BOOKS_DIFFERENCE = Gauge(
    "sluice_books_difference_usd", "by how much Redis differed from the books at the last look", ("level",), registry=REGISTRY
)
BOOKS_LAG = Gauge("sluice_books_lag", "completions that Redis has counted and ClickHouse hasn't yet", registry=REGISTRY)
BOOKS_MENDED = Counter("sluice_books_mended_total", "completions missing in ClickHouse, written again", registry=REGISTRY)
ROWS = Counter("sluice_rows_total", "rows written to ClickHouse", ("table",), registry=REGISTRY)
TOKEN_USAGE = Histogram(
    "gen_ai_client_token_usage",
    "tokens of a provider call",
    ("gen_ai_token_type", "gen_ai_provider_name"),
    buckets=_TOKENS,
    registry=REGISTRY,
)
OPERATION_SECONDS = Histogram(
    "gen_ai_client_operation_duration_seconds",
    "a provider call",
    ("gen_ai_operation_name", "gen_ai_provider_name"),
    buckets=_GENAI_SECONDS,
    registry=REGISTRY,
)
SERVER_SECONDS = Histogram(
    "gen_ai_server_request_duration_seconds",
    "a request, as its caller sees it",
    ("gen_ai_operation_name",),
    buckets=_GENAI_SECONDS,
    registry=REGISTRY,
)
FIRST_TOKEN_SECONDS = Histogram(
    "gen_ai_server_time_to_first_token_seconds",
    "until the first event of a stream, as its caller sees it",
    ("gen_ai_operation_name",),
    buckets=_GENAI_SECONDS,
    registry=REGISTRY,
)

TOKEN_SECONDS = Histogram(
    "gen_ai_server_time_per_output_token_seconds",
    "of a stream, from one token to the next, after the first one",
    ("gen_ai_operation_name",),
    buckets=_TOKEN_SECONDS,
    registry=REGISTRY,
)
FIRST_CHUNK_SECONDS = Histogram(
    "gen_ai_client_operation_time_to_first_chunk_seconds",
    "until a provider's first chunk that says something",
    ("gen_ai_operation_name", "gen_ai_provider_name"),
    buckets=_FIRST_SECONDS,
    registry=REGISTRY,
)
CHUNK_SECONDS = Histogram(
    "gen_ai_client_operation_time_per_output_chunk_seconds",
    "of a provider's stream, from one chunk to the next, after the first one",
    ("gen_ai_operation_name", "gen_ai_provider_name"),
    buckets=_TOKEN_SECONDS,
    registry=REGISTRY,
)

HTTP_REQUESTS = Counter(
    "sluice_http_requests_total", "HTTP requests, by the template of their path", ("route", "method", "status"), registry=REGISTRY
)
REQUESTS = Counter("sluice_requests_total", "jobs that ended", ("team", "model", "status"), registry=REGISTRY)
ERRORS = Counter(
    "sluice_errors_total",
    "requests refused and jobs that failed, by whose fault: gateway, provider, caller",
    ("owner", "status"),
    registry=REGISTRY,
)
QUEUE_SECONDS = Histogram(
    "sluice_queue_seconds", "from acceptance to the first provider call", ("lane",), buckets=_QUEUE_SECONDS, registry=REGISTRY
)
LANE_DEPTH = Gauge(
    "sluice_lane_depth", "records that wait before a stage, of partitions read here", ("stage", "lane"), registry=REGISTRY
)
LANE_AGE = Gauge(
    "sluice_lane_age_seconds", "how long what waits before a stage has waited, at most", ("stage", "lane"), registry=REGISTRY
)
COST_USD = Counter("sluice_cost_usd_total", "what provider calls cost, in USD", ("team", "model", "provider"), registry=REGISTRY)
TOKENS = Counter("sluice_tokens_total", "tokens of provider calls", ("team", "model", "direction"), registry=REGISTRY)
BUDGET_SPENT = Gauge(
    "sluice_budget_spent_ratio", "share of a team's budget that is spent; 1: all of it", ("team", "period"), registry=REGISTRY
)

DEPLOYMENT_CALLS = Counter(
    "sluice_deployment_calls_total", "provider calls, by what became of them", ("deployment", "outcome"), registry=REGISTRY
)
DEPLOYMENT_SECONDS = Histogram(
    "sluice_deployment_call_seconds",
    "a provider call that went well",
    ("deployment",),
    buckets=_GENAI_SECONDS,
    registry=REGISTRY,
)
DEPLOYMENT_FIRST_TOKEN_SECONDS = Histogram(
    "sluice_deployment_first_token_seconds",
    "until a provider's first token, of a stream that went well",
    ("deployment",),
    buckets=_GENAI_SECONDS,
    registry=REGISTRY,
)
DEPLOYMENT_STATE = Gauge(
    "sluice_deployment_state", "0 closed, 1 half open, 2 open, 3 quarantined, 4 drained", ("deployment",), registry=REGISTRY
)
DEPLOYMENT_LIMIT = Gauge(
    "sluice_deployment_limit", "calls at once that a deployment may have from this process", ("deployment",), registry=REGISTRY
)
FALLBACKS = Counter("sluice_fallbacks_total", "jobs that went on to another model", ("model", "to"), registry=REGISTRY)
SPANS_SENT = Counter("sluice_spans_sent_total", "spans that the OTLP endpoint has taken", registry=REGISTRY)
SPANS_DROPPED = Counter("sluice_spans_dropped_total", "spans that were not sent, by why", ("why",), registry=REGISTRY)
HEDGES = Counter("sluice_hedges_total", "second calls beside slow ones, by who was first", ("result",), registry=REGISTRY)


def exposition() -> bytes:
    """All metrics of this process in Prometheus' text format."""
    return generate_latest(REGISTRY)
