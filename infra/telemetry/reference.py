"""docs/metrics.md, from the registry: `python -m infra.telemetry.reference` writes it, a test compares it."""

from pathlib import Path
from typing import Final

from infra.telemetry.metrics import REGISTRY

PAGE: Final = Path(__file__).parents[2] / "docs" / "metrics.md"

_HEAD: Final = """# Metrics

Every process serves its own at `/metrics`, in Prometheus' text format; how to collect them: [observability](observability.md).
This page is made from the code by `python -m infra.telemetry.reference`.

Labels come from bounded sets: teams, models and deployments of the configuration (at most 1,000 teams and 1,000 models, then
`other`), never a user, a key, a job, or what a caller wrote. Histograms have `_bucket`, `_sum` and `_count`.

| metric | kind | labels | meaning |
| --- | --- | --- | --- |
"""


def page() -> str:
    """The page as it should be."""
    return _HEAD + "".join(sorted(map(_line, REGISTRY._collector_to_names)))  # pyright: ignore[reportPrivateUsage]


def _line(metric: object) -> str:
    name, kind = getattr(metric, "_name", ""), getattr(metric, "_type", "")
    labels = ", ".join(f"`{label}`" for label in getattr(metric, "_labelnames", ()))
    full = f"{name}_total" if kind == "counter" else name
    return f"| `{full}` | {kind} | {labels} | {getattr(metric, '_documentation', '')} |\n"


if __name__ == "__main__":
    PAGE.write_text(page())
