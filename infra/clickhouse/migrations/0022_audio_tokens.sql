-- All audio of a job or a call in one number, beside its two parts.
CREATE OR REPLACE VIEW sluice.usage AS
SELECT * EXCEPT (version), input_audio_tokens + output_audio_tokens AS audio_tokens
FROM sluice.usage_log FINAL
SETTINGS do_not_merge_across_partitions_select_final = 1;

CREATE OR REPLACE VIEW sluice.attempts AS
SELECT * EXCEPT (version, job_ts), input_audio_tokens + output_audio_tokens AS audio_tokens
FROM sluice.attempts_log FINAL
SETTINGS do_not_merge_across_partitions_select_final = 1;
