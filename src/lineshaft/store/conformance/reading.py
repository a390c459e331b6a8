"""Reads by identity, and the log."""

from __future__ import annotations

from lineshaft.core.batch import Blob, Change
from lineshaft.core.task import State
from lineshaft.store.base import Store
from lineshaft.store.conformance.harness import (
    NOW,
    SHARD,
    TENANT,
    Promises,
    acquire,
    change,
    finished,
    promise,
    row,
)


class ReadingPromises(Promises):
    """Answers stand in the order of what was asked; the log is whole and in order."""

    @promise
    async def test_get_answers_in_order_with_none_where_there_is_none(self, store: Store) -> None:
        owner = await acquire(store)
        await owner.put(row(1), finished(row(2)), row(3))
        names = ["task-3", "never", "task-1", "task-2", "task-3", ""]
        tasks = await store.get(SHARD, [(TENANT, name) for name in names])
        assert [None if task is None else task.seq for task in tasks] == [3, None, 1, 2, 3, None]

    @promise
    async def test_get_and_read_of_nothing_answer_nothing(self, store: Store) -> None:
        await acquire(store)
        assert await store.get(SHARD, []) == []
        assert await store.read(SHARD, []) == []

    @promise
    async def test_read_answers_in_order_with_none_where_there_is_none(self, store: Store) -> None:
        owner = await acquire(store)
        await owner.commit(
            tasks=[row(1), row(2)],
            blobs=[(Blob.PAYLOAD, 1, b"1"), (Blob.RESULT, 1, b"r"), (Blob.PAYLOAD, 2, b"2")],
        )
        keys = [
            (Blob.PAYLOAD, 2),
            (Blob.RESULT, 2),
            (Blob.RESULT, 1),
            (Blob.PAYLOAD, 1),
            (Blob.PAYLOAD, 2),
            (Blob.CARRY, 3),
        ]
        assert await store.read(SHARD, keys) == [b"2", None, b"r", b"1", b"2", None]

    @promise
    async def test_thousands_of_keys_are_read_at_once(self, store: Store) -> None:
        owner = await acquire(store)
        tasks = [row(seq) for seq in range(3_001)]
        await owner.commit(tasks=tasks, blobs=[(Blob.PAYLOAD, task.seq, b"%d" % task.seq) for task in tasks])
        backwards = tasks[::-1]
        found = await store.get(SHARD, [(TENANT, task.id) for task in backwards])
        assert [task.seq for task in found if task is not None] == [task.seq for task in backwards]
        blobs = await store.read(SHARD, [(Blob.PAYLOAD, task.seq) for task in backwards])
        assert blobs == [b"%d" % task.seq for task in backwards]

    @promise
    async def test_one_tenant_never_reads_a_row_of_another(self, store: Store) -> None:
        owner = await acquire(store)
        await owner.put(row(1, "same"), row(2, "same", tenant="zeta"))
        tasks = await store.get(SHARD, [("zeta", "same"), (TENANT, "same"), ("nobody", "same"), ("", "same")])
        assert [None if task is None else (task.tenant, task.seq) for task in tasks] == [
            ("zeta", 2),
            (TENANT, 1),
            None,
            None,
        ]

    @promise
    async def test_the_log_has_one_record_for_each_commit(self, store: Store) -> None:
        owner = await acquire(store)
        for seq in range(1, 6):
            await owner.commit(tasks=[row(seq)], changes=[change(row(seq))])
        log = await store.log(SHARD, 0)
        assert [(record.position, record.at) for record in log.records] == [(n, NOW + n) for n in range(1, 6)]
        assert [[each.task_id for each in record.changes] for record in log.records] == [
            [f"task-{n}"] for n in range(1, 6)
        ]
        assert log.earliest == 1

    @promise
    async def test_the_log_tells_changes_as_they_were_told_and_in_their_order(self, store: Store) -> None:
        owner = await acquire(store)
        changes = [
            change(row(2), State.CLAIMED),
            change(row(2), State.RUNNING),
            change(row(1), State.COMPLETED),
            Change(3, "zeta", "日本", "n", "q", None, NOW, 4, "forgotten"),
        ]
        await owner.commit(changes=changes)
        [record] = (await store.log(SHARD, 0)).records
        assert record.changes == changes

    @promise
    async def test_the_log_is_read_by_position_and_limit(self, store: Store) -> None:
        owner = await acquire(store)
        for _ in range(10):
            await owner.commit()
        for after, limit, expected in (
            (0, 3, [1, 2, 3]),
            (3, 3, [4, 5, 6]),
            (9, 3, [10]),
            (10, 3, []),
            (99, 3, []),
        ):
            log = await store.log(SHARD, after, limit=limit)
            assert [record.position for record in log.records] == expected
            assert log.earliest == 1

    @promise
    async def test_the_log_goes_on_after_a_restart(self, store: Store) -> None:
        owner = await acquire(store)
        await owner.put(row(1))
        await owner.put(row(2))
        store = await self.restart(store)
        again = await acquire(store)
        await again.put(row(3))
        assert [record.position for record in (await store.log(SHARD, 1)).records] == [2, 3]
