"""What has changed since the last cut, and the counters: everything that the next commit will carry."""

from __future__ import annotations

from collections.abc import Callable

from lineshaft.core.batch import Batch, Blob, Change, Counters, Forgotten, Record
from lineshaft.core.task import Run, Task

TOTALS = (
    "enqueued",
    "claimed",
    "started",
    "completed",
    "failed",
    "retried",
    "cancelled",
    "lost",
    "timed_out",
    "released",
    "snoozed",
)


class Ledger:
    """The pending changes. Rows within one batch are coalesced to their last state; moves are all told."""

    __slots__ = (
        "blobs",
        "changes",
        "fence",
        "forgotten",
        "now",
        "position",
        "records",
        "rows",
        "seq",
        "totals",
    )

    def __init__(self, counters: Counters, position: int) -> None:
        self.now = counters.now
        self.seq = counters.seq
        self.fence = counters.fence
        self.position = position + 1
        self.totals = dict.fromkeys(TOTALS, 0)
        self._clear()

    def _clear(self) -> None:
        self.rows: dict[int, Task] = {}
        self.blobs: dict[tuple[Blob, int], bytes | None] = {}
        self.forgotten: dict[int, Forgotten] = {}
        self.records: dict[tuple[str, str, str], Record] = {}
        self.changes: list[Change] = []

    @property
    def dirty(self) -> bool:
        """Tell whether there is anything to commit."""
        return bool(self.rows or self.blobs or self.forgotten or self.records or self.changes)

    @property
    def observed(self) -> int:
        """Return the position that must be durable before what is in memory now may be shown."""
        return self.position if self.dirty else self.position - 1

    def tell(self, task: Task, reason: str | None = None) -> None:
        """Keep the task's row and tell its move in the log."""
        seq, spec, run = task.seq, task.spec, task.run
        self.rows[seq] = task
        attempt = 0 if run is None else run.attempt
        self.changes.append(
            Change(seq, task.tenant, task.id, spec.name, spec.queue, task.state, self.now, attempt, reason)
        )

    def forget(self, task: Task) -> None:
        """Delete the row with its blobs."""
        self.rows.pop(task.seq, None)
        for kind in Blob:
            self.blobs.pop((kind, task.seq), None)
        self.forgotten[task.seq] = Forgotten(task.seq, task.tenant, task.id)
        spec = task.spec
        self.changes.append(
            Change(
                task.seq, task.tenant, task.id, spec.name, spec.queue, None, self.now, task.attempt, "deleted"
            )
        )

    def cut(self, nonce: bytes) -> Batch:
        """Take the pending changes as a batch of snapshots and begin the next position."""
        batch = Batch(
            position=self.position,
            nonce=nonce,
            counters=Counters(self.now, self.seq, self.fence),
            tasks=_snapshots(self.rows),
            blobs=[(kind, seq, data) for (kind, seq), data in self.blobs.items()],
            forgotten=list(self.forgotten.values()),
            records=list(self.records.values()),
            changes=self.changes,
        )
        self.position += 1
        self._clear()
        return batch


def _snapshots(rows: dict[int, Task]) -> list[Task]:
    """Do what `Task.snapshot` does, in order of `seq`, without a call for each."""
    twins = list(map(_copy_task, map(rows.__getitem__, sorted(rows))))
    for twin in twins:
        run = twin.run
        if run is not None:
            twin.run = _copy_run(run)
    return twins


_copy_task: Callable[[Task], Task] = Task.__copy__  # type: ignore[attr-defined]
_copy_run: Callable[[Run], Run] = Run.__copy__  # type: ignore[attr-defined]
