-- All of these read the views, never the logs: every sum is over deduplicated rows. Days and months are UTC.
CREATE VIEW IF NOT EXISTS sluice.chargeback_daily AS
SELECT
    toDate(ts)                  AS day,
    organization,
    team,
    project,
    environment,
    model,
    count()                     AS jobs,
    countIf(status = 'failed')  AS failed_jobs,
    sum(u.prompt_tokens)        AS prompt_tokens,
    sum(u.cached_tokens)        AS cached_tokens,
    sum(u.completion_tokens)    AS completion_tokens,
    sum(u.reasoning_tokens)     AS reasoning_tokens,
    sum(u.cost_usd)             AS cost_usd,
    sum(u.saved_usd)            AS saved_usd
FROM sluice.usage AS u
GROUP BY day, organization, team, project, environment, model;

CREATE VIEW IF NOT EXISTS sluice.chargeback_monthly AS
SELECT
    toStartOfMonth(day)         AS month,
    organization,
    team,
    project,
    environment,
    model,
    sum(d.jobs)                 AS jobs,
    sum(d.failed_jobs)          AS failed_jobs,
    sum(d.prompt_tokens)        AS prompt_tokens,
    sum(d.cached_tokens)        AS cached_tokens,
    sum(d.completion_tokens)    AS completion_tokens,
    sum(d.reasoning_tokens)     AS reasoning_tokens,
    sum(d.cost_usd)             AS cost_usd,
    sum(d.saved_usd)            AS saved_usd
FROM sluice.chargeback_daily AS d
GROUP BY month, organization, team, project, environment, model;

-- The last hour. Calls that were cancelled, or whose end nobody saw, say nothing about the provider's health.
CREATE VIEW IF NOT EXISTS sluice.provider_health AS
SELECT
    provider,
    deployment,
    count()                                                         AS calls,
    countIf(status = 'failed')                                      AS failed_calls,
    countIf(http_status = 429)                                      AS throttled_calls,
    countIf(status = 'completed') / nullIf(countIf(status IN ('completed', 'failed')), 0) AS success_rate,
    quantileTDigestIfOrNull(0.5)(latency_ms, status = 'completed')  AS latency_p50_ms,
    quantileTDigestIfOrNull(0.95)(latency_ms, status = 'completed') AS latency_p95_ms,
    quantileTDigestIfOrNull(0.99)(latency_ms, status = 'completed') AS latency_p99_ms,
    quantileTDigestIfOrNull(0.5)(ttft_ms, status = 'completed')     AS ttft_p50_ms,
    max(ts)                                                         AS last_call
FROM sluice.attempts
WHERE ts >= now64(3) - INTERVAL 1 HOUR
GROUP BY provider, deployment;

CREATE VIEW IF NOT EXISTS sluice.cache_savings AS
SELECT
    toDate(ts)                                  AS day,
    organization,
    team,
    project,
    environment,
    model,
    countIf(cache IN ('hit', 'semantic', 'miss')) AS lookups,
    countIf(cache = 'hit')                      AS exact_hits,
    countIf(cache = 'semantic')                 AS semantic_hits,
    (exact_hits + semantic_hits) / nullIf(lookups, 0) AS hit_rate,
    sum(u.saved_usd)                            AS saved_usd
FROM sluice.usage AS u
GROUP BY day, organization, team, project, environment, model;
