"""The real parts (Kafka, Redis, ClickHouse) started on one machine, for `sluice up` and for tests."""
