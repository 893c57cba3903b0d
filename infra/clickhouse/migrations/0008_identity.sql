-- Who asked, where an identity token came with the request: the key says who pays.
ALTER TABLE sluice.usage_log
    ADD COLUMN IF NOT EXISTS identity String COMMENT 'identity provider:subject';

CREATE OR REPLACE VIEW sluice.usage AS
SELECT * EXCEPT (version)
FROM sluice.usage_log FINAL
SETTINGS do_not_merge_across_partitions_select_final = 1;
