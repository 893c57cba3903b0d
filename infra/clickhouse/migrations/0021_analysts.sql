-- Who may ask as an analyst, for the embedded ClickHouse, which can't keep users of its own; accounting writes it from the
-- control topic. Passwords are there as SHA-256 of long random ones.
CREATE TABLE IF NOT EXISTS sluice.analysts
(
    name         String,
    sha256       String COMMENT 'empty: revoked',
    organization String,
    only         Array(String) COMMENT 'teams it is kept to; empty: all',
    teams        Array(String) COMMENT 'all teams that it sees',
    version      UInt64 COMMENT 'unix milliseconds'
)
ENGINE = ReplacingMergeTree(version)
ORDER BY name
SETTINGS non_replicated_deduplication_window = 10000, fsync_after_insert = 1, fsync_part_directory = 1;
