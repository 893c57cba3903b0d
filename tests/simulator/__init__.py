"""A deterministic simulator of the whole way of a job: the real stages, carriage, router and scripts, in virtual time (RELIABILITY.md 5.13)."""
