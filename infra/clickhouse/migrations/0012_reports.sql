-- What is read of each job for a sum. A day that is sealed comes from its sums, an hour of another day likewise, and what is in
-- neither from the rows: each job by exactly one of the three ways, by seals that are looked up once a query (scalars).
CREATE VIEW IF NOT EXISTS sluice.usage_measures AS
SELECT
    ts,
    organization, team, project, environment, key_id, user, feature, segment, lane,
    api, model, deployment, provider, status, cache, usage_source, price_version, service_tier,
    toUInt64(1) AS jobs,
    toUInt64(status = 'failed') AS failed_jobs,
    prompt_tokens, cached_tokens, cache_write_tokens, completion_tokens, reasoning_tokens,
    toDecimal128(u.cost_usd, 9) AS cost_usd,
    toDecimal128(u.saved_usd, 9) AS saved_usd,
    u.latency_ms AS latency_ms,
    ifNull(u.ttft_ms, 0.) AS ttft_ms,
    toUInt64(isNotNull(u.ttft_ms)) AS ttft_jobs
FROM sluice.usage_log AS u FINAL
SETTINGS do_not_merge_across_partitions_select_final = 1;

CREATE VIEW IF NOT EXISTS sluice.usage_totals AS
WITH
    (SELECT groupArray((bucket, generation)) FROM sluice.usage_sealed WHERE grain = 'day') AS days,
    (SELECT groupArray((bucket, generation)) FROM sluice.usage_sealed WHERE grain = 'hour') AS hours
SELECT *
FROM
(
    SELECT
        bucket,
        organization, team, project, environment, key_id, user, feature, segment, lane,
        api, model, deployment, provider, status, cache, usage_source, price_version, service_tier,
        jobs, failed_jobs, prompt_tokens, cached_tokens, cache_write_tokens, completion_tokens,
        reasoning_tokens, cost_usd, saved_usd, latency_ms, ttft_ms, ttft_jobs
    FROM sluice.usage_days
    WHERE (bucket, generation) IN days
    UNION ALL
    SELECT
        bucket,
        organization, team, project, environment, key_id, user, feature, segment, lane,
        api, model, deployment, provider, status, cache, usage_source, price_version, service_tier,
        jobs, failed_jobs, prompt_tokens, cached_tokens, cache_write_tokens, completion_tokens,
        reasoning_tokens, cost_usd, saved_usd, latency_ms, ttft_ms, ttft_jobs
    FROM sluice.usage_hours
    WHERE (bucket, generation) IN hours AND toStartOfDay(bucket) NOT IN days.1
    UNION ALL
    SELECT
        toStartOfHour(ts) AS bucket,
        organization, team, project, environment, key_id, user, feature, segment, lane,
        api, model, deployment, provider, status, cache, usage_source, price_version, service_tier,
        jobs, failed_jobs, prompt_tokens, cached_tokens, cache_write_tokens, completion_tokens,
        reasoning_tokens, cost_usd, saved_usd, latency_ms, ttft_ms, ttft_jobs
    FROM sluice.usage_measures
    WHERE toStartOfHour(ts) NOT IN hours.1 AND toStartOfDay(ts) NOT IN days.1
);

CREATE VIEW IF NOT EXISTS sluice.usage_hourly AS
WITH
    (SELECT groupArray((bucket, generation)) FROM sluice.usage_sealed WHERE grain = 'hour') AS hours
SELECT *
FROM
(
    SELECT
        bucket,
        organization, team, project, environment, key_id, user, feature, segment, lane,
        api, model, deployment, provider, status, cache, usage_source, price_version, service_tier,
        jobs, failed_jobs, prompt_tokens, cached_tokens, cache_write_tokens, completion_tokens,
        reasoning_tokens, cost_usd, saved_usd, latency_ms, ttft_ms, ttft_jobs
    FROM sluice.usage_hours
    WHERE (bucket, generation) IN hours
    UNION ALL
    SELECT
        toStartOfHour(ts) AS bucket,
        organization, team, project, environment, key_id, user, feature, segment, lane,
        api, model, deployment, provider, status, cache, usage_source, price_version, service_tier,
        jobs, failed_jobs, prompt_tokens, cached_tokens, cache_write_tokens, completion_tokens,
        reasoning_tokens, cost_usd, saved_usd, latency_ms, ttft_ms, ttft_jobs
    FROM sluice.usage_measures
    WHERE toStartOfHour(ts) NOT IN hours.1
);

-- A minute is added up from the rows themselves, of the minutes that are asked for: its groups are nearly as many as its rows.
CREATE VIEW IF NOT EXISTS sluice.usage_by_minute AS
SELECT
    toStartOfMinute(u.ts) AS minute,
    organization, team, project, environment, key_id, user, feature, segment, lane,
    api, model, deployment, provider, status, cache, usage_source, price_version, service_tier,
    sum(u.jobs) AS jobs,
    sum(u.failed_jobs) AS failed_jobs,
    sum(u.prompt_tokens) AS prompt_tokens,
    sum(u.cached_tokens) AS cached_tokens,
    sum(u.cache_write_tokens) AS cache_write_tokens,
    sum(u.completion_tokens) AS completion_tokens,
    sum(u.reasoning_tokens) AS reasoning_tokens,
    sum(u.cost_usd) AS cost_usd,
    sum(u.saved_usd) AS saved_usd,
    sum(u.latency_ms) AS latency_ms,
    sum(u.ttft_ms) AS ttft_ms,
    sum(u.ttft_jobs) AS ttft_jobs
