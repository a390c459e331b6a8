"""Many seeds, spread over processes."""

from __future__ import annotations

import gc
import logging
import multiprocessing
import os
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field

from tests.simulation.run import Broken, simulate

_PORTION = 10


@dataclass
class Result:
    """What some runs came to."""

    seeds: list[int] = field(default_factory=list)
    broken: dict[int, str] = field(default_factory=dict)
    """Seed → which promise was broken, and how to see it again."""
    crashed: set[int] = field(default_factory=set)
    """Those of the broken that ended by an exception which is no judgement."""
    commits: int = 0
    seconds: float = 0.0
    """Virtual."""
    tally: Counter[str] = field(default_factory=Counter)
    """What really went wrong, and how often."""

    def add(self, other: Result) -> None:
        """Count another's runs in."""
        self.seeds += other.seeds
        self.crashed |= other.crashed
        self.broken.update(other.broken)
        self.commits += other.commits
        self.seconds += other.seconds
        self.tally.update(other.tally)


def run_some(seeds: list[int]) -> Result:
    """Run seeds in this process."""
    logging.disable(logging.CRITICAL)
    result, thresholds = Result(seeds=seeds), gc.get_threshold()
    # What a run leaves behind is collected after it, not again and again in the midst of it.
    gc.set_threshold(200_000, 20, 20)
    try:
        for seed in seeds:
            try:
                summary = simulate(seed)
            except Broken as error:
                result.broken[seed] = str(error)
                if not isinstance(error.__cause__, AssertionError):
                    result.crashed.add(seed)
            else:
                result.commits += summary.commits
                result.seconds += summary.seconds
                result.tally.update(summary.tally)
            gc.collect()
    finally:
        gc.set_threshold(*thresholds)
        logging.disable(logging.NOTSET)
    return result


def run_many(seeds: range, *, jobs: int | None = None) -> Iterator[Result]:
    """Run seeds in several processes (as many as there are processors); yields what each portion came to."""
    jobs = jobs or os.cpu_count() or 1
    # Small portions, for some seeds take ten times as long as others.
    size = max(1, min(_PORTION, len(seeds) // (4 * jobs)))
    portions = [list(seeds[start : start + size]) for start in range(0, len(seeds), size)]
    if jobs == 1 or len(portions) == 1:
        yield from map(run_some, portions)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(jobs, len(portions)), mp_context=context) as pool:
        waiting = [pool.submit(run_some, portion) for portion in portions]
        try:
            for done in as_completed(waiting):
                yield done.result()
        finally:
            for future in waiting:
                future.cancel()
