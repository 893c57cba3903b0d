-- A row a provider call. Partitioned by the acceptance of its job, not by its own time: a call that was first booked
-- as unknown by the router's successor may come again with another time, and must fall on the same row.
CREATE TABLE IF NOT EXISTS sluice.attempts_log
(
    attempt_id         String,
    job_id             String,
    n                  UInt32,
    ts                 DateTime64(3, 'UTC') COMMENT 'start of the call',
    team               LowCardinality(String),
    lane               LowCardinality(String),
    model              LowCardinality(String) COMMENT 'the alias that was asked for',
    deployment         LowCardinality(String),
    provider           LowCardinality(String),
    provider_model     LowCardinality(String),
    status             LowCardinality(String),
    http_status        Nullable(UInt16),
    error_type         LowCardinality(String),
    prompt_tokens      UInt64,
    cached_tokens      UInt64,
    cache_write_tokens UInt64,
    completion_tokens  UInt64,
    reasoning_tokens   UInt64,
    usage_source       LowCardinality(String),
    cost_usd           Decimal(18, 9),
    latency_ms         Float64,
    ttft_ms            Nullable(Float64),
    raw_usage          String,
    trace_id           String,
    job_ts             DateTime64(3, 'UTC') COMMENT 'acceptance of the job',
    version            UInt64
)
ENGINE = ReplacingMergeTree(version)
PARTITION BY toYYYYMM(job_ts)
ORDER BY attempt_id
SETTINGS non_replicated_deduplication_window = 10000, fsync_after_insert = 1, fsync_part_directory = 1;

CREATE VIEW IF NOT EXISTS sluice.attempts AS
SELECT * EXCEPT (version, job_ts)
FROM sluice.attempts_log FINAL
SETTINGS do_not_merge_across_partitions_select_final = 1;
