"""The ledger of what a worker process holds: readable by another process whatever became of the writer."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from lineshaft.sdk.held_ledger import Entry, HeldLedger, read_ledger


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "held"
    HeldLedger.create(path, 3)
    return path


def test_what_is_held_and_what_runs_can_be_read(path: Path) -> None:
    ledger = HeldLedger(path)
    first, second = ledger.enter("a", "1-1", "resize"), ledger.enter("b" * 256, "1-2", "n" * 128)
    ledger.running(second, True)
    assert sorted(read_ledger(path), key=lambda entry: entry.task_id) == [
        Entry("a", "1-1", "resize", False),
        Entry("b" * 256, "1-2", "n" * 128, True),
    ]
    ledger.running(second, False)
    ledger.leave(first)
    assert read_ledger(path) == [Entry("b" * 256, "1-2", "n" * 128, False)]
    ledger.close()


def test_a_full_ledger_costs_nothing_but_the_record(path: Path) -> None:
    ledger = HeldLedger(path)
    slots = [ledger.enter(str(n), "t", "n") for n in range(4)]
    assert slots[-1] == -1
    ledger.running(slots[-1], True)
    ledger.leave(slots[-1])
    assert len(read_ledger(path)) == 3
    ledger.leave(slots[0])
    assert ledger.enter("again", "t", "n") >= 0
    ledger.close()


@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
def test_a_killed_process_leaves_its_record(path: Path) -> None:
    child = os.fork()
    if child == 0:
        ledger = HeldLedger(path)
        ledger.running(ledger.enter("a", "1-1", "resize"), True)
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    assert read_ledger(path) == [Entry("a", "1-1", "resize", True)]
    HeldLedger.create(path, 3)
    assert read_ledger(path) == []
