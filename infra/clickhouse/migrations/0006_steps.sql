-- The timeline of a job: its acceptance and its end to the millisecond, who ended it, and when each stage took it.
-- `ts` is when a job was born, by its id: for a record of the Kafka door, the time that its publisher gave it.
-- Rows of before have what can be told from their other columns, and no steps.
ALTER TABLE sluice.usage_log
    ADD COLUMN IF NOT EXISTS accepted DateTime64(3, 'UTC') DEFAULT ts COMMENT 'admission';

ALTER TABLE sluice.usage_log
    ADD COLUMN IF NOT EXISTS ended DateTime64(3, 'UTC') DEFAULT ts + toIntervalMillisecond(toInt64(latency_ms));

ALTER TABLE sluice.usage_log
    ADD COLUMN IF NOT EXISTS ended_by LowCardinality(String) COMMENT 'the stage';

ALTER TABLE sluice.usage_log
    ADD COLUMN IF NOT EXISTS steps Array(Tuple(stage String, at DateTime64(3, 'UTC'))) COMMENT 'when each stage took the job';

CREATE OR REPLACE VIEW sluice.usage AS
SELECT * EXCEPT (version)
FROM sluice.usage_log FINAL
SETTINGS do_not_merge_across_partitions_select_final = 1;
