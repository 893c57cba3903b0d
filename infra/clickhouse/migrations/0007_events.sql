-- Who did what: each change of a resource with what stood before and after, and each act that changed none, such as a
-- secret shown. Before, it was keyed by resource and version alone, where a resource that is made anew begins at version 1
-- again and would have replaced its own past; nothing was ever written there.
-- The old table goes by another name than the new one: whoever repeats this file must not drop what others write.
CREATE TABLE IF NOT EXISTS sluice.changes_log
(
    ts       DateTime64(3, 'UTC'),
    event_id String COMMENT 'the same for what is delivered twice',
    actor    String COMMENT 'admin, operator/op_…, user/…; empty: not known',
    action   LowCardinality(String),
    resource String COMMENT 'kind/name, as on the control topic',
    kind     LowCardinality(String),
    team     LowCardinality(String) COMMENT 'whose thing it is; empty: of all',
    version  UInt64 COMMENT 'of the resource after the change; of a deleted one, its last',
    before   String CODEC(ZSTD(3)) COMMENT 'JSON; empty: nothing',
    after    String CODEC(ZSTD(3)) COMMENT 'JSON; empty: nothing',
    reason   String
)
ENGINE = ReplacingMergeTree
ORDER BY (resource, version, event_id)
SETTINGS non_replicated_deduplication_window = 10000, fsync_after_insert = 1, fsync_part_directory = 1;

CREATE OR REPLACE VIEW sluice.events AS
SELECT *
FROM sluice.changes_log FINAL;

DROP TABLE IF EXISTS sluice.events_log;
