-- What people think of answers. The last opinion of an author under a name counts; the partition is that of the job's birth, which
-- all opinions of it share.
CREATE TABLE IF NOT EXISTS sluice.feedback_log
(
    feedback_id  String,
    ts           DateTime64(3, 'UTC') COMMENT 'when it was given',
    job_id       String,
    job_ts       DateTime64(3, 'UTC') COMMENT 'acceptance of the job',
    organization LowCardinality(String),
    team         LowCardinality(String),
    project      LowCardinality(String),
    environment  LowCardinality(String),
    key_id       String,
    author       String,
    name         LowCardinality(String) COMMENT 'what is judged',
    score        Nullable(Float64) COMMENT '-1 (bad) to 1 (good)',
    label        LowCardinality(String),
    comment      String CODEC(ZSTD(3)),
    version      UInt64 COMMENT 'unix milliseconds: the last one counts'
)
ENGINE = ReplacingMergeTree(version)
PARTITION BY toYYYYMM(job_ts)
ORDER BY (job_id, team, name, author)
SETTINGS non_replicated_deduplication_window = 10000, fsync_after_insert = 1, fsync_part_directory = 1;

-- With the job that it is about, if that is a job of the same team: who names somebody else's learns nothing of it.
CREATE OR REPLACE VIEW sluice.feedback AS
SELECT
    f.* EXCEPT (version, job_ts),
    j.model AS model,
    j.deployment AS deployment,
    j.provider AS provider,
    j.feature AS feature,
    j.segment AS segment,
    j.cache AS cache,
    j.policy_version AS policy_version,
    j.cost_usd AS cost_usd,
    j.latency_ms AS latency_ms
FROM (SELECT * FROM sluice.feedback_log FINAL) AS f
LEFT JOIN
(
    SELECT job_id, team, model, deployment, provider, feature, segment, cache, policy_version, cost_usd, latency_ms
    FROM sluice.usage
    WHERE job_id IN (SELECT job_id FROM sluice.feedback_log)
) AS j ON j.job_id = f.job_id AND j.team = f.team;
