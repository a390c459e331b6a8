"""The ledger of what a worker process holds: readable by another process whatever became of the writer."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest

from lineshaft.sdk.held_ledger import Activity, Entry, HeldLedger, Stepped, read_ledger, to_blame

HELD, WAITING, STEPPING, THREAD = Activity.HELD, Activity.WAITING, Activity.STEPPING, Activity.THREAD


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "held"
    HeldLedger.create(path, 3)
    return path


def test_what_is_held_and_what_runs_can_be_read(path: Path) -> None:
    ledger = HeldLedger(path)
    first, second = ledger.enter("a", "1-1", "resize"), ledger.enter("b" * 256, "1-2", "n" * 128)
    ledger.mark(second, THREAD)
    assert sorted(read_ledger(path), key=lambda entry: entry.task_id) == [
        Entry("a", "1-1", "resize", HELD),
        Entry("b" * 256, "1-2", "n" * 128, THREAD),
    ]
    ledger.mark(second, HELD)
    ledger.leave(first)
    assert read_ledger(path) == [Entry("b" * 256, "1-2", "n" * 128, HELD)]
    ledger.close()


def test_a_full_ledger_costs_nothing_but_the_record(path: Path) -> None:
    ledger = HeldLedger(path)
    slots = [ledger.enter(str(n), "t", "n") for n in range(4)]
    assert slots[-1] == -1
    ledger.mark(slots[-1], THREAD)
    ledger.leave(slots[-1])
    assert len(read_ledger(path)) == 3
    ledger.leave(slots[0])
    assert ledger.enter("again", "t", "n") >= 0
    ledger.close()


async def test_the_coroutine_that_takes_a_step_is_marked(path: Path) -> None:
    ledger = HeldLedger(path)
    seen: list[list[Activity]] = []

    def look() -> None:
        seen.append([entry.activity for entry in sorted(read_ledger(path), key=lambda entry: entry.task_id)])

    async def handler() -> None:
        look()
        await asyncio.sleep(0)
        look()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            look()

    slots = [ledger.enter(name, "t", "n") for name in ("a", "b")]
    tasks = [asyncio.create_task(Stepped(handler(), ledger, slot)) for slot in slots]
    for _ in range(3):
        await asyncio.sleep(0)
    look()
    tasks[0].cancel()
    await tasks[0]
    look()
    tasks[1].cancel()
    await tasks[1]
    assert seen == [
        [STEPPING, HELD], [WAITING, STEPPING], [STEPPING, WAITING], [WAITING, STEPPING],
        [WAITING, WAITING], [STEPPING, WAITING], [HELD, WAITING], [HELD, STEPPING],
    ]  # fmt: skip
    ledger.close()


def test_whose_code_ran_is_to_blame_and_where_none_did_all_that_had_begun() -> None:
    held, waiting, stepping, thread = (
        Entry(name.value, "t", "n", name) for name in (HELD, WAITING, STEPPING, THREAD)
    )
    assert to_blame([held, waiting, stepping, thread]) == [stepping, thread]
    assert to_blame([held, waiting, waiting]) == [waiting, waiting]
    assert to_blame([held]) == []


@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
def test_a_killed_process_leaves_its_record(path: Path) -> None:
    child = os.fork()
    if child == 0:
        ledger = HeldLedger(path)
        ledger.mark(ledger.enter("a", "1-1", "resize"), STEPPING)
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    assert read_ledger(path) == [Entry("a", "1-1", "resize", STEPPING)]
    HeldLedger.create(path, 3)
    assert read_ledger(path) == []
