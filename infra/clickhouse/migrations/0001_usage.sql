-- A row a job. Two completions of one job are two rows here and one in `usage`: the row with the highest `version`,
-- which is 2^63 less the offset, so that the first completion in the log stays.
-- Ordered by job_id alone: a UUIDv7 grows with time, so parts hardly overlap and FINAL has little to merge.
-- Partitioned by the time of acceptance, which both completions share; by the time of writing both would count.
CREATE TABLE IF NOT EXISTS sluice.usage_log
(
    job_id             String,
    ts                 DateTime64(3, 'UTC') COMMENT 'acceptance',
    organization       LowCardinality(String),
    team               LowCardinality(String),
    project            LowCardinality(String),
    environment        LowCardinality(String),
    key_id             String,
    user               String,
    feature            LowCardinality(String),
    segment            LowCardinality(String),
    metadata           Map(String, String),
    lane               LowCardinality(String),
    api                LowCardinality(String),
    model              LowCardinality(String) COMMENT 'the alias that was asked for',
    deployment         LowCardinality(String),
    provider           LowCardinality(String),
    status             LowCardinality(String),
    error_type         LowCardinality(String),
    cache              LowCardinality(String),
    prompt_tokens      UInt64 COMMENT 'all that went in, cached tokens included',
    cached_tokens      UInt64,
    cache_write_tokens UInt64,
    completion_tokens  UInt64 COMMENT 'all that came out, reasoning included',
    reasoning_tokens   UInt64,
    usage_source       LowCardinality(String),
    price_version      LowCardinality(String),
    policy_version     LowCardinality(String),
    service_tier       LowCardinality(String),
    cost_usd           Decimal(18, 9),
    saved_usd          Decimal(18, 9),
    ttft_ms            Nullable(Float64),
    latency_ms         Float64,
    queue_ms           Float64,
    guard_verdict      LowCardinality(String),
    guard_findings     Array(String),
    trace_id           String,
    custom_id          String,
    version            UInt64
)
ENGINE = ReplacingMergeTree(version)
PARTITION BY toYYYYMM(ts)
ORDER BY job_id
SETTINGS non_replicated_deduplication_window = 10000, fsync_after_insert = 1, fsync_part_directory = 1;

CREATE VIEW IF NOT EXISTS sluice.usage AS
SELECT * EXCEPT (version)
FROM sluice.usage_log FINAL
SETTINGS do_not_merge_across_partitions_select_final = 1;
