"""What Sluice costs, measured from outside; and the mock provider that benchmarks and tests share."""
