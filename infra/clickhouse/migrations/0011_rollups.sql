-- Sums by hour and day, of deduplicated rows only: an hour is added up from `usage` as a whole, never row by row as they come,
-- since what comes may be a job's second completion. Decision 0024 has the argument.
-- Each insert into the log, whoever makes it, leaves a touch on the hours of its rows, after the rows themselves are there.
-- A seal says: these sums of an hour (or day) hold all that had touched it so often. They count for as long as it was touched no
-- more often; until then, and after, its rows themselves are read. One touch too many costs a new sum and is never wrong.
CREATE TABLE IF NOT EXISTS sluice.usage_touches
(
    hour    DateTime('UTC'),
    touches SimpleAggregateFunction(sum, UInt64),
    last    SimpleAggregateFunction(max, DateTime('UTC')) COMMENT 'when it was touched'
)
ENGINE = AggregatingMergeTree
ORDER BY hour
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;

CREATE MATERIALIZED VIEW IF NOT EXISTS sluice.usage_touches_feed TO sluice.usage_touches AS
SELECT toStartOfHour(ts) AS hour, toUInt64(1) AS touches, now('UTC') AS last
FROM sluice.usage_log
GROUP BY hour;

INSERT INTO sluice.usage_touches
SELECT toStartOfHour(ts) AS hour, 1 AS touches, now('UTC') AS last
FROM sluice.usage_log
GROUP BY hour;

CREATE TABLE IF NOT EXISTS sluice.usage_seals
(
    grain      Enum8('hour' = 1, 'day' = 2),
    bucket     DateTime('UTC'),
    touches    UInt64 COMMENT 'of its hours, when it began to be added up',
    generation UInt64 COMMENT 'of the rows that hold; the highest counts'
)
ENGINE = ReplacingMergeTree(generation)
ORDER BY (grain, bucket)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;

CREATE TABLE IF NOT EXISTS sluice.usage_hours
(
    bucket             DateTime('UTC') COMMENT 'its first second',
    organization       LowCardinality(String),
    team               LowCardinality(String),
    project            LowCardinality(String),
    environment        LowCardinality(String),
    key_id             String,
    user               String,
    feature            LowCardinality(String),
    segment            LowCardinality(String),
    lane               LowCardinality(String),
    api                LowCardinality(String),
    model              LowCardinality(String),
    deployment         LowCardinality(String),
    provider           LowCardinality(String),
    status             LowCardinality(String),
    cache              LowCardinality(String),
    usage_source       LowCardinality(String),
    price_version      LowCardinality(String),
    service_tier       LowCardinality(String),
    jobs               UInt64,
    failed_jobs        UInt64,
    prompt_tokens      UInt64,
    cached_tokens      UInt64,
    cache_write_tokens UInt64,
    completion_tokens  UInt64,
    reasoning_tokens   UInt64,
    cost_usd           Decimal(38, 9),
    saved_usd          Decimal(38, 9),
    latency_ms         Float64 COMMENT 'sum over jobs',
    ttft_ms            Float64 COMMENT 'sum over ttft_jobs',
    ttft_jobs          UInt64 COMMENT 'that had a first token',
    generation         UInt64
)
ENGINE = MergeTree
PARTITION BY toYYYYMM(bucket)
ORDER BY (bucket, organization, team, project, environment, model)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;

CREATE TABLE IF NOT EXISTS sluice.usage_days
(
    bucket             DateTime('UTC') COMMENT 'its first second, UTC',
    organization       LowCardinality(String),
    team               LowCardinality(String),
    project            LowCardinality(String),
    environment        LowCardinality(String),
    key_id             String,
    user               String,
    feature            LowCardinality(String),
    segment            LowCardinality(String),
    lane               LowCardinality(String),
    api                LowCardinality(String),
    model              LowCardinality(String),
    deployment         LowCardinality(String),
    provider           LowCardinality(String),
    status             LowCardinality(String),
    cache              LowCardinality(String),
    usage_source       LowCardinality(String),
    price_version      LowCardinality(String),
    service_tier       LowCardinality(String),
    jobs               UInt64,
    failed_jobs        UInt64,
    prompt_tokens      UInt64,
    cached_tokens      UInt64,
    cache_write_tokens UInt64,
    completion_tokens  UInt64,
    reasoning_tokens   UInt64,
    cost_usd           Decimal(38, 9),
    saved_usd          Decimal(38, 9),
    latency_ms         Float64 COMMENT 'sum over jobs',
    ttft_ms            Float64 COMMENT 'sum over ttft_jobs',
    ttft_jobs          UInt64 COMMENT 'that had a first token',
    generation         UInt64
)
ENGINE = MergeTree
PARTITION BY toYYYYMM(bucket)
ORDER BY (bucket, organization, team, project, environment, model)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;

CREATE VIEW IF NOT EXISTS sluice.usage_sealed AS
SELECT s.grain AS grain, s.bucket AS bucket, s.generation AS generation
FROM sluice.usage_seals AS s FINAL
INNER JOIN
(
    SELECT 'hour' AS grain, hour AS bucket, sum(touches) AS touched FROM sluice.usage_touches GROUP BY hour
    UNION ALL
    SELECT 'day' AS grain, toStartOfDay(hour) AS bucket, sum(touches) AS touched FROM sluice.usage_touches GROUP BY bucket
) AS t ON toString(s.grain) = t.grain AND s.bucket = t.bucket AND s.touches = t.touched;
