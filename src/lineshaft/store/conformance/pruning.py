"""What is past its time goes, a portion at a time, and nothing else does."""

from __future__ import annotations

import pytest

from lineshaft.core.batch import Blob, Census, Counters
from lineshaft.core.task import State, Task
from lineshaft.errors import Fenced
from lineshaft.store.base import Query, Store
from lineshaft.store.conformance.harness import (
    NOW,
    SHARD,
    TENANT,
    Owner,
    Promises,
    acquire,
    change,
    finished,
    promise,
    row,
)


class PruningPromises(Promises):
    """Finished tasks, results and the log's beginning are deleted when their time is over."""

    @promise
    async def test_finished_tasks_go_when_their_retention_is_over(self, store: Store) -> None:
        owner = await acquire(store)
        await owner.put(
            finished(row(1), prune_at=NOW),
            finished(row(2), prune_at=NOW + 1),
            finished(row(3), prune_at=None),
            row(4),
        )
        assert await _prune(owner, NOW - 1) == []
        assert await _prune(owner, NOW) == [Census(TENANT, "default", State.COMPLETED, 1)]
        assert await _present(store, 4) == [2, 3, 4]
        assert await _prune(owner, NOW) == []

    @promise
    async def test_what_was_removed_is_told_by_tenant_queue_and_state(self, store: Store) -> None:
        owner = await acquire(store)
        await owner.put(
            finished(row(1)),
            finished(row(2, queue="b"), State.FAILED),
            finished(row(3, queue="b"), State.FAILED),
            finished(row(4, queue="b"), State.CANCELLED),
            finished(row(5, tenant="zeta", queue="b"), State.FAILED),
            finished(row(6), prune_at=NOW + 5_000),
        )
        assert sorted(await _prune(owner, NOW + 1_000), key=_key) == [
            Census(TENANT, "b", State.FAILED, 2),
            Census(TENANT, "b", State.CANCELLED, 1),
            Census(TENANT, "default", State.COMPLETED, 1),
            Census("zeta", "b", State.FAILED, 1),
        ]
        assert (await owner.load()).finished == [Census(TENANT, "default", State.COMPLETED, 1)]

    @promise
    async def test_at_most_the_limit_goes_those_due_first_first(self, store: Store) -> None:
        owner = await acquire(store)
        await owner.put(*(finished(row(seq), prune_at=NOW + 100 - seq) for seq in range(1, 11)))
        assert await _prune(owner, NOW + 1_000, limit=4) == [Census(TENANT, "default", State.COMPLETED, 4)]
        assert await _present(store, 10) == [1, 2, 3, 4, 5, 6]
        assert await _prune(owner, NOW + 1_000, limit=4) == [Census(TENANT, "default", State.COMPLETED, 4)]
        assert await _prune(owner, NOW + 1_000, limit=4) == [Census(TENANT, "default", State.COMPLETED, 2)]
        assert await _prune(owner, NOW + 1_000, limit=4) == []

    @promise
    async def test_thousands_go_in_one_call(self, store: Store) -> None:
        owner = await acquire(store)
        await owner.put(*(finished(row(seq)) for seq in range(2_500)))
        assert await _prune(owner, NOW + 1_000, limit=2_001) == [
            Census(TENANT, "default", State.COMPLETED, 2_001)
        ]
        assert (await owner.load()).finished == [Census(TENANT, "default", State.COMPLETED, 499)]

    @promise
    async def test_a_pruned_task_leaves_nothing_behind(self, store: Store) -> None:
        owner = await acquire(store)
        await owner.commit(tasks=[finished(row(1))], blobs=[(kind, 1, b"1") for kind in Blob])
        await _prune(owner, NOW + 1_000)
        assert await store.get(SHARD, [(TENANT, "task-1")]) == [None]
        if self.blobs_go_with_their_task:
            assert await store.read(SHARD, [(kind, 1) for kind in Blob]) == [None] * len(Blob)
        assert (await store.search(SHARD, Query(tenant=TENANT))).tasks == []
        await owner.put(row(2, "task-1"))
        assert await _present(store, 2) == [2]

    @promise
    async def test_an_open_task_is_never_pruned(self, store: Store) -> None:
        owner = await acquire(store)
        await owner.put(finished(row(1)), finished(row(2)))
        again = finished(row(1))
        again.state = State.QUEUED
        await owner.put(again)
        assert await _prune(owner, NOW + 10**9) == [Census(TENANT, "default", State.COMPLETED, 1)]
        assert await _present(store, 2) == [1]

    @promise
    async def test_a_task_whose_retention_was_changed_goes_when_the_new_one_is_over(
        self, store: Store
    ) -> None:
        owner = await acquire(store)
        await owner.put(finished(row(1), prune_at=NOW))
        await owner.put(finished(row(1), prune_at=NOW + 500))
        assert await _prune(owner, NOW + 499) == []
        assert await _prune(owner, NOW + 500) == [Census(TENANT, "default", State.COMPLETED, 1)]

    @promise
    async def test_a_reused_id_outlives_the_task_that_had_it(self, store: Store) -> None:
        owner = await acquire(store)
        await owner.put(finished(row(1, "same"), prune_at=NOW))
        await owner.put(row(2, "same"))
        await _prune(owner, NOW)
        [task] = await store.get(SHARD, [(TENANT, "same")])
        assert task is not None
        assert task.seq == 2

    @promise
    async def test_a_result_goes_before_its_task_when_its_time_is_over(self, store: Store) -> None:
        owner = await acquire(store)
        tasks = [
            finished(row(1), prune_at=NOW + 500, has_result=True, result_expires_at=NOW),
            finished(row(2), prune_at=NOW + 500, has_result=True, result_expires_at=NOW + 1),
            finished(row(3), prune_at=NOW + 500, has_result=True),
        ]
        keys = [(Blob.RESULT, seq) for seq in (1, 2, 3)] + [(Blob.PAYLOAD, 1)]
        await owner.commit(tasks=tasks, blobs=[(kind, seq, b"1") for kind, seq in keys])
        assert await _prune(owner, NOW) == []
        assert await store.read(SHARD, keys) == [None, b"1", b"1", b"1"]
        assert await _present(store, 3) == [1, 2, 3]
        await _prune(owner, NOW + 10)
        assert await store.read(SHARD, keys) == [None, None, b"1", b"1"]

    @promise
    async def test_the_beginning_of_the_log_goes_by_age(self, store: Store) -> None:
        owner = await acquire(store)
        for seq in range(1, 11):
            await owner.commit(tasks=[row(seq)], changes=[change(row(seq))])
        await store.prune(owner.ownership, before=0, log_before=NOW + 4)
        log = await store.log(SHARD, 0)
        assert log.earliest == 4
        assert [record.position for record in log.records] == list(range(4, 11))
        assert await _present(store, 10) == list(range(1, 11))
        await store.prune(owner.ownership, before=0, log_before=NOW + 2)
        assert (await store.log(SHARD, 0)).earliest == 4

    @promise
    async def test_an_empty_log_begins_at_what_comes_next(self, store: Store) -> None:
        owner = await acquire(store)
        await owner.put(row(1))
        await owner.put(row(2))
        await store.prune(owner.ownership, before=0, log_before=NOW + 10**9)
        log = await store.log(SHARD, 0)
        assert (log.records, log.earliest) == ([], 3)
        await owner.put(row(3))
        log = await store.log(SHARD, 0)
        assert ([record.position for record in log.records], log.earliest) == ([3], 3)

    @promise
    async def test_the_log_is_cut_to_the_limit(self, store: Store) -> None:
        owner = await acquire(store)
        for _ in range(10):
            await owner.commit(counters=Counters(now=NOW))
        await store.prune(owner.ownership, before=0, log_before=NOW + 1, limit=3)
        assert (await store.log(SHARD, 0)).earliest == 4

    @promise
    async def test_who_lost_the_shard_prunes_nothing(self, store: Store) -> None:
        before = await acquire(store, b"a")
        await before.put(finished(row(1)))
        await acquire(store, b"b")
        with pytest.raises(Fenced):
            await _prune(before, NOW + 1_000)
        assert await _present(store, 1) == [1]

    @promise
    async def test_pruning_holds_up_neither_position_nor_owner(self, store: Store) -> None:
        owner = await acquire(store)
        batch = await owner.put(finished(row(1)))
        await _prune(owner, NOW + 1_000)
        await store.commit(owner.ownership, batch)
        await owner.put(row(2))
        assert (await owner.load()).position == 2


async def _prune(owner: Owner, before: int, limit: int = 10_000) -> list[Census]:
    return await owner.store.prune(owner.ownership, before=before, log_before=0, limit=limit)


async def _present(store: Store, last: int) -> list[int]:
    """Return which of the rows up to `last` are there, by whatever id they have."""
    tasks: list[Task] = (
        await store.search(SHARD, Query(tenant=TENANT, sort="created_at", limit=1_000))
    ).tasks
    assert all(task.seq <= last for task in tasks)
    return [task.seq for task in tasks]


def _key(census: Census) -> tuple[str, str, int]:
    return census.tenant, census.queue, census.state
