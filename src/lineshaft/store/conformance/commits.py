"""A batch is applied once, whole, and at its place in the order."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from lineshaft.core.batch import Batch, Blob, Counters, Forgotten
from lineshaft.core.task import State
from lineshaft.errors import Fenced
from lineshaft.store.base import Store
from lineshaft.store.conformance.harness import (
    NOW,
    SHARD,
    TENANT,
    Owner,
    Promises,
    acquire,
    alike,
    change,
    everything,
    finished,
    forgotten,
    promise,
    row,
    setting,
)


class CommitPromises(Promises):
    """What was committed is there, once; what was refused is not there at all."""

    @promise
    async def test_what_was_committed_is_loaded(self, store: Store) -> None:
        owner = await acquire(store)
        batch = await owner.commit(
            tasks=[row(1), row(2)], records=[setting("mail", b"{}")], counters=Counters(NOW, 3, 9)
        )
        snapshot = await owner.load()
        assert (snapshot.position, snapshot.counters) == (1, Counters(NOW, 3, 9))
        assert alike(snapshot.tasks, batch.tasks)
        assert snapshot.records == batch.records

    @promise
    async def test_what_was_committed_is_loaded_after_a_restart(self, store: Store) -> None:
        owner = await acquire(store)
        await owner.put(row(1), row(2))
        await owner.commit(tasks=[finished(row(2))], records=[setting("mail", b"{}")])
        before = await owner.load()
        seen = await everything(store, [row(1), row(2)])
        store = await self.restart(store)
        again = await acquire(store, b"another")
        assert alike(await again.load(), before)
        assert await everything(store, [row(1), row(2)]) == seen
        await again.put(row(3))

    @promise
    async def test_a_position_ahead_is_fenced(self, store: Store) -> None:
        owner = await acquire(store)
        await owner.put(row(1))
        with pytest.raises(Fenced):
            await store.commit(owner.ownership, owner.batch(tasks=[row(2)], position=3))
        assert (await owner.load()).position == 1
        await owner.put(row(2))

    @promise
    async def test_a_position_behind_is_fenced(self, store: Store) -> None:
        owner = await acquire(store)
        first = await owner.put(row(1))
        await owner.put(row(2))
        for position in (0, 1):
            with pytest.raises(Fenced):
                await store.commit(
                    owner.ownership, owner.batch(tasks=[row(3)], position=position, nonce=b"new")
                )
        # Also the very batch of a position before the last: that its effects still stand cannot be told.
        with pytest.raises(Fenced):
            await store.commit(owner.ownership, first)
        assert [task.seq for task in (await owner.load()).tasks] == [1, 2]

    @promise
    async def test_another_batch_at_the_last_position_is_fenced(self, store: Store) -> None:
        owner = await acquire(store)
        await owner.put(row(1))
        with pytest.raises(Fenced):
            await store.commit(owner.ownership, owner.batch(tasks=[row(2)], position=1, nonce=b"another"))
        assert await store.get(SHARD, [(TENANT, "task-2")]) == [None]

    @promise
    async def test_the_last_batch_again_succeeds_and_changes_nothing(self, store: Store) -> None:
        owner = await acquire(store)
        batch = await owner.commit(
            tasks=[row(1)],
            changes=[change(row(1))],
            blobs=[(Blob.PAYLOAD, 1, b"1")],
            records=[setting("a", b"1")],
        )
        seen = await everything(store, [row(1)])
        for _ in range(3):
            await store.commit(owner.ownership, batch)
        assert await everything(store, [row(1)]) == seen
        assert (await owner.load()).position == 1
        await owner.put(row(2))

    @promise
    async def test_the_last_batch_of_a_fenced_owner_is_fenced(self, store: Store) -> None:
        before = await acquire(store, b"a")
        batch = await before.put(row(1))
        await acquire(store, b"b")
        with pytest.raises(Fenced):
            await store.commit(before.ownership, batch)

    @promise
    async def test_a_batch_with_the_nonce_of_the_last_is_the_next_at_the_next_position(
        self, store: Store
    ) -> None:
        owner = await acquire(store)
        await owner.commit(tasks=[row(1)], nonce=b"same")
        await owner.commit(tasks=[row(2)], nonce=b"same")
        assert [task.seq for task in (await owner.load()).tasks] == [1, 2]

    @promise
    async def test_a_fenced_batch_leaves_nothing_of_what_was_in_it(self, store: Store) -> None:
        owner = await acquire(store)
        await owner.commit(**_mixed(1))
        tasks = [row(seq) for seq in range(1, 8)]
        seen, snapshot = await everything(store, tasks), await owner.load()
        with pytest.raises(Fenced):
            await store.commit(owner.ownership, owner.batch(position=5, **_mixed(4)))
        assert await everything(store, tasks) == seen
        assert alike(await owner.load(), snapshot)

    @promise
    async def test_a_mixed_batch_is_applied_whole(self, store: Store) -> None:
        owner = await acquire(store)
        await owner.commit(**_mixed(1))
        await owner.commit(**_mixed(4))
        snapshot = await owner.load()
        assert [task.seq for task in snapshot.tasks] == [2, 5]
        assert [(count.state, count.count) for count in snapshot.finished] == [(State.COMPLETED, 1)]
        assert [record.key for record in snapshot.records] == ["of 1", "of 4"]
        keys = [(Blob.PAYLOAD, 1), (Blob.PAYLOAD, 2), (Blob.PAYLOAD, 5), (Blob.RESULT, 6)]
        assert await store.read(SHARD, keys) == [None, b"2", b"5", b"6"]

    @promise
    async def test_an_empty_batch_takes_a_position(self, store: Store) -> None:
        owner = await acquire(store)
        for _ in range(3):
            await owner.commit()
        assert (await owner.load()).position == 3
        assert [record.position for record in (await store.log(SHARD, 0)).records] == [1, 2, 3]

    @promise
    async def test_ten_thousand_rows_are_one_batch(self, store: Store) -> None:
        owner = await acquire(store)
        tasks = [row(seq) for seq in range(10_000)]
        blobs = [(Blob.PAYLOAD, task.seq, b"%d" % task.seq) for task in tasks]
        await owner.commit(tasks=tasks, blobs=blobs, changes=[change(task) for task in tasks])
        await owner.put(*(finished(task) for task in tasks[:5_000]))
        snapshot = await owner.load()
        assert [task.seq for task in snapshot.tasks] == list(range(5_000, 10_000))
        assert [count.count for count in snapshot.finished] == [5_000]
        keys = [(Blob.PAYLOAD, seq) for seq in (0, 4_999, 9_999)]
        assert await store.read(SHARD, keys) == [b"0", b"4999", b"9999"]
        assert len((await store.log(SHARD, 0)).records[0].changes) == 10_000

    @promise
    async def test_many_commits_in_a_row_are_in_order(self, store: Store) -> None:
        owner = await acquire(store)
        for seq in range(200):
            await owner.put(row(7, priority=seq))
        [task] = (await owner.load()).tasks
        assert (task.spec.priority, owner.position) == (199, 200)

    @promise
    async def test_readers_see_batches_whole_while_they_are_committed(self, store: Store) -> None:
        owner = await acquire(store)
        await _write_round(owner, 0)
        ended = asyncio.Event()

        async def read_on() -> int:
            rounds = 0
            while not ended.is_set():
                tasks = await store.get(SHARD, [(TENANT, f"task-{seq}") for seq in range(20)])
                assert len({task.spec.priority for task in tasks if task is not None}) == 1
                rounds += 1
                await asyncio.sleep(0)
            return rounds

        reading = [asyncio.create_task(read_on()) for _ in range(3)]
        for number in range(1, 50):
            await _write_round(owner, number)
            await asyncio.sleep(0)
        ended.set()
        assert min(await asyncio.gather(*reading)) > 0


def _mixed(first: int) -> dict[str, Any]:
    """Three tasks, one of which is forgotten at once, with everything else that a batch can bring."""
    gone, stays, ends = row(first), row(first + 1), finished(row(first + 2))
    return {
        "forgotten": [forgotten(gone)] + ([Forgotten(3, TENANT, "task-3")] if first > 1 else []),
        "tasks": [stays, ends],
        "blobs": [
            (Blob.PAYLOAD, stays.seq, b"%d" % stays.seq),
            (Blob.RESULT, ends.seq, b"%d" % ends.seq),
            (Blob.CHECKPOINT, ends.seq, None),
        ],
        "records": [setting(f"of {first}", b"{}")],
        "changes": [change(stays), change(ends)],
    }


async def _write_round(owner: Owner, number: int) -> Batch:
    return await owner.put(*(row(seq, priority=number) for seq in range(20)))
