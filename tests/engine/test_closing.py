"""A graceful close: everybody is answered, what was acknowledged is stored, the shard is given back."""

from __future__ import annotations

import asyncio

import pytest

from lineshaft.core.batch import Blob
from lineshaft.errors import NotFound, Unavailable
from lineshaft.store.base import StoreInUse
from tests.engine.scripted_store import ScriptedStore
from tests.engine.world import World, in_world, virtual, world


@in_world
async def test_parked_claims_get_nothing_and_waits_the_present_state(w: World) -> None:
    await w.enqueue("a")
    claim = w.claim(wait=60_000, queues=("elsewhere",))
    wait = w.get("a", wait=60_000)
    created = w.enqueue("b", wait=60_000)
    await w.settle()
    await w.engine.close()
    assert (await claim).tasks == []
    found = await wait
    assert found.task.id == "a" and not found.ended and not found.created
    assert (await created).created
    assert w.store.released and w.store.closed


@in_world
async def test_what_is_pending_is_flushed(w: World) -> None:
    w.store.stall()
    first = w.enqueue("a")
    await w.settle()
    second, given = w.enqueue("b"), w.enqueue("c", given=True)
    closing = asyncio.ensure_future(w.engine.close())
    await w.settle()
    assert not closing.done() and not first.done()
    with pytest.raises(Unavailable, match="closing"):
        await w.enqueue("late")
    w.store.go_on()
    await closing
    for handle in (first, second, given):
        assert (await handle).items[0].created
    assert w.metrics.pending_commands == 0


@in_world
async def test_a_store_that_never_answers_does_not_hold_the_close_for_ever(w: World) -> None:
    w.store.stall()
    stuck, waiting = w.enqueue("a"), w.enqueue("b", wait=60_000)
    await w.settle()
    started = w.engine.clock.monotonic()
    await w.engine.close()
    assert 10 <= w.engine.clock.monotonic() - started <= 11
    for handle in (stuck, waiting):
        with pytest.raises(Unavailable):
            await handle


@in_world
async def test_a_read_that_changes_nothing_does_not_delay_the_close(w: World) -> None:
    reading = w.get("nothing")
    started = w.engine.clock.monotonic()
    await w.engine.close()
    assert w.engine.clock.monotonic() == started
    with pytest.raises(NotFound):
        await reading


@in_world
async def test_closing_without_a_shard_is_quick(w: World) -> None:
    w.store.refuse_acquire = StoreInUse("somebody else")
    w.store.script.append("fence")
    with pytest.raises(Unavailable):
        await w.enqueue("a")
    await w.settle()
    started = w.engine.clock.monotonic()
    await w.engine.close()
    assert w.engine.clock.monotonic() == started and w.store.closed


@in_world
async def test_reads_that_never_end_do_not_outlive_the_engine(w: World) -> None:
    await w.enqueue("a", payload=b"[1]")
    w.engine.runners[0].cache.clear()
    w.store.read_gate.clear()
    w.store.look_up_gate.clear()
    reads = [asyncio.ensure_future(w.engine.read("acme", [(Blob.PAYLOAD, 0)])) for _ in range(2)]
    looking = w.enqueue("b", given=True)
    await w.settle()
    await w.engine.close()
    for waiting in (*reads, looking):
        with pytest.raises(Unavailable):
            await waiting


@in_world
async def test_closing_twice_is_once(w: World) -> None:
    await w.enqueue("a")
    await w.engine.close()
    await w.engine.close()
    assert w.engine.health().shards[0].state == "closed" and not w.engine.health().ready


@in_world
async def test_who_follows_the_changes_is_woken(w: World) -> None:
    following = w.engine.changed("acme", 0)
    await w.engine.close()
    assert await following == 0


@virtual
async def test_an_engine_that_cannot_load_closes_its_store() -> None:
    store = ScriptedStore()
    store.refuse_acquire = StoreInUse("process 7")
    with pytest.raises(StoreInUse):
        async with world(store):
            pass
    assert store.closed


@virtual
async def test_what_was_acknowledged_is_there_after_a_restart() -> None:
    store = ScriptedStore()
    async with world(store) as w:
        await w.enqueue("a", payload=b'{"n": 12345678901234567890}')
        await w.claim(lease=10_000)
    async with world(store) as w:
        found = (await w.get("a")).task
        assert found.lease is not None and w.engine.position("acme") >= 2
