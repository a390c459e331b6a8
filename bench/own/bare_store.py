"""A store alone: the rows of a bulk enqueue and of a drain, in as many commits as they took."""

from __future__ import annotations

import time

from bench.own.lives import NOW, Committer, claimed, completed, queued
from lineshaft.core.batch import Blob
from lineshaft.core.task import Spec, Task
from lineshaft.store.base import Ownership, Store
from lineshaft.store.urls import open_store

SPEC = Spec(name="noop", queue="bulk")
PAYLOAD = b'"%s"' % (b"x" * 98)


async def write_lives(url: str, tasks: int, *, enqueues: int, reports: int) -> tuple[float, float]:
    """Enqueue and then drain; return seconds of each.

    In the middle of the drain a commit completes the tasks of the report before and claims the next, as the
    coordinator does it.
    """
    store = open_store(url)
    await store.open(address="bench")
    committer = Committer(store, *await _empty_shard(store))
    chunks = [[_queued(seq) for seq in chunk] for chunk in _split(tasks, enqueues)]
    began = time.perf_counter()
    for rows in chunks:
        payloads = [(Blob.PAYLOAD, task.seq, PAYLOAD) for task in rows]
        await committer.commit(rows, payloads, last_seq=tasks)
    enqueued = time.perf_counter() - began
    held: list[Task] = []
    work = [[_queued(seq) for seq in chunk] for chunk in _split(tasks, max(1, reports - 1))]
    claims = [([claimed(t) for t in rows], [completed(t) for t in rows]) for rows in work]
    began = time.perf_counter()
    for taken, done in [*claims, ([], [])]:
        results = [(Blob.RESULT, task.seq, b'"ok"') for task in held]
        await committer.commit([*held, *taken], results, last_seq=tasks)
        held = done
    drained = time.perf_counter() - began
    await store.close()
    return enqueued, drained


async def _empty_shard(store: Store) -> tuple[Ownership, int]:
    """Return the last shard that holds no tasks, and its position: another one may have served before."""
    for shard in reversed(range(store.shards)):
        ownership = await store.acquire(shard, b"bench")
        snapshot = await store.load(ownership)
        if not snapshot.tasks and not snapshot.counters.seq:
            return ownership, snapshot.position
    raise ValueError(f"{store.url} has no empty shard")


def _split(tasks: int, parts: int) -> list[range]:
    parts = min(max(1, parts), tasks)
    return [range(tasks * part // parts, tasks * (part + 1) // parts) for part in range(parts)]


def _queued(seq: int) -> Task:
    return queued(seq, SPEC, f"{NOW:012x}{seq:014x}")