FROM sluice.usage_measures AS u
GROUP BY minute, organization, team, project, environment, key_id, user, feature, segment, lane,
    api, model, deployment, provider, status, cache, usage_source, price_version, service_tier;

CREATE VIEW IF NOT EXISTS sluice.usage_by_hour AS
SELECT
    u.bucket AS hour,
    organization, team, project, environment, key_id, user, feature, segment, lane,
    api, model, deployment, provider, status, cache, usage_source, price_version, service_tier,
    sum(u.jobs) AS jobs,
    sum(u.failed_jobs) AS failed_jobs,
    sum(u.prompt_tokens) AS prompt_tokens,
    sum(u.cached_tokens) AS cached_tokens,
    sum(u.cache_write_tokens) AS cache_write_tokens,
    sum(u.completion_tokens) AS completion_tokens,
    sum(u.reasoning_tokens) AS reasoning_tokens,
    sum(u.cost_usd) AS cost_usd,
    sum(u.saved_usd) AS saved_usd,
    sum(u.latency_ms) AS latency_ms,
    sum(u.ttft_ms) AS ttft_ms,
    sum(u.ttft_jobs) AS ttft_jobs
FROM sluice.usage_hourly AS u
GROUP BY hour, organization, team, project, environment, key_id, user, feature, segment, lane,
    api, model, deployment, provider, status, cache, usage_source, price_version, service_tier;

CREATE VIEW IF NOT EXISTS sluice.usage_by_day AS
SELECT
    toDate(u.bucket) AS day,
    organization, team, project, environment, key_id, user, feature, segment, lane,
    api, model, deployment, provider, status, cache, usage_source, price_version, service_tier,
    sum(u.jobs) AS jobs,
    sum(u.failed_jobs) AS failed_jobs,
    sum(u.prompt_tokens) AS prompt_tokens,
    sum(u.cached_tokens) AS cached_tokens,
    sum(u.cache_write_tokens) AS cache_write_tokens,
    sum(u.completion_tokens) AS completion_tokens,
    sum(u.reasoning_tokens) AS reasoning_tokens,
    sum(u.cost_usd) AS cost_usd,
    sum(u.saved_usd) AS saved_usd,
    sum(u.latency_ms) AS latency_ms,
    sum(u.ttft_ms) AS ttft_ms,
    sum(u.ttft_jobs) AS ttft_jobs
FROM sluice.usage_totals AS u
GROUP BY day, organization, team, project, environment, key_id, user, feature, segment, lane,
    api, model, deployment, provider, status, cache, usage_source, price_version, service_tier;

CREATE VIEW IF NOT EXISTS sluice.usage_by_month AS
SELECT
    toStartOfMonth(u.bucket) AS month,
    organization, team, project, environment, key_id, user, feature, segment, lane,
    api, model, deployment, provider, status, cache, usage_source, price_version, service_tier,
    sum(u.jobs) AS jobs,
    sum(u.failed_jobs) AS failed_jobs,
    sum(u.prompt_tokens) AS prompt_tokens,
    sum(u.cached_tokens) AS cached_tokens,
    sum(u.cache_write_tokens) AS cache_write_tokens,
    sum(u.completion_tokens) AS completion_tokens,
    sum(u.reasoning_tokens) AS reasoning_tokens,
    sum(u.cost_usd) AS cost_usd,
    sum(u.saved_usd) AS saved_usd,
    sum(u.latency_ms) AS latency_ms,
    sum(u.ttft_ms) AS ttft_ms,
    sum(u.ttft_jobs) AS ttft_jobs
FROM sluice.usage_totals AS u
GROUP BY month, organization, team, project, environment, key_id, user, feature, segment, lane,
    api, model, deployment, provider, status, cache, usage_source, price_version, service_tier;

-- As before (0004), by way of the sums.
CREATE OR REPLACE VIEW sluice.chargeback_daily AS
SELECT
    toDate(u.bucket)            AS day,
    organization,
    team,
    project,
    environment,
    model,
    sum(u.jobs)                 AS jobs,
    sum(u.failed_jobs)          AS failed_jobs,
    sum(u.prompt_tokens)        AS prompt_tokens,
    sum(u.cached_tokens)        AS cached_tokens,
    sum(u.completion_tokens)    AS completion_tokens,
    sum(u.reasoning_tokens)     AS reasoning_tokens,
    sum(u.cost_usd)             AS cost_usd,
    sum(u.saved_usd)            AS saved_usd,
    sum(u.cache_write_tokens)   AS cache_write_tokens
FROM sluice.usage_totals AS u
GROUP BY day, organization, team, project, environment, model;

CREATE OR REPLACE VIEW sluice.chargeback_monthly AS
SELECT
    toStartOfMonth(u.bucket)    AS month,
    organization,
    team,
    project,
    environment,
    model,
    sum(u.jobs)                 AS jobs,
    sum(u.failed_jobs)          AS failed_jobs,
    sum(u.prompt_tokens)        AS prompt_tokens,
    sum(u.cached_tokens)        AS cached_tokens,
    sum(u.completion_tokens)    AS completion_tokens,
    sum(u.reasoning_tokens)     AS reasoning_tokens,
    sum(u.cost_usd)             AS cost_usd,
    sum(u.saved_usd)            AS saved_usd,
    sum(u.cache_write_tokens)   AS cache_write_tokens
FROM sluice.usage_totals AS u
GROUP BY month, organization, team, project, environment, model;
