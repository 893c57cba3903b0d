"""Many worlds: `python -m tests.simulator --seeds 1000 [--first 0] [--jobs 40]`. Ends with 1 if one of them went wrong."""

import argparse
import sys
import time

from tests.simulator.run import run
from tests.simulator.world import JOBS


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.simulator", description=__doc__)
    parser.add_argument("--seeds", type=int, default=100, help="how many worlds")
    parser.add_argument("--first", type=int, default=0, help="the seed of the first")
    parser.add_argument("--jobs", type=int, default=JOBS, help="jobs in each")
    asked = parser.parse_args()
    began, steps, jobs, again, told, otherwise, wrong = time.perf_counter(), 0, 0, 0, 0, 0, 0
    for seed in range(asked.first, asked.first + asked.seeds):
        try:
            report = run(seed, jobs=asked.jobs)
        except AssertionError as error:
            wrong += 1
            print(error, flush=True)
            continue
        steps += report.steps
        jobs += report.accepted
        again += report.called_again
        told += report.told_again
        otherwise += report.ended_otherwise
    took_s = time.perf_counter() - began
    print(f"{asked.seeds} worlds, {wrong} of them wrong: {steps} steps in {took_s:.1f} s, {steps / took_s:.0f} a second")
    print(f"{jobs} jobs were accepted: {again} called for again, {told} told again, {otherwise} ended twice and not alike")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
