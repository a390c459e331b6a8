"""Every seed is one run of the whole coordinator under faults; and the simulator itself can be trusted."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.simulation.many import Result, run_many, run_some
from tests.simulation.run import Broken, simulate

ROOT = Path(__file__).parents[2]
HAPPENS = {
    "client: repeated everything",
    "coordinator: closed",
    "coordinator: crashed",
    "coordinator: crashed in the middle of a commit",
    "coordinator: crashed while its commit was on the way",
    "coordinator: cut off while others go on",
    "coordinator: cut off and taken over from",
    "coordinator: frozen",
    "coordinator: lost shards while frozen",
    "coordinator: taken over from while frozen",
    "fleet: several coordinators",
    "fleet: several shards",
    "judge: leases that were lost",
    "judge: of them, after a stall, a standstill or a load",
    "request: duplicated",
    "request: forwarded",
    "request: found by a thawed coordinator",
    "request: hung_up",
    "request: overtaken",
    "request: reply_lost",
    "request: request_lost",
    "roster: swap_late",
    "roster: swap_lost",
    "roster: swapped late",
    "store: answer_lost",
    "store: answered_twice",
    "store: failed over",
    "store: fence",
    "store: lost the end of its history",
    "store: refused",
    "store: rejected for good",
    "store: stall",
    "store: timed out, and applied later",
    "store: timed out, and refused later",
    "store: unreadable",
    "wall clock: jumped back",
    "wall clock: jumped forward",
    "watched: followers of the feed",
    "watched: parked claims",
    "watched: waits for an end",
    "worker: changed its mind after an outcome",
    "worker: died",
    "worker: frozen past its lease",
    "worker: poisoned",
    "worker: reported again",
    "worker: told that its lease is lost",
}


class Runs:
    """The outcome of each seed, from all processors where there are many."""

    def __init__(self, seeds: range) -> None:
        self._known = Result()
        # A few, or tests that are spread over processes already, run right here.
        here = len(seeds) <= 100 or "PYTEST_XDIST_WORKER" in os.environ
        self._portions = None if here else run_many(seeds)

    def require(self, seed: int) -> None:
        """Raise what was broken by a seed."""
        if self._portions is None:
            simulate(seed)
            return
        known = self._known
        while seed not in known.seeds:
            known.add(next(self._portions))
        if seed in known.broken:
            raise Broken(known.broken[seed]) from (RuntimeError() if seed in known.crashed else None)


@pytest.fixture(scope="module")
def runs(request: pytest.FixtureRequest) -> Runs:
    first, count = request.config.getoption("--seed"), request.config.getoption("--seeds")
    return Runs(range(first, first + count))


@pytest.mark.no_cover  # it would take three times as long; what it reaches others reach, too
@pytest.mark.timeout(600)
def test_every_promise_holds(runs: Runs, seed: int) -> None:
    runs.require(seed)


def test_every_kind_of_trouble_really_happens() -> None:
    """Over a few seeds already; what never happens would prove nothing."""
    result, missing = Result(), set(HAPPENS)
    for portion in run_many(range(120)):
        result.add(portion)
        missing -= set(result.tally)
        if not missing:
            break
    assert not missing


def test_the_same_seed_goes_the_same_way() -> None:
    for seed in (3, 11):
        assert simulate(seed) == simulate(seed)


def test_nothing_depends_on_the_order_of_hashes() -> None:
    """Another process with other hashes tells the same story, or a seed could not be seen again."""
    program = "from tests.simulation.run import simulate; print([simulate(seed) for seed in (3, 11, 12)])"
    told = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": hashes},
            cwd=ROOT,
            capture_output=True,
            check=True,
        ).stdout
        for hashes in ("1", "2")
    }
    assert len(told) == 1


def test_one_command_shows_a_seed_again() -> None:
    command = [sys.executable, "-m", "tests.simulation", "--seed", "3", "--trace"]
    shown = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert "sends commit 1 under epoch" in shown
    assert simulate(3).digest in shown


def test_a_failing_seed_names_the_commands_that_show_it(monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.simulation.checker import Checker

    monkeypatch.setattr(Checker, "committed", lambda self, ownership, batch: self.violated("[1] planted"))
    [(seed, told)] = run_some([3]).broken.items()
    assert seed == 3
    assert "python -m tests.simulation --seed 3 --trace" in told
    assert "python -m tests.simulation --seed 3 --shrink" in told
