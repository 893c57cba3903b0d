-- Certificates: what was erased of whom (as a digest), when, by whom, where, and until when Kafka's logs may still hold some of it.
CREATE TABLE IF NOT EXISTS sluice.erasures_log
(
    id         String,
    subject    String COMMENT 'digest of what was erased: user or key',
    actor      String,
    reason     String,
    asked_at   DateTime64(3, 'UTC'),
    done_at    DateTime64(3, 'UTC') COMMENT '1970: not yet',
    steps      Array(String) COMMENT 'stores that are done',
    counts     Map(String, UInt64) COMMENT 'what was erased, by store',
    jobs       UInt64,
    failed     String COMMENT 'what stopped it; empty: nothing',
    log_until  DateTime64(3, 'UTC'),
    version    UInt64
)
ENGINE = ReplacingMergeTree(version)
ORDER BY id
SETTINGS non_replicated_deduplication_window = 10000, fsync_after_insert = 1, fsync_part_directory = 1;

CREATE VIEW IF NOT EXISTS sluice.erasures AS
SELECT * EXCEPT (version)
FROM sluice.erasures_log FINAL;

-- Jobs whose row was erased from sluice.audit_log, so that its absence is explained.
CREATE TABLE IF NOT EXISTS sluice.audit_erased
(
    job_id  String,
    erasure String
)
ENGINE = ReplacingMergeTree
ORDER BY job_id
SETTINGS non_replicated_deduplication_window = 10000, fsync_after_insert = 1, fsync_part_directory = 1;
