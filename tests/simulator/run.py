"""One world by its seed, in a loop of its own."""

import asyncio
import logging

from tests.fakes.clock import VirtualLoop
from tests.simulator.chaos import Weather
from tests.simulator.check import Report
from tests.simulator.world import JOBS, World


def run(seed: int, weather: Weather | None = None, jobs: int = JOBS) -> Report:
    """Lives through a world. Raises AssertionError, which tells the seed and what doesn't hold."""

    async def live() -> Report:
        world = World(seed, weather, jobs)
        try:
            return await world.run()
        except AssertionError as wrong:
            raise AssertionError(f"seed {seed}, {world.shape}, {world.chaos.weather}: {wrong}") from None

    # What services say of all that goes wrong here is long, and writing it costs more than the work.
    logging.disable(logging.CRITICAL)
    try:
        with asyncio.Runner(loop_factory=VirtualLoop) as runner:
            return runner.run(live())
    finally:
        logging.disable(logging.NOTSET)
