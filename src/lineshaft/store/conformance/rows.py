"""Rows, identities, blobs and records are stored as they were given."""

from __future__ import annotations

from lineshaft.core.batch import Blob
from lineshaft.core.task import (
    Affinity,
    Attempt,
    CancelRequest,
    Lease,
    Progress,
    RetryPolicy,
    Run,
    Settled,
    Spec,
    State,
    Task,
)
from lineshaft.store.base import Store
from lineshaft.store.conformance.harness import (
    NOW,
    SHARD,
    TENANT,
    Promises,
    acquire,
    alike,
    finished,
    forgotten,
    promise,
    row,
    setting,
)

FULL = Task(
    seq=2**62,
    tenant="tenant/ü",
    id="a" * 256,
    spec=Spec(
        name="n" * 128,
        queue="q/0",
        priority=-(2**31),
        max_retries=0,
        retry_policy=RetryPolicy("linear", 0, 1.5, 7, 1.0),
        lease=1_000,
        timeout=1,
        affinity=Affinity(("es-query", "gpu"), (("gpu", 1.0), ("memory", 2.5e10))),
        retention=0,
        result_ttl=0,
    ),
    state=State.RUNNING,
    run_at=NOW + 2**40,
    created_at=0,
    expires_at=NOW,
    tags=("", "tag", "100%", "日本"),
    metadata=b'{"n": 123456789012345678901234567890}',
    traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    fingerprint=2**63,
    run=Run(
        attempt=3,
        generation=2,
        lost_leases=1,
        lease=Lease(9, 30_000, NOW, NOW + 30_000, "worker", "incarnation", "claim", NOW, 5),
        settled=Settled(8, b"\x00\xff", State.SCHEDULED, NOW, 4),
        cancel=CancelRequest(NOW, "no longer wanted"),
        progress=Progress(0.5, 2.0, "half", NOW),
        has_checkpoint=True,
        started_at=NOW,
        error=b'{"type": "E", "message": "\xc3\xbc"}',
        attempts=tuple(Attempt(n, 1, n, None, NOW, None, NOW, "lease_lost", b"{}") for n in range(20)),
        dropped_attempts=7,
        usage=b"{}",
    ),
)


