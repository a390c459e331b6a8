"""Run the simulator: `python -m tests.simulation --seeds 5000 --start 0`, or one seed with its trace."""

from __future__ import annotations

import argparse
import logging
import sys
import time

from tests.simulation.run import Broken, simulate


def main() -> int:
    """Run the seeds that the command line names; 1 where a promise was broken."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seed", type=int, help="run this one seed only")
    parser.add_argument("--seeds", type=int, default=200, help="how many seeds (default 200)")
    parser.add_argument("--start", type=int, default=0, help="the first of them (default 0)")
    parser.add_argument("--trace", action="store_true", help="print what happens, line by line")
    parser.add_argument("--keep-going", action="store_true", help="do not stop at the first broken seed")
    options = parser.parse_args()
    logging.disable(logging.CRITICAL)
    seeds = range(options.start, options.start + options.seeds) if options.seed is None else [options.seed]
    began, broken, commits, virtual = time.monotonic(), 0, 0, 0.0
    for seed in seeds:
        try:
            summary = simulate(seed, loud=options.trace)
        except Broken as error:
            broken += 1
            print(error, file=sys.stderr)
            if not options.keep_going:
                return 1
            continue
        commits, virtual = commits + summary.commits, virtual + summary.seconds
        if len(seeds) == 1:
            print(summary)
        elif (seed + 1) % 500 == 0:
            print(f"up to seed {seed}: {broken} broken", flush=True)
    took = time.monotonic() - began
    print(f"{len(seeds)} seeds, {broken} broken; {commits} commits, {virtual / 3600:.1f} h in {took:.1f} s")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
