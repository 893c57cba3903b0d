-- By which rules the guard looked. And where in the log a time is found: the log is ordered by job_id, which grows with
-- time but is no time, so each granule says from when to when its rows are. What is not sealed (0011) is read by it.
ALTER TABLE sluice.usage_log
    ADD COLUMN IF NOT EXISTS guard_version LowCardinality(String) COMMENT 'rules of the guard; empty: it did not look';

ALTER TABLE sluice.usage_log
    ADD INDEX IF NOT EXISTS ts_minmax ts TYPE minmax GRANULARITY 1;

ALTER TABLE sluice.usage_log
    MATERIALIZE INDEX ts_minmax;

CREATE OR REPLACE VIEW sluice.usage AS
SELECT * EXCEPT (version)
FROM sluice.usage_log FINAL
SETTINGS do_not_merge_across_partitions_select_final = 1;