class RowPromises(Promises):
    """What goes in comes out, to the last byte."""

    @promise
    async def test_every_field_of_a_task_comes_back(self, store: Store) -> None:
        owner = await acquire(store)
        await owner.put(FULL)
        [task] = await store.get(SHARD, [(FULL.tenant, FULL.id)])
        assert alike(task, FULL)
        assert alike((await owner.load()).tasks, [FULL])

    @promise
    async def test_a_later_row_replaces_the_earlier_one(self, store: Store) -> None:
        owner = await acquire(store)
        await owner.put(row(1), row(2))
        changed = row(1, queue="other", name="other", priority=5, run_at=1, tags=("x",))
        await owner.put(changed)
        assert alike((await owner.load()).tasks, [changed, row(2)])
        assert alike(await store.get(SHARD, [(TENANT, "task-1")]), [changed])

    @promise
    async def test_a_task_that_ends_leaves_the_load_and_is_counted(self, store: Store) -> None:
        owner = await acquire(store)
        await owner.put(row(1), row(2, queue="b"), row(3, queue="b"), row(4, tenant="zeta"))
        await owner.put(
            finished(row(1)),
            finished(row(2, queue="b"), State.FAILED),
            finished(row(3, queue="b"), State.FAILED),
            finished(row(4, tenant="zeta"), State.CANCELLED, prune_at=None),
        )
        snapshot = await owner.load()
        assert snapshot.tasks == []
        assert sorted((each.tenant, each.queue, each.state, each.count) for each in snapshot.finished) == [
            (TENANT, "b", State.FAILED, 2),
            (TENANT, "default", State.COMPLETED, 1),
            ("zeta", "default", State.CANCELLED, 1),
        ]

    @promise
    async def test_a_task_that_runs_again_is_back_in_the_load(self, store: Store) -> None:
        owner = await acquire(store)
        await owner.put(finished(row(1)), row(2))
        await owner.put(row(1))
        snapshot = await owner.load()
        assert [task.seq for task in snapshot.tasks] == [1, 2]
        assert snapshot.finished == []

    @promise
    async def test_a_load_brings_every_open_state_in_order_of_arrival(self, store: Store) -> None:
        owner = await acquire(store)
        states = [state for state in State if not state.terminal]
        later = [row(10 + state, state=state) for state in states]
        earlier = [row(state, state=state) for state in states]
        await owner.put(*later)
        await owner.put(*earlier)
        assert alike((await owner.load()).tasks, earlier + later)

    @promise
    async def test_ids_and_names_are_any_text_and_exact(self, store: Store) -> None:
        owner = await acquire(store)
        ids = ["a", "A", "a ", "é", "e\u0301", "日本", "🜚", "a/b", "a'b", 'a"b', "a%", "a_", "a\\", "0", "00"]
        await owner.put(*(row(seq, id, queue=id, name=id) for seq, id in enumerate(ids)))
        tasks = await store.get(SHARD, [(TENANT, id) for id in ids])
        assert [(task.seq, task.id, task.spec.queue) for task in tasks if task is not None] == [
            (seq, id, id) for seq, id in enumerate(ids)
        ]

    @promise
    async def test_forgetting_deletes_row_identity_and_blobs(self, store: Store) -> None:
        owner = await acquire(store)
        await owner.commit(tasks=[finished(row(1)), row(2)], blobs=[(kind, 1, b"1") for kind in Blob])
        await owner.commit(forgotten=[forgotten(row(1))])
        assert await store.get(SHARD, [(TENANT, "task-1")]) == [None]
        assert await store.read(SHARD, [(kind, 1) for kind in Blob]) == [None] * len(Blob)
        assert (await owner.load()).finished == []

    @promise
    async def test_forgetting_what_is_not_there_is_silent(self, store: Store) -> None:
        owner = await acquire(store)
        await owner.commit(forgotten=[forgotten(row(1))], tasks=[row(2)])
        assert [task.seq for task in (await owner.load()).tasks] == [2]

    @promise
    async def test_an_id_is_free_again_within_the_batch_that_forgets_it(self, store: Store) -> None:
        owner = await acquire(store)
        await owner.commit(tasks=[finished(row(1, "same"))], blobs=[(Blob.RESULT, 1, b"old")])
        await owner.commit(
            forgotten=[forgotten(row(1, "same"))],
            tasks=[row(2, "same")],
            blobs=[(Blob.PAYLOAD, 2, b"new")],
        )
        [task] = await store.get(SHARD, [(TENANT, "same")])
        assert task is not None
        assert task.seq == 2
        assert await store.read(SHARD, [(Blob.RESULT, 1), (Blob.PAYLOAD, 2)]) == [None, b"new"]

    @promise
    async def test_forgetting_an_old_row_leaves_the_id_to_its_new_one(self, store: Store) -> None:
        owner = await acquire(store)
        await owner.put(finished(row(1, "same")))
        await owner.commit(forgotten=[forgotten(row(1, "same"))], tasks=[row(2, "same")])
        await owner.commit(forgotten=[forgotten(row(1, "same"))])
        [task] = await store.get(SHARD, [(TENANT, "same")])
        assert task is not None
        assert task.seq == 2

    @promise
    async def test_a_row_that_was_lost_is_whole_again_when_it_is_written_again(self, store: Store) -> None:
        owner = await acquire(store)
        await owner.put(finished(row(1)), row(2))
        await store.prune(owner.ownership, before=NOW + 1_000, log_before=0)
        await owner.put(row(1), row(2))
        assert alike(await store.get(SHARD, [(TENANT, "task-1")]), [row(1)])

    @promise
    async def test_blobs_are_written_replaced_and_deleted(self, store: Store) -> None:
        owner = await acquire(store)
        keys = [(kind, 1) for kind in Blob]
        await owner.commit(tasks=[row(1)], blobs=[(kind, 1, b'"%d"' % kind) for kind in Blob])
        assert await store.read(SHARD, keys) == [b'"%d"' % kind for kind in Blob]
        await owner.commit(blobs=[(Blob.CHECKPOINT, 1, b"[2]"), (Blob.RESULT, 1, None)])
        assert await store.read(SHARD, keys) == [b'"0"', None, b"[2]", b'"3"']
        await owner.commit(blobs=[(Blob.RESULT, 1, None), (Blob.PAYLOAD, 9, None)])

    @promise
    async def test_the_last_of_several_blobs_in_a_batch_stands(self, store: Store) -> None:
        owner = await acquire(store)
        await owner.commit(
            tasks=[row(1)],
            blobs=[
                (Blob.CHECKPOINT, 1, b"1"),
                (Blob.CHECKPOINT, 1, None),
                (Blob.RESULT, 1, None),
                (Blob.RESULT, 1, b"2"),
            ],
        )
        assert await store.read(SHARD, [(Blob.CHECKPOINT, 1), (Blob.RESULT, 1)]) == [None, b"2"]

    @promise
    async def test_a_payload_of_a_mebibyte_comes_back(self, store: Store) -> None:
        owner = await acquire(store)
        payload = b'"' + bytes(range(0x20, 0x7F)).replace(b'"', b"").replace(b"\\", b"") * 11_276 + b'"'
        assert len(payload) > 2**20
        await owner.commit(
            tasks=[row(1)], blobs=[(Blob.PAYLOAD, 1, payload), (Blob.RESULT, 1, payload[::-1])]
        )
        assert await store.read(SHARD, [(Blob.PAYLOAD, 1), (Blob.RESULT, 1)]) == [payload, payload[::-1]]

    @promise
    async def test_json_is_kept_as_it_was_spelled(self, store: Store) -> None:
        owner = await acquire(store)
        spelled = b'{"b":1e400,\t"a":123456789012345678901234567890,"a":"\\u00fc\xc3\xbc"}'
        await owner.commit(tasks=[row(1)], blobs=[(Blob.PAYLOAD, 1, spelled), (Blob.RESULT, 1, b"")])
        assert await store.read(SHARD, [(Blob.PAYLOAD, 1), (Blob.RESULT, 1)]) == [spelled, b""]

    @promise
    async def test_records_are_written_replaced_and_deleted(self, store: Store) -> None:
        owner = await acquire(store)
        await owner.commit(
            records=[
                setting("b", b"1"),
                setting("a", b"2"),
                setting("a", b"3", kind="key"),
                setting("a", b"4", tenant="zeta"),
            ]
        )
        await owner.commit(records=[setting("b", b"5"), setting("a", None), setting("never", None)])
        records = (await owner.load()).records
        assert sorted((each.kind, each.tenant, each.key, each.data) for each in records) == [
            ("key", TENANT, "a", b"3"),
            ("queue", TENANT, "b", b"5"),
            ("queue", "zeta", "a", b"4"),
        ]

    @promise
    async def test_nobody_can_change_what_is_stored_but_by_a_commit(self, store: Store) -> None:
        owner = await acquire(store)
        given = finished(row(1))
        await owner.put(given, row(2))
        given.tags = ("changed",)
        assert given.run is not None
        given.run.attempt = 99
        for task in [*await store.get(SHARD, [(TENANT, "task-1")]), *(await owner.load()).tasks]:
            assert task is not None
            task.state = State.FAILED
            if task.run is not None:
                task.run.attempt = 98
        assert alike(await store.get(SHARD, [(TENANT, "task-1")]), [finished(row(1))])
        assert alike((await owner.load()).tasks, [row(2)])
