"""Payloads, results, searches, the log and who waits for changes."""

from __future__ import annotations

import asyncio

import pytest

from lineshaft.core.batch import Batch, Blob, Counters
from lineshaft.core.commands import Delete, Enqueue, NewTask, Patch
from lineshaft.engine import Limits
from lineshaft.errors import Invalid, Unavailable
from lineshaft.store.base import Query
from tests.engine.scripted_store import ScriptedStore
from tests.engine.world import SPEC, T, World, in_world, virtual, world


async def payload(w: World, seq: int) -> bytes | None:
    [data] = await w.engine.read(T, [(Blob.PAYLOAD, seq)])
    return data


@in_world
async def test_what_was_written_lately_is_not_read_again(w: World) -> None:
    await w.enqueue("a", payload=b"[1]")
    assert await payload(w, 0) == b"[1]" and w.store.reads == []
    await w.submit(Patch(tenant=T, id="a", payload=b"[2]"))
    assert await payload(w, 0) == b"[2]" and w.store.reads == []


@in_world
async def test_a_value_is_not_shown_before_it_is_durable(w: World) -> None:
    await w.enqueue("a", payload=b"[1]")
    w.store.stall()
    patched = w.submit(Patch(tenant=T, id="a", payload=b"[2]"))
    await w.settle()
    assert await payload(w, 0) == b"[1]"
    w.store.go_on()
    await patched
    assert await payload(w, 0) == b"[2]"


@in_world(limits=Limits(cache_bytes=3_000))
async def test_the_cache_is_bounded_and_the_store_has_the_rest(w: World) -> None:
    await w.enqueue(*(f"t{n}" for n in range(30)), payload=b"1" * 100)
    assert await payload(w, 29) == b"1" * 100 and w.store.reads == []
    assert await payload(w, 0) == b"1" * 100 and w.store.reads == [[(Blob.PAYLOAD, 0)]]


@in_world(limits=Limits(cache_bytes=0))
async def test_concurrent_reads_share_one(w: World) -> None:
    await w.enqueue("a", "b", "c", payload=b"[1]")
    w.store.read_gate.clear()
    first = asyncio.ensure_future(payload(w, 0))
    await w.settle()
    rest = [asyncio.ensure_future(payload(w, seq)) for seq in (1, 2, 2, 99)]
    await w.settle()
    w.store.read_gate.set()
    assert await first == b"[1]"
    assert await asyncio.gather(*rest) == [b"[1]", b"[1]", b"[1]", None]
    assert [len(keys) for keys in w.store.reads] == [1, 3]


@in_world
async def test_a_forgotten_task_leaves_no_value(w: World) -> None:
    await w.enqueue("a", payload=b"[1]")
    await w.complete(*(await w.claim()).tasks, result=b"[2]")
    assert await w.engine.read(T, [(Blob.RESULT, 0), (Blob.PAYLOAD, 0)]) == [b"[2]", b"[1]"]
    await w.submit(Delete(tenant=T, id="a"))
    assert await w.engine.read(T, [(Blob.RESULT, 0), (Blob.PAYLOAD, 0)]) == [None, None]


@in_world(limits=Limits(cache_bytes=0))
async def test_a_store_that_cannot_be_read_is_503(w: World) -> None:
    await w.enqueue("a", payload=b"[1]")
    await w.store.close()
    with pytest.raises(Unavailable):
        await payload(w, 0)
    with pytest.raises(Unavailable):
        await w.engine.search(Query(tenant=T))
    await w.store.open(address="")


@in_world
async def test_a_search_waits_for_what_it_must_show(w: World) -> None:
    w.store.stall()
    w.enqueue("a", "b")
    searching = asyncio.ensure_future(w.engine.search(Query(tenant=T), min_position=1))
    counting = asyncio.ensure_future(w.engine.count(Query(tenant=T), min_position=1))
    await w.settle()
    assert not searching.done()
    w.store.go_on()
    assert [task.id for task in (await searching).tasks] == ["b", "a"]
    assert await counting == 2
    with pytest.raises(Invalid) as caught:
        await w.engine.search(Query(tenant=T), min_position=2)
    assert caught.value.field == "min_position"
    with pytest.raises(Invalid):
        await w.engine.search(Query(tenant=T, after="!"))


@in_world
async def test_the_log_tells_a_tenant_its_own(w: World) -> None:
    await w.enqueue("a")
    await w.submit(Enqueue(tenant="other", tasks=(NewTask(id="b", spec=SPEC),)))
    log = await w.engine.log(T, 0)
    assert [(r.position, [c.task_id for c in r.changes]) for r in log.records] == [(1, ["a"]), (2, [])]


@in_world
async def test_whoever_follows_is_woken_by_a_commit_with_changes(w: World) -> None:
    following = w.engine.changed(T, 0)
    await w.record("no change")
    assert not following.done()
    await w.enqueue("a")
    assert following.done() and await following == 2
    assert await w.engine.changed(T, 1) == 2
    assert not await w.engine.committed(T, 2, timeout=5)
    waiting = asyncio.ensure_future(w.engine.committed(T, 2, timeout=5))
    await w.settle()
    await w.enqueue("b")
    assert await waiting


@in_world
async def test_what_another_owner_has_changed_wakes_too(w: World) -> None:
    await w.enqueue("a")
    following = w.engine.changed(T, 1)
    other = await w.store.acquire(0, b"another")
    await w.store.commit(other, Batch(position=2, nonce=b"n", counters=Counters(w.engine.now(T), 1, 0)))
    with pytest.raises(Unavailable):
        await w.record("x")
    assert await following == 2


@virtual
async def test_tenants_are_spread_over_shards_and_stay_there() -> None:
    store = ScriptedStore(shards=4)
    tenants = [f"tenant-{n}" for n in range(40)]
    async with world(store) as w:
        await asyncio.gather(
            *(w.submit(Enqueue(tenant=name, tasks=(NewTask(id="a", spec=SPEC),))) for name in tenants)
        )
        shards = [w.engine.shard_of(name) for name in tenants]
        assert set(shards) == {0, 1, 2, 3}
        for name in tenants:
            page = await w.engine.search(Query(tenant=name))
            assert [task.tenant for task in page.tasks] == [name]
        assert sum(stats.counters.seq for stats in await w.engine.stats()) == 40
    async with world(store) as w:
        assert shards == [w.engine.shard_of(name) for name in tenants]
