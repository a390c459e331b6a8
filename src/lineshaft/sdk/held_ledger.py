"""What a worker process holds, written where its supervisor can read it after the process has died.

A file mapped into memory, one slot a task: writing costs no system call, nothing is buffered in the process,
and a crash at any instant leaves every slot either readable or empty, because its length is written last.

It also tells whose code was running at that instant. Of the coroutines of one event loop only one takes a
step at a time, and marks it; functions in threads run all the while.
"""

from __future__ import annotations

import enum
import mmap
import os
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import msgspec

SLOT = 1024
_EMPTY = b"\x00\x00"


class Activity(enum.Enum):
    """What a held task was doing; the value is its mark in the ledger."""

    HELD = b"H"
    """Nothing: it waits to begin, or for its outcome to be delivered."""
    WAITING = b"W"
    """Its coroutine waits for something."""
    STEPPING = b"S"
    """Its coroutine is running, the only one at this instant."""
    THREAD = b"T"
    """Its function runs in a thread."""


class Entry(msgspec.Struct, frozen=True):
    """A task that a process held."""

    task_id: str
    lease_token: str
    name: str
    activity: Activity


class HeldLedger:
    """The side of the worker process: takes `slots` tasks at most, what is more goes unrecorded."""

    def __init__(self, path: Path) -> None:
        with path.open("r+b") as file:
            self._memory = mmap.mmap(file.fileno(), 0)
        self._free = list(range(len(self._memory) // SLOT))

    @staticmethod
    def create(path: Path, slots: int) -> None:
        """Make an empty ledger of `slots` at `path`; an old one is emptied."""
        with path.open("wb") as file:
            os.truncate(file.fileno(), max(1, slots) * SLOT)

    def enter(self, task_id: str, lease_token: str, name: str) -> int:
        """Record a task as held; the slot is for the calls that follow, -1 where there is none left."""
        data = f"{task_id}\0{lease_token}\0{name}".encode()
        if not self._free or len(data) > SLOT - 3:
            return -1
        slot = self._free.pop()
        at = slot * SLOT
        self._memory[at + 2 : at + 3] = Activity.HELD.value
        self._memory[at + 3 : at + 3 + len(data)] = data
        self._memory[at : at + 2] = len(data).to_bytes(2, "little")
        return slot

    def mark(self, slot: int, activity: Activity) -> None:
        """Record what a task is doing now."""
        if slot >= 0:
            at = slot * SLOT + 2
            self._memory[at : at + 1] = activity._value_

    def leave(self, slot: int) -> None:
        """Record that the task is no longer held."""
        if slot >= 0:
            self._memory[slot * SLOT : slot * SLOT + 2] = _EMPTY
            self._free.append(slot)

    def close(self) -> None:
        """Unmap the file."""
        self._memory.close()


class Stepped(Coroutine[Any, Any, None]):
    """A coroutine whose steps are marked in the ledger; asyncio runs it like any other."""

    __slots__ = ("_ledger", "_slot", "_work")

    def __init__(self, work: Coroutine[Any, Any, None], ledger: HeldLedger, slot: int) -> None:
        self._work = work
        self._ledger = ledger
        self._slot = slot

    def send(self, value: Any) -> Any:
        """Take a step."""
        return self._step(self._work.send, value)

    def throw(self, *error: Any) -> Any:
        """Take a step that begins with an error."""
        return self._step(self._work.throw, *error)

    def close(self) -> None:
        """End it."""
        self._work.close()

    def __await__(self) -> Any:
        return self._work.__await__()

    def _step(self, step: Callable[..., Any], *arguments: Any) -> Any:
        self._ledger.mark(self._slot, Activity.STEPPING)
        try:
            awaited = step(*arguments)
        except BaseException:  # it was the last step
            self._ledger.mark(self._slot, Activity.HELD)
            raise
        self._ledger.mark(self._slot, Activity.WAITING)
        return awaited


def read_ledger(path: Path) -> list[Entry]:
    """Read what the process held when it died (the side of the supervisor)."""
    data = path.read_bytes()
    found: list[Entry] = []
    for at in range(0, len(data), SLOT):
        length = int.from_bytes(data[at : at + 2], "little")
        parts = data[at + 3 : at + 3 + length].decode("utf-8", "replace").split("\0")
        if length and len(parts) == 3:
            task_id, token, name = parts
            found.append(Entry(task_id, token, name, Activity(data[at + 2 : at + 3])))
    return found


def to_blame(held: list[Entry]) -> list[Entry]:
    """Give the tasks whose code was running when the process died.

    Where none was (a task that a handler has started itself may have done it), all that had begun.
    """
    running = [one for one in held if one.activity in (Activity.STEPPING, Activity.THREAD)]
    return running or [one for one in held if one.activity is Activity.WAITING]
