-- Many small blocks arrive here. By default ClickHouse merges the great part with the two or three newest small ones,
-- again and again, and spends as much on that as on the inserts (it leaves out all further parts that are small beside
-- the great one). Here a merge waits for twenty parts and takes all of them; FINAL reads so many small parts in no time.
ALTER TABLE sluice.usage_log
    MODIFY SETTING min_parts_to_merge_at_once = 20, merge_selector_enable_heuristic_to_remove_small_parts_at_right = 0;

ALTER TABLE sluice.attempts_log
    MODIFY SETTING min_parts_to_merge_at_once = 20, merge_selector_enable_heuristic_to_remove_small_parts_at_right = 0;
