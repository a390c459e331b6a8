"""Try the mutants of the heart: `python -m tests.mutants`, one by `--only NAME`, their names by `--list`.

`--survey` asks of each mutant which whole suites notice it, and prints the table of docs/reliability.md.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from queue import Queue
from typing import TypeVar

from tests.mutants.heart import MUTANTS
from tests.mutants.mutant import Misfit, Mutant
from tests.mutants.survey import SUITES, row, survey
from tests.mutants.trial import Trial, Verdict, Workshop

Found = TypeVar("Found")


def main() -> int:
    """Do what the command line says; 1 where a mutant was not caught."""
    options = _options()
    mutants = [mutant for mutant in MUTANTS if not options.only or mutant.name in options.only]
    if unknown := set(options.only) - {mutant.name for mutant in MUTANTS}:
        print(f"no such mutant: {', '.join(sorted(unknown))} (--list names them)", file=sys.stderr)
        return 2
    if options.list:
        for mutant in mutants:
            print(f"{mutant.name:44} {mutant.breaks}")
        return 0
    return _survey(mutants, options) if options.survey else _try(mutants, jobs=options.jobs)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.mutants",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--only", metavar="NAME", action="append", default=[], help="try this one (again: and this)"
    )
    parser.add_argument("--jobs", type=int, default=2, help="how many at a time (default 2)")
    parser.add_argument("--list", action="store_true", help="name them, and what each breaks")
    parser.add_argument("--survey", action="store_true", help="which suites catch each; takes long")
    parser.add_argument(
        "--seeds", type=int, default=200, help="seeds of the simulator in the survey (default 200)"
    )
    parser.add_argument(
        "--suite", action="append", choices=sorted(SUITES), help="survey this suite only (again: and this)"
    )
    return parser.parse_args()


def _try(mutants: Sequence[Mutant], *, jobs: int) -> int:
    began = time.monotonic()
    if not _is_sound(mutants):
        return 1
    missed = 0
    for mutant, trial in _each(mutants, Workshop.run, jobs=jobs):
        missed += trial.verdict is not Verdict.CAUGHT
        print(f"{trial.verdict.value:9} {mutant.name:44} {_short(trial)}", flush=True)
    took = time.monotonic() - began
    print(f"{len(mutants)} mutants, {len(mutants) - missed} caught, {missed} not; {took:.0f} s")
    return 1 if missed else 0


def _survey(mutants: Sequence[Mutant], options: argparse.Namespace) -> int:
    suites = options.suite or list(SUITES)

    def work(workshop: Workshop, mutant: Mutant) -> dict[str, Trial]:
        return survey(workshop, mutant, suites, seeds=options.seeds)

    for mutant, found in _each(mutants, work, jobs=options.jobs):
        print(row(mutant, found), flush=True)
        for suite, trial in found.items():
            print(
                f"    {suite}: {trial.verdict.value} {_short(trial)} ({trial.seconds:.0f} s)",
                file=sys.stderr,
                flush=True,
            )
    return 0


def _is_sound(mutants: Sequence[Mutant]) -> bool:
    """A failure says something about a mutant only where its tests pass without it."""
    tests = dict.fromkeys(f"tests/{test}" for mutant in mutants for test in mutant.caught_by)
    with Workshop() as workshop:
        trial = workshop.run(None, list(tests))
    if trial.verdict is Verdict.SURVIVED:
        return True
    print(f"without any mutant: {trial.verdict.value} {_short(trial)}", file=sys.stderr)
    return False


def _each(
    mutants: Sequence[Mutant], work: Callable[[Workshop, Mutant], Found], *, jobs: int
) -> Iterator[tuple[Mutant, Found]]:
    with ExitStack() as stack, ThreadPoolExecutor(max_workers=jobs) as pool:
        workshops: Queue[Workshop] = Queue()
        for _ in range(jobs):
            workshops.put(stack.enter_context(Workshop()))

        def in_a_workshop(mutant: Mutant) -> Found:
            workshop = workshops.get()
            try:
                return work(workshop, mutant)
            finally:
                workshops.put(workshop)

        yield from zip(mutants, pool.map(in_a_workshop, mutants), strict=True)


def _short(trial: Trial) -> str:
    test = trial.test.removeprefix("tests/")
    return f"{test}: {trial.told}" if test else trial.told


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Misfit as misfit:
        sys.exit(f"{misfit}; mend the mutant in tests/mutants/heart")
