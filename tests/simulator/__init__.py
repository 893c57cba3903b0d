"""A simulator of a job's whole way (RELIABILITY.md 5.13): real stages, carriage, router and scripts, in time that jumps."""
