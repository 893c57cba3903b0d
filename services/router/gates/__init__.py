"""Dispatch gates: what holds batch jobs back, one file a gate."""
