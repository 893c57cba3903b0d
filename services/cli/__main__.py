"""`python -m services.cli`: the same as `sluice`."""

from services.cli import main

main()
