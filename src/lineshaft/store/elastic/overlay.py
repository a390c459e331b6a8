"""What was committed and is not in the documents yet: the last state of each thing, by its key.

Two of them are in use: a fresh one that commits go into, and one that is being written. A reader looks in
the fresh one, in the one being written, and then at the documents.
"""

from __future__ import annotations

from lineshaft.core.batch import Batch, Blob, Record
from lineshaft.core.task import Task
from lineshaft.store.elastic.names import month_of

Ident = tuple[str, str]
BlobKey = tuple[Blob, int]
RecordKey = tuple[str, str, str]

_COST = 600  # bytes that a row takes, about


class Overlay:
    """Rows by key, each with the slot that it was written in."""

    def __init__(self) -> None:
        self.tasks: dict[Ident, tuple[int, Task]] = {}
        self.blobs: dict[BlobKey, tuple[int, bytes | None, Task | str]] = {}
        """With the task, or the month where the batch did not write it."""
        self.records: dict[RecordKey, tuple[int, Record]] = {}
        self.forgotten: dict[int, tuple[int, Ident, str | None]] = {}
        """By seq: the identity, and the month in which the task is on its way to the documents."""
        self.history: list[tuple[Batch, bool]] = []
        """For the history: batches, and whether they come from a replay."""
        self.bytes = 0

    def __len__(self) -> int:
        return len(self.tasks) + len(self.blobs) + len(self.records) + len(self.forgotten)

    def __bool__(self) -> bool:
        return bool(self.tasks or self.blobs or self.records or self.forgotten or self.history)

    def put_tasks(self, slot: int, tasks: list[Task]) -> None:
        known = self.tasks
        for task in tasks:
            known[task.tenant, task.id] = (slot, task.snapshot())
        if self.forgotten:
            for task in tasks:
                self.forgotten.pop(task.seq, None)
        self.bytes += _COST * len(tasks)

    def put_blobs(self, slot: int, batch: Batch) -> None:
        by_seq = {task.seq: task for task in batch.tasks}
        month = month_of(batch.counters.now)
        size = 0
        for kind, seq, data in batch.blobs:
            self.blobs[kind, seq] = (slot, data, by_seq.get(seq, month))
            size += 0 if data is None else len(data)
        self.bytes += size + _COST * len(batch.blobs)

    def expire_result(self, slot: int, seq: int, created_at: int) -> None:
        self.blobs[Blob.RESULT, seq] = (slot, None, month_of(created_at))

    def put_records(self, slot: int, records: list[Record]) -> None:
        for record in records:
            self.records[record.kind, record.tenant, record.key] = (slot, record)

    def forget(self, slot: int, seq: int, ident: Ident, writing: Overlay, now: int) -> None:
        """Take a task away; an identity that another has by now stays with it."""
        month = None
        for overlay in (writing, self):
            found = overlay.tasks.get(ident)
            if found is not None and found[1].seq == seq:
                month = month_of(found[1].created_at)
        own = self.tasks.get(ident)
        if own is not None and own[1].seq == seq:
            del self.tasks[ident]
        self.forgotten[seq] = (slot, ident, month)
        for kind in Blob:
            self.blobs[kind, seq] = (slot, None, month or month_of(now))
        self.bytes += _COST
