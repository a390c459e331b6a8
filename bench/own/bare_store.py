"""The SQLite store alone: the rows of a bulk enqueue and of a drain, in as many commits as they took."""

from __future__ import annotations

import os
import time

from lineshaft.core.batch import Batch, Blob, Change, Counters
from lineshaft.core.task import Attempt, Lease, Run, Settled, Spec, State, Task
from lineshaft.store.urls import open_store

NOW = 1_767_312_245_678
WEEK = 7 * 24 * 3_600_000
SPEC = Spec(name="noop", queue="bulk")
PAYLOAD = b'"%s"' % (b"x" * 98)

Blobs = list[tuple[Blob, int, bytes | None]]


async def write_lives(url: str, tasks: int, *, enqueues: int, reports: int) -> tuple[float, float]:
    """Enqueue and then drain; return seconds of each.

    In the middle of the drain a commit completes the tasks of the report before and claims the next, as the
    coordinator does it.
    """
    store = open_store(url)
    await store.open(address="bench")
    ownership = await store.acquire(0, b"bench")
    position = 0

    async def commit(rows: list[Task], blobs: Blobs) -> None:
        nonlocal position
        position += 1
        changes = [Change(t.seq, t.tenant, t.id, t.spec.name, t.spec.queue, t.state, NOW) for t in rows]
        batch = Batch(
            position=position,
            nonce=os.urandom(16),
            counters=Counters(NOW, tasks, tasks),
            tasks=rows,
            blobs=blobs,
            changes=changes,
        )
        await store.commit(ownership, batch)

    chunks = [[_queued(seq) for seq in chunk] for chunk in _split(tasks, enqueues)]
    began = time.perf_counter()
    for rows in chunks:
        await commit(rows, [(Blob.PAYLOAD, task.seq, PAYLOAD) for task in rows])
    enqueued = time.perf_counter() - began
    held: list[Task] = []
    work = [[_queued(seq) for seq in chunk] for chunk in _split(tasks, max(1, reports - 1))]
    claims = [([_claimed(t) for t in rows], [_completed(t) for t in rows]) for rows in work]
    began = time.perf_counter()
    for claimed, completed in [*claims, ([], [])]:
        await commit([*held, *claimed], [(Blob.RESULT, task.seq, b'"ok"') for task in held])
        held = completed
    drained = time.perf_counter() - began
    await store.close()
    return enqueued, drained


def _split(tasks: int, parts: int) -> list[range]:
    parts = min(max(1, parts), tasks)
    return [range(tasks * part // parts, tasks * (part + 1) // parts) for part in range(parts)]


def _queued(seq: int) -> Task:
    return Task(
        seq=seq,
        tenant="default",
        id=f"{NOW:012x}{seq:014x}",
        spec=SPEC,
        state=State.QUEUED,
        run_at=NOW,
        created_at=NOW,
    )


def _claimed(task: Task) -> Task:
    twin = task.snapshot()
    twin.state = State.RUNNING
    lease = Lease(task.seq, 30_000, NOW, NOW + 30_000, "raw", "c0ffee", "claim-1", NOW)
    twin.run = Run(attempt=1, lease=lease, started_at=NOW)
    return twin


def _completed(task: Task) -> Task:
    twin = task.snapshot()
    twin.state = State.COMPLETED
    twin.run = Run(
        attempt=1,
        settled=Settled(task.seq, b"12345678", State.COMPLETED, None, 7),
        started_at=NOW,
        finished_at=NOW,
        prune_at=NOW + WEEK,
        has_result=True,
        attempts=(Attempt(1, 1, task.seq, "raw", NOW, NOW, NOW, "completed"),),
    )
    return twin
