"""Reports for who pays: what was used and what it cost, by whom, in which period. All sums are ClickHouse's, in Decimal."""
