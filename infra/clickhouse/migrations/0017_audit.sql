-- What is kept of a job whose policy asks for it: who asked what, what was answered, and how that came about. A row is read back
-- exactly as it was digested (infra/audit.py); it goes when its time is over, or by erasure, and its link in the chain stays.
ALTER TABLE sluice.audit_log
    ADD COLUMN IF NOT EXISTS content LowCardinality(String) COMMENT 'full, redacted, hashed';

ALTER TABLE sluice.audit_log
    ADD COLUMN IF NOT EXISTS context String COMMENT 'of the prompt: what tools and documents brought' CODEC(ZSTD(3));

ALTER TABLE sluice.audit_log
    ADD COLUMN IF NOT EXISTS model LowCardinality(String);

ALTER TABLE sluice.audit_log
    ADD COLUMN IF NOT EXISTS deployment LowCardinality(String);

ALTER TABLE sluice.audit_log
    ADD COLUMN IF NOT EXISTS provider LowCardinality(String);

ALTER TABLE sluice.audit_log
    ADD COLUMN IF NOT EXISTS provider_model LowCardinality(String);

ALTER TABLE sluice.audit_log
    ADD COLUMN IF NOT EXISTS model_version LowCardinality(String) COMMENT 'as the answer names it';

ALTER TABLE sluice.audit_log
    ADD COLUMN IF NOT EXISTS status LowCardinality(String);

ALTER TABLE sluice.audit_log
    ADD COLUMN IF NOT EXISTS error LowCardinality(String);

ALTER TABLE sluice.audit_log
    ADD COLUMN IF NOT EXISTS cache LowCardinality(String);

ALTER TABLE sluice.audit_log
    ADD COLUMN IF NOT EXISTS verdict String COMMENT 'of the guard, JSON';

ALTER TABLE sluice.audit_log
    ADD COLUMN IF NOT EXISTS price_version String;

ALTER TABLE sluice.audit_log
    ADD COLUMN IF NOT EXISTS organization LowCardinality(String);

ALTER TABLE sluice.audit_log
    ADD COLUMN IF NOT EXISTS project LowCardinality(String);

ALTER TABLE sluice.audit_log
    ADD COLUMN IF NOT EXISTS environment LowCardinality(String);

ALTER TABLE sluice.audit_log
    ADD COLUMN IF NOT EXISTS key_id String;

ALTER TABLE sluice.audit_log
    ADD COLUMN IF NOT EXISTS user String;

ALTER TABLE sluice.audit_log
    ADD COLUMN IF NOT EXISTS identity String;

ALTER TABLE sluice.audit_log
    ADD COLUMN IF NOT EXISTS ended DateTime64(3, 'UTC');

ALTER TABLE sluice.audit_log
    ADD COLUMN IF NOT EXISTS ended_by LowCardinality(String);

ALTER TABLE sluice.audit_log
    ADD COLUMN IF NOT EXISTS trace_id String;

ALTER TABLE sluice.audit_log
    ADD COLUMN IF NOT EXISTS salt String;

ALTER TABLE sluice.audit_log
    ADD COLUMN IF NOT EXISTS partition UInt32 COMMENT 'of sluice.audit';

ALTER TABLE sluice.audit_log
    ADD COLUMN IF NOT EXISTS seq UInt64 COMMENT 'offset there';

CREATE OR REPLACE VIEW sluice.audit AS
SELECT * EXCEPT (version)
FROM sluice.audit_log FINAL
WHERE expires_at > now('UTC')
SETTINGS do_not_merge_across_partitions_select_final = 1;

-- The chain, a link a record of the topic: nothing in it names a person or says what was asked.
CREATE TABLE IF NOT EXISTS sluice.audit_chain
(
    partition  UInt32,
    seq        UInt64 COMMENT 'offset in sluice.audit',
    n          UInt64 COMMENT '1, 2, 3 … within the partition',
    job_id     String,
    expires_at DateTime('UTC') COMMENT 'from then on the row may be gone',
    digest     String COMMENT 'of the row, salted',
    prev_hash  String,
    row_hash   String COMMENT 'SHA-256 of all above'
)
ENGINE = ReplacingMergeTree
ORDER BY (partition, seq)
SETTINGS non_replicated_deduplication_window = 10000, fsync_after_insert = 1, fsync_part_directory = 1;
