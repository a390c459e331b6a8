"""A task's life as the store sees it: the rows of an enqueue, a claim and a completion."""

from __future__ import annotations

import os
from collections.abc import Sequence

from lineshaft.core.batch import Batch, Blob, Change, Counters
from lineshaft.core.task import Attempt, Lease, Run, Settled, Spec, State, Task
from lineshaft.store.base import Ownership, Store

NOW = 1_767_312_245_678
WEEK = 7 * 24 * 3_600_000

Blobs = Sequence[tuple[Blob, int, bytes | None]]


class Committer:
    """Writes batch after batch to a store, at one position after the other."""

    def __init__(self, store: Store, ownership: Ownership, position: int = 0) -> None:
        self.store = store
        self.ownership = ownership
        self._position = position

    async def commit(self, rows: list[Task], blobs: Blobs, *, last_seq: int) -> None:
        """Make one commit of these rows; `last_seq` is what the shard's counters say."""
        self._position += 1
        batch = Batch(
            position=self._position,
            nonce=os.urandom(16),
            counters=Counters(NOW, last_seq, last_seq),
            tasks=rows,
            blobs=list(blobs),
            changes=[Change(t.seq, t.tenant, t.id, t.spec.name, t.spec.queue, t.state, NOW) for t in rows],
        )
        await self.store.commit(self.ownership, batch)


def queued(seq: int, spec: Spec, task_id: str) -> Task:
    """Return a task that has just been enqueued."""
    return Task(
        seq=seq,
        tenant="default",
        id=task_id,
        spec=spec,
        state=State.QUEUED,
        run_at=NOW,
        created_at=NOW,
    )


def claimed(task: Task) -> Task:
    """Return it as a worker runs it."""
    twin = task.snapshot()
    twin.state = State.RUNNING
    lease = Lease(task.seq, 30_000, NOW, NOW + 30_000, "host-1", "c0ffee", "claim-1", NOW)
    twin.run = Run(attempt=1, lease=lease, started_at=NOW)
    return twin


def completed(task: Task) -> Task:
    """Return it as it has completed."""
    twin = task.snapshot()
    twin.state = State.COMPLETED
    twin.run = Run(
        attempt=1,
        settled=Settled(task.seq, b"12345678", State.COMPLETED, None, 7),
        started_at=NOW,
        finished_at=NOW,
        prune_at=NOW + WEEK,
        has_result=True,
        attempts=(Attempt(1, 1, task.seq, "host-1", NOW, NOW, NOW, "completed"),),
    )
    return twin
