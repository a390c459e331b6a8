"""Every seed is one run of the whole coordinator under faults; and the simulator itself can be trusted."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.simulation.run import simulate

ROOT = Path(__file__).parents[2]


def test_every_promise_holds(seed: int) -> None:
    simulate(seed)


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
    assert "commit 1 of epoch" in shown
    assert simulate(3).digest in shown
