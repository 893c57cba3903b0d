-- How a job came to where it was served, what was called beside it, and its shadow.
ALTER TABLE sluice.usage_log
    ADD COLUMN IF NOT EXISTS cache_write_1h_tokens UInt64 COMMENT 'a part of cache_write_tokens';

ALTER TABLE sluice.usage_log
    ADD COLUMN IF NOT EXISTS route Array(String) COMMENT 'why it went where it went, a sentence for each decision';

ALTER TABLE sluice.usage_log
    ADD COLUMN IF NOT EXISTS shadow_of String COMMENT 'the job of which this one was a copy';

ALTER TABLE sluice.attempts_log
    ADD COLUMN IF NOT EXISTS cache_write_1h_tokens UInt64 COMMENT 'a part of cache_write_tokens';

ALTER TABLE sluice.attempts_log
    ADD COLUMN IF NOT EXISTS alias LowCardinality(String) COMMENT 'the model whose deployment was called';

ALTER TABLE sluice.attempts_log
    ADD COLUMN IF NOT EXISTS hedge Bool COMMENT 'a second call beside a slow one';

CREATE OR REPLACE VIEW sluice.usage AS
SELECT * EXCEPT (version)
FROM sluice.usage_log FINAL
SETTINGS do_not_merge_across_partitions_select_final = 1;

CREATE OR REPLACE VIEW sluice.attempts AS
SELECT * EXCEPT (version, job_ts)
FROM sluice.attempts_log FINAL
SETTINGS do_not_merge_across_partitions_select_final = 1;

-- A line a day and pair of models: what the shadow would have cost, and how it would have fared.
CREATE VIEW IF NOT EXISTS sluice.shadow_comparison AS
SELECT
    toDate(j.ts)                                                        AS day,
    j.model                                                             AS model,
    s.model                                                             AS shadow_model,
    count()                                                             AS jobs,
    countIf(j.status = 'completed')                                     AS completed,
    countIf(s.status = 'completed')                                     AS shadow_completed,
    countIf(j.guard_verdict != s.guard_verdict)                         AS other_verdicts,
    sum(j.cost_usd)                                                     AS cost_usd,
    sum(s.cost_usd)                                                     AS shadow_cost_usd,
    sum(j.completion_tokens)                                            AS completion_tokens,
    sum(s.completion_tokens)                                            AS shadow_completion_tokens,
    quantileTDigest(0.5)(j.latency_ms - j.queue_ms)                     AS latency_p50_ms,
    quantileTDigest(0.5)(s.latency_ms - s.queue_ms)                     AS shadow_latency_p50_ms,
    quantileTDigest(0.95)(j.latency_ms - j.queue_ms)                    AS latency_p95_ms,
    quantileTDigest(0.95)(s.latency_ms - s.queue_ms)                    AS shadow_latency_p95_ms
FROM sluice.usage AS s
INNER JOIN sluice.usage AS j ON j.job_id = s.shadow_of
WHERE s.shadow_of != ''
GROUP BY day, model, shadow_model;
