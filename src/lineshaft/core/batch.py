"""What a shard asks its store to remember: one batch of changes, and the counters after it."""

from __future__ import annotations

import enum

import msgspec

from lineshaft.core.task import State, Task


class Blob(enum.IntEnum):
    """Immutable JSON values that lie beside a task's row, keyed by its `seq`."""

    PAYLOAD = 0
    RESULT = 1
    CHECKPOINT = 2
    CARRY = 3


class Counters(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """The shard's own counters after a batch; all only rise."""

    now: int = 0
    seq: int = 0
    """The next arrival number."""
    fence: int = 0
    """The last fence handed out."""

    def or_later(self, other: Counters) -> Counters:
        """Return each where it has got further."""
        return Counters(max(self.now, other.now), max(self.seq, other.seq), max(self.fence, other.fence))


class Change(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """One move of one task, as the log and the change feed tell it, in order."""

    seq: int
    tenant: str
    task_id: str
    name: str
    queue: str
    state: State | None
    """The state moved to; None when the task was deleted."""
    at: int
    attempt: int = 0
    reason: str | None = None


class Record(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """A small row that is not a task (queue settings, API key, drained worker); `data` None deletes it."""

    kind: str
    tenant: str
    key: str
    data: bytes | None


class Forgotten(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """A task row to delete with all its blobs; its id is free again (unless the batch reuses it)."""

    seq: int
    tenant: str
    id: str


class Batch(msgspec.Struct, kw_only=True):
    """One commit. Rows are snapshots: the last state of each task within the batch, in order of `seq`.

    A store applies it whole or not at all. `forgotten` is applied before `tasks`, so that a batch may
    delete a task and enqueue another under the same id.
    """

    position: int
    nonce: bytes
    counters: Counters
    tasks: list[Task] = []
    blobs: list[tuple[Blob, int, bytes | None]] = []
    forgotten: list[Forgotten] = []
    records: list[Record] = []
    changes: list[Change] = []


class Census(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """How many finished tasks of one tenant, queue and state a store holds (or has just pruned)."""

    tenant: str
    queue: str
    state: State
    count: int


class Snapshot(msgspec.Struct, kw_only=True):
    """What a load brings back: everything that a shard holds in memory."""

    position: int
    """The position of the last commit; 0 for a new store."""
    counters: Counters
    tasks: list[Task]
    """Every open task, in order of `seq`."""
    records: list[Record]
    finished: list[Census] = []
