"""What a worker process holds, written where its supervisor can read it after the process has died.

A file mapped into memory, one slot a task: writing costs no system call, nothing is buffered in the process,
and a crash at any instant leaves every slot either readable or empty, because its length is written last.
"""

from __future__ import annotations

import mmap
import os
from pathlib import Path

import msgspec

SLOT = 1024
_EMPTY = b"\x00\x00"
_HELD = b"H"
_RUNNING = b"R"


class Entry(msgspec.Struct, frozen=True):
    """A task that a process held; `running` tells whether its handler was at work."""

    task_id: str
    lease_token: str
    name: str
    running: bool


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
        self._memory[at + 2 : at + 3] = _HELD
        self._memory[at + 3 : at + 3 + len(data)] = data
        self._memory[at : at + 2] = len(data).to_bytes(2, "little")
        return slot

    def running(self, slot: int, running: bool) -> None:
        """Record that the handler is at work, or no longer."""
        if slot >= 0:
            at = slot * SLOT + 2
            self._memory[at : at + 1] = _RUNNING if running else _HELD

    def leave(self, slot: int) -> None:
        """Record that the task is no longer held."""
        if slot >= 0:
            self._memory[slot * SLOT : slot * SLOT + 2] = _EMPTY
            self._free.append(slot)

    def close(self) -> None:
        """Unmap the file."""
        self._memory.close()


def read_ledger(path: Path) -> list[Entry]:
    """Read what the process held when it died (the side of the supervisor)."""
    data = path.read_bytes()
    found: list[Entry] = []
    for at in range(0, len(data), SLOT):
        length = int.from_bytes(data[at : at + 2], "little")
        parts = data[at + 3 : at + 3 + length].decode("utf-8", "replace").split("\0")
        if length and len(parts) == 3:
            task_id, token, name = parts
            found.append(Entry(task_id, token, name, data[at + 2 : at + 3] == _RUNNING))
    return found
