"""Run the simulator over many seeds; or one, to see what happened: all of it, or shrunk to a short story."""

from __future__ import annotations

import argparse
import logging
import sys
import time

from tests.simulation.draw import draw
from tests.simulation.many import Result, run_many
from tests.simulation.run import Broken, simulate
from tests.simulation.story import story_of


def main() -> int:
    """Run the seeds that the command line names; 1 where a promise was broken."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seed", type=int, help="run this one seed only")
    parser.add_argument("--trace", action="store_true", help="with --seed: print what happens, line by line")
    parser.add_argument(
        "--shrink", action="store_true", help="with --seed: make it smaller and tell the story"
    )
    parser.add_argument(
        "--seconds", type=float, default=60.0, help="how long shrinking may take (default 60)"
    )
    parser.add_argument("--seeds", type=int, default=200, help="how many seeds (default 200)")
    parser.add_argument("--start", type=int, default=0, help="the first of them (default 0)")
    parser.add_argument("--jobs", type=int, help="in how many processes (default: one for each processor)")
    parser.add_argument("--keep-going", action="store_true", help="do not stop at the first broken seed")
    options = parser.parse_args()
    logging.disable(logging.CRITICAL)
    if options.seed is None:
        seeds = range(options.start, options.start + options.seeds)
        return many(seeds, jobs=options.jobs, keep_going=options.keep_going)
    if options.shrink:
        return shrink(options.seed, seconds=options.seconds)
    return one(options.seed, loud=options.trace)


def one(seed: int, *, loud: bool) -> int:
    """Run a seed and print what it was like."""
    try:
        summary = simulate(seed, loud=loud)
    except Broken as error:
        print(error, file=sys.stderr)
        return 1
    print(summary)
    return 0


def shrink(seed: int, *, seconds: float) -> int:
    """Print the story of a failing seed."""
    shrunk = story_of(draw(seed), seconds=seconds)
    if shrunk is None:
        print(f"seed {seed} keeps every promise")
        return 0
    shrinker, story = shrunk
    plan = shrinker.plan
    steps = sum(len(client.steps) for client in plan.clients)
    print(
        f"seed {seed}, shrunk in {shrinker.runs} runs to {len(plan.clients)} clients with {steps} steps, "
        f"{len(plan.workers)} workers, {len(plan.mishaps) + len(plan.jumps) + len(plan.pauses)} mishaps, "
        f"{len(plan.only or ())} choices of chance:"
    )
    print("\n".join(story))
    return 1


def many(seeds: range, *, jobs: int | None, keep_going: bool) -> int:
    """Run seeds, and print what went wrong in them on purpose and otherwise."""
    began, whole, said = time.monotonic(), Result(), 0
    for result in run_many(seeds, jobs=jobs):
        whole.add(result)
        for told in result.broken.values():
            print(told, file=sys.stderr, flush=True)
        if whole.broken and not keep_going:
            break
        if len(whole.seeds) // 1000 > said:
            said = len(whole.seeds) // 1000
            print(f"{len(whole.seeds)} of {len(seeds)} seeds: {len(whole.broken)} broken", flush=True)
    for kind, count in sorted(whole.tally.items()):
        print(f"{count:10} {kind}")
    took = time.monotonic() - began
    print(
        f"{len(whole.seeds)} seeds, {len(whole.broken)} broken; {whole.commits} commits, "
        f"{whole.seconds / 3600:.1f} h in {took:.1f} s"
    )
    return 1 if whole.broken else 0


if __name__ == "__main__":
    sys.exit(main())
