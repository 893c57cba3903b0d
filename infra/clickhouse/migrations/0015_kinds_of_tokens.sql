-- The kinds of tokens that have prices of their own, and what is charged by the call; of an attempt also by which price, so that
-- its cost can be worked out again.
ALTER TABLE sluice.usage_log
    ADD COLUMN IF NOT EXISTS input_audio_tokens UInt64 COMMENT 'a part of prompt_tokens';

ALTER TABLE sluice.usage_log
    ADD COLUMN IF NOT EXISTS input_image_tokens UInt64 COMMENT 'a part of prompt_tokens';

ALTER TABLE sluice.usage_log
    ADD COLUMN IF NOT EXISTS cached_audio_tokens UInt64 COMMENT 'a part of cached_tokens and of input_audio_tokens';

ALTER TABLE sluice.usage_log
    ADD COLUMN IF NOT EXISTS output_audio_tokens UInt64 COMMENT 'a part of completion_tokens';

ALTER TABLE sluice.usage_log
    ADD COLUMN IF NOT EXISTS output_image_tokens UInt64 COMMENT 'a part of completion_tokens';

ALTER TABLE sluice.usage_log
    ADD COLUMN IF NOT EXISTS rejected_prediction_tokens UInt64 COMMENT 'a part of completion_tokens';

ALTER TABLE sluice.usage_log
    ADD COLUMN IF NOT EXISTS web_searches UInt32;

ALTER TABLE sluice.usage_log
    ADD COLUMN IF NOT EXISTS storage_searches UInt32;

ALTER TABLE sluice.usage_log
    ADD COLUMN IF NOT EXISTS code_executions UInt32;

ALTER TABLE sluice.usage_log
    ADD COLUMN IF NOT EXISTS audio_ms UInt64 COMMENT 'length of audio, where that is charged';

ALTER TABLE sluice.usage_log
    ADD COLUMN IF NOT EXISTS margin_usd Decimal(18, 9) COMMENT 'the part of cost_usd that is the house''s and not the provider''s';

ALTER TABLE sluice.attempts_log
    ADD COLUMN IF NOT EXISTS input_audio_tokens UInt64 COMMENT 'a part of prompt_tokens';

ALTER TABLE sluice.attempts_log
    ADD COLUMN IF NOT EXISTS input_image_tokens UInt64 COMMENT 'a part of prompt_tokens';

ALTER TABLE sluice.attempts_log
    ADD COLUMN IF NOT EXISTS cached_audio_tokens UInt64 COMMENT 'a part of cached_tokens and of input_audio_tokens';

ALTER TABLE sluice.attempts_log
    ADD COLUMN IF NOT EXISTS output_audio_tokens UInt64 COMMENT 'a part of completion_tokens';

ALTER TABLE sluice.attempts_log
    ADD COLUMN IF NOT EXISTS output_image_tokens UInt64 COMMENT 'a part of completion_tokens';

ALTER TABLE sluice.attempts_log
    ADD COLUMN IF NOT EXISTS rejected_prediction_tokens UInt64 COMMENT 'a part of completion_tokens';

ALTER TABLE sluice.attempts_log
    ADD COLUMN IF NOT EXISTS web_searches UInt32;

ALTER TABLE sluice.attempts_log
    ADD COLUMN IF NOT EXISTS storage_searches UInt32;

ALTER TABLE sluice.attempts_log
    ADD COLUMN IF NOT EXISTS code_executions UInt32;

ALTER TABLE sluice.attempts_log
    ADD COLUMN IF NOT EXISTS audio_ms UInt64 COMMENT 'length of audio, where that is charged';

ALTER TABLE sluice.attempts_log
    ADD COLUMN IF NOT EXISTS margin_usd Decimal(18, 9) COMMENT 'the part of cost_usd that is the house''s and not the provider''s';

ALTER TABLE sluice.attempts_log
    ADD COLUMN IF NOT EXISTS price_version LowCardinality(String);

ALTER TABLE sluice.attempts_log
    ADD COLUMN IF NOT EXISTS service_tier LowCardinality(String) COMMENT 'as the answer says';

CREATE OR REPLACE VIEW sluice.usage AS
SELECT * EXCEPT (version)
FROM sluice.usage_log FINAL
SETTINGS do_not_merge_across_partitions_select_final = 1;

CREATE OR REPLACE VIEW sluice.attempts AS
SELECT * EXCEPT (version, job_ts)
FROM sluice.attempts_log FINAL
SETTINGS do_not_merge_across_partitions_select_final = 1;
