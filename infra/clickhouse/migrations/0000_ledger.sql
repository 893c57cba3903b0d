-- Run at every start, before the others: where it is written down which of them have been applied.
CREATE DATABASE IF NOT EXISTS sluice;

CREATE TABLE IF NOT EXISTS sluice.migrations
(
    number     UInt32,
    name       String,
    sha256     String,
    applied_at DateTime64(3, 'UTC') DEFAULT now64(3)
)
ENGINE = ReplacingMergeTree
ORDER BY number;
