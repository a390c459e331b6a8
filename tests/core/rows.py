"""What a store would remember of one shard, kept by a few dictionaries, and the shape of every batch.

Rows are kept encoded, so that a shard which changed a row after it was cut would be noticed, and so that
"byte-identical" can be said literally.
"""

from __future__ import annotations

import msgspec

from lineshaft.core.batch import Batch, Blob, Census, Change, Counters, Record, Snapshot
from lineshaft.core.task import State, Task

S = State
LEGAL: dict[State | None, set[State | None]] = {
    None: {S.SCHEDULED, S.QUEUED},
    S.SCHEDULED: {S.QUEUED, S.SCHEDULED, S.CANCELLED},
    S.WAITING: {S.QUEUED, S.CANCELLED},
    S.QUEUED: {S.CLAIMED, S.SCHEDULED, S.QUEUED, S.CANCELLED},
    S.CLAIMED: {S.RUNNING, S.QUEUED, S.SCHEDULED, S.CANCELLED, S.FAILED},
    S.RUNNING: {S.COMPLETED, S.FAILED, S.CANCELLED, S.QUEUED, S.SCHEDULED},
    S.COMPLETED: {S.QUEUED, None},
    S.FAILED: {S.QUEUED, None},
    S.CANCELLED: {S.QUEUED, None},
}
"""The picture of DESIGN.md §2, written again by hand; None is "not there"."""


class Rows:
    """Applies batches, checks their shape on the way, and brings back snapshots."""

    def __init__(self) -> None:
        self.position = 0
        self.counters = Counters()
        self.tasks: dict[int, bytes] = {}
        self.ids: dict[tuple[str, str], int] = {}
        self.blobs: dict[tuple[Blob, int], bytes] = {}
        self.records: dict[tuple[str, str, str], Record] = {}
        self.changes: list[Change] = []
        self._states: dict[int, State | None] = {}

    def commit(self, batch: Batch) -> None:
        """Apply a batch as a store would, after checking that it is the next one and well made."""
        assert batch.position == self.position + 1
        for before, after in zip(
            msgspec.structs.astuple(self.counters), msgspec.structs.astuple(batch.counters), strict=True
        ):
            assert after >= before, "counters only rise"
        self.position, self.counters = batch.position, batch.counters
        for gone in batch.forgotten:
            if self.tasks.pop(gone.seq, None) is not None:
                assert self.ids.pop((gone.tenant, gone.id)) == gone.seq
            for kind in Blob:
                self.blobs.pop((kind, gone.seq), None)
        assert [task.seq for task in batch.tasks] == sorted({task.seq for task in batch.tasks})
        for task in batch.tasks:
            self.tasks[task.seq] = msgspec.msgpack.encode(task)
            assert self.ids.setdefault((task.tenant, task.id), task.seq) == task.seq, "one task per id"
        for kind, seq, data in batch.blobs:
            if data is None:
                self.blobs.pop((kind, seq), None)
            else:
                self.blobs[kind, seq] = data
        for record in batch.records:
            self.records[record.kind, record.tenant, record.key] = record
        self._follow(batch)

    def _follow(self, batch: Batch) -> None:
        for change in batch.changes:
            before = self._states.get(change.seq)
            assert change.state in LEGAL[before], f"{change.task_id}: {before!r} → {change.state!r}"
            self._states[change.seq] = change.state
            self.changes.append(change)
        for task in batch.tasks:
            assert self._states.get(task.seq) is task.state, (
                f"{task.id} is {task.state!r} but the log differs"
            )

    def task(self, tenant: str, id: str) -> Task | None:
        """Read one row by id."""
        seq = self.ids.get((tenant, id))
        return None if seq is None else msgspec.msgpack.decode(self.tasks[seq], type=Task)

    def all(self) -> list[Task]:
        """Read every row, in order of arrival."""
        return [msgspec.msgpack.decode(self.tasks[seq], type=Task) for seq in sorted(self.tasks)]

    def prune(self, now: int) -> list[Census]:
        """Delete finished tasks past their retention, as a store's `prune` does."""
        removed: dict[tuple[str, str, State], int] = {}
        for task in self.all():
            if task.state.terminal and task.run is not None and (task.run.prune_at or 0) <= now:
                del self.tasks[task.seq], self.ids[task.tenant, task.id]
                key = (task.tenant, task.spec.queue, task.state)
                removed[key] = removed.get(key, 0) + 1
        return [Census(*key, count) for key, count in removed.items()]

    def snapshot(self) -> Snapshot:
        """Bring back what a load brings back: open tasks, records, and counts of the finished."""
        tasks = self.all()
        finished: dict[tuple[str, str, State], int] = {}
        for task in tasks:
            if task.state.terminal:
                key = (task.tenant, task.spec.queue, task.state)
                finished[key] = finished.get(key, 0) + 1
        return Snapshot(
            position=self.position,
            counters=self.counters,
            tasks=[task for task in tasks if not task.state.terminal],
            records=[record for record in self.records.values() if record.data is not None],
            finished=[Census(*key, count) for key, count in finished.items()],
        )
