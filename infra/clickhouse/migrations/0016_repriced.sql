-- What attempts cost by another price than they were billed at: a pricing is one run of it, and each stays. The bill itself is never
-- changed. A pricing that has no line in `pricings_log` was broken off, and counts for nothing.
CREATE TABLE IF NOT EXISTS sluice.repriced_log
(
    pricing           String,
    attempt_id        String,
    job_id            String,
    ts                DateTime64(3, 'UTC') COMMENT 'start of the call',
    organization      LowCardinality(String),
    team              LowCardinality(String),
    model             LowCardinality(String),
    deployment        LowCardinality(String),
    provider          LowCardinality(String),
    old_price_version LowCardinality(String),
    price_version     LowCardinality(String),
    old_cost_usd      Decimal(18, 9) COMMENT 'as it was billed',
    cost_usd          Decimal(18, 9),
    margin_usd        Decimal(18, 9),
    at                DateTime64(3, 'UTC')
)
ENGINE = ReplacingMergeTree(at)
PARTITION BY toYYYYMM(ts)
ORDER BY (pricing, attempt_id)
SETTINGS non_replicated_deduplication_window = 10000, fsync_after_insert = 1, fsync_part_directory = 1;

CREATE TABLE IF NOT EXISTS sluice.pricings_log
(
    pricing   String,
    at        DateTime64(3, 'UTC'),
    actor     String,
    reason    String,
    begins    DateTime64(3, 'UTC') COMMENT 'of the calls, by when they began',
    ends      DateTime64(3, 'UTC'),
    model     String COMMENT 'only of this alias; empty: of all',
    changed   UInt64 COMMENT 'calls that cost something else now',
    old_usd   Decimal(38, 9) COMMENT 'of those, as billed',
    new_usd   Decimal(38, 9)
)
ENGINE = ReplacingMergeTree(at)
ORDER BY pricing
SETTINGS non_replicated_deduplication_window = 10000, fsync_after_insert = 1, fsync_part_directory = 1;

CREATE VIEW IF NOT EXISTS sluice.repriced AS
SELECT *
FROM sluice.repriced_log FINAL
WHERE pricing IN (SELECT pricing FROM sluice.pricings_log);

-- Each attempt as the latest pricing has it that changed it, beside what was billed.
CREATE VIEW IF NOT EXISTS sluice.attempts_repriced AS
SELECT
    a.* EXCEPT (cost_usd, price_version, margin_usd),
    a.cost_usd                                              AS billed_usd,
    if(r.pricing = '', a.cost_usd, r.cost_usd)              AS cost_usd,
    if(r.pricing = '', a.margin_usd, r.margin_usd)          AS margin_usd,
    if(r.pricing = '', a.price_version, r.price_version)    AS price_version,
    r.pricing                                               AS pricing
FROM sluice.attempts AS a
LEFT JOIN
(
    SELECT
        attempt_id,
        argMax(pricing, at)       AS pricing,
        argMax(cost_usd, at)      AS cost_usd,
        argMax(margin_usd, at)    AS margin_usd,
        argMax(price_version, at) AS price_version
    FROM sluice.repriced
    GROUP BY attempt_id
) AS r ON r.attempt_id = a.attempt_id;

-- The same as of one pricing: SELECT * FROM sluice.attempts_of_pricing(pricing = 'prc_…').
CREATE VIEW IF NOT EXISTS sluice.attempts_of_pricing AS
SELECT
    a.* EXCEPT (cost_usd, price_version, margin_usd),
    a.cost_usd                                              AS billed_usd,
    if(r.pricing = '', a.cost_usd, r.cost_usd)              AS cost_usd,
    if(r.pricing = '', a.margin_usd, r.margin_usd)          AS margin_usd,
    if(r.pricing = '', a.price_version, r.price_version)    AS price_version,
    r.pricing                                               AS pricing
FROM sluice.attempts AS a
LEFT JOIN (SELECT * FROM sluice.repriced WHERE pricing = {pricing:String}) AS r ON r.attempt_id = a.attempt_id;
