"""What a router sees of its deployments, told through Redis to whoever shows it."""

from typing import Literal

from pydantic import Field

from schemas.base import Part

BreakerState = Literal["closed", "half_open", "open", "quarantined", "drained"]
"""It is asked; a few calls try it; it is left alone; its provider refuses our credential; an operator has taken it out."""


class DeploymentSeen(Part):
    """One deployment at one router: how it is, and what became of its calls within the last minute.

    `took`: how many calls that went well took how long, by bucket (infra/telemetry/minute.py). `limit`: calls at once that it may
    have from this router; None: any number.
    """

    id: str
    state: BreakerState = "closed"
    why: str = ""
    until_ms: int = 0
    calls: int = 0
    errors: int = 0
    took: dict[int, int] = Field(default_factory=dict[int, int])
    limit: int | None = None
    busy: int = 0


class RouterSeen(Part):
    """All deployments of which a router has something to tell."""

    deployments: tuple[DeploymentSeen, ...] = ()
