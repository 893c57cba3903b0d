"""`python -m services.cli`: the same as `sluice`."""

from services.cli import main

if __name__ == "__main__":
    main()
