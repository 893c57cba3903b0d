-- Prompt and completion of the jobs whose policy asks for it. Each row knows when it has to go; a person's rows are
-- erased earlier by DELETE FROM sluice.audit_log.
CREATE TABLE IF NOT EXISTS sluice.audit_log
(
    job_id     String,
    ts         DateTime64(3, 'UTC') COMMENT 'acceptance',
    team       LowCardinality(String),
    prompt     String CODEC(ZSTD(3)),
    completion String CODEC(ZSTD(3)),
    policy     LowCardinality(String) COMMENT 'version of the policy that asked for it',
    expires_at DateTime('UTC') DEFAULT toDateTime('2100-01-01 00:00:00', 'UTC'),
    version    UInt64
)
ENGINE = ReplacingMergeTree(version)
PARTITION BY toYYYYMM(ts)
ORDER BY job_id
TTL expires_at DELETE
SETTINGS non_replicated_deduplication_window = 10000, fsync_after_insert = 1, fsync_part_directory = 1;

-- A merge deletes what has expired in its own time; nobody may read it until then.
CREATE VIEW IF NOT EXISTS sluice.audit AS
SELECT * EXCEPT (version, expires_at)
FROM sluice.audit_log FINAL
WHERE expires_at > now('UTC')
SETTINGS do_not_merge_across_partitions_select_final = 1;

-- Who changed what. One change of a resource has one version, so what is delivered twice counts once.
CREATE TABLE IF NOT EXISTS sluice.events_log
(
    ts       DateTime64(3, 'UTC'),
    actor    String,
    resource String,
    version  String,
    before   String,
    after    String
)
ENGINE = ReplacingMergeTree
ORDER BY (resource, version)
SETTINGS non_replicated_deduplication_window = 10000, fsync_after_insert = 1, fsync_part_directory = 1;

CREATE VIEW IF NOT EXISTS sluice.events AS
SELECT *
FROM sluice.events_log FINAL;
