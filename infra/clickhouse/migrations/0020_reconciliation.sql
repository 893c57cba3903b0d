-- What it takes to compare the books with Redis: where in the log a row comes from, and whose money a call cost. A job's later
-- completion may tell of further calls, so money is added up over calls, and each says for itself who pays, and when it counts.
-- Of rows from before, partition -1: they are added up by their job (services/accounting/books.py). The views don't show these.
ALTER TABLE sluice.usage_log
    ADD COLUMN IF NOT EXISTS partition Int16 DEFAULT -1 COMMENT 'of the completions; the offset is 2^63 - version';

ALTER TABLE sluice.attempts_log
    ADD COLUMN IF NOT EXISTS partition Int16 DEFAULT -1 COMMENT 'of the completions; the offset is 2^63 - version';

ALTER TABLE sluice.attempts_log
    ADD COLUMN IF NOT EXISTS organization LowCardinality(String);

ALTER TABLE sluice.attempts_log
    ADD COLUMN IF NOT EXISTS project LowCardinality(String);

ALTER TABLE sluice.attempts_log
    ADD COLUMN IF NOT EXISTS environment LowCardinality(String);

ALTER TABLE sluice.attempts_log
    ADD COLUMN IF NOT EXISTS key_id String;

ALTER TABLE sluice.attempts_log
    ADD COLUMN IF NOT EXISTS user String;

ALTER TABLE sluice.attempts_log
    ADD COLUMN IF NOT EXISTS counted DateTime64(3, 'UTC') DEFAULT job_ts COMMENT 'in whose period: infra.budgets.counted_ms';

-- Each correction of a counter in Redis, written before it is made and again when it is known to have been.
CREATE TABLE IF NOT EXISTS sluice.adjustments_log
(
    id       String,
    ts       DateTime64(3, 'UTC'),
    counter  String COMMENT 'spend:scope:period',
    was_usd  Decimal(18, 9) COMMENT 'in Redis',
    usd      Decimal(18, 9) COMMENT 'added to it; negative: taken away',
    was_tokens Int64,
    tokens   Int64,
    made     Bool COMMENT 'false: it is not known whether it was made',
    version  UInt8
)
ENGINE = ReplacingMergeTree(version)
ORDER BY id
SETTINGS non_replicated_deduplication_window = 10000, fsync_after_insert = 1, fsync_part_directory = 1;

CREATE VIEW IF NOT EXISTS sluice.adjustments AS
SELECT * EXCEPT (version)
FROM sluice.adjustments_log FINAL;
