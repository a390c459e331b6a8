"""No reply shows what is not durable, and none leaves after the ownership may have gone."""

from __future__ import annotations

import asyncio

import pytest

from lineshaft.core.commands import Cancel, Drain, Enqueue, NewTask
from lineshaft.engine import Limits
from lineshaft.engine.cluster.roster import decode, encode, remove
from lineshaft.errors import Conflict, LeaseLost, NotFound, Unavailable
from tests.engine.scripted_store import ScriptedStore
from tests.engine.world import SPEC, T, World, in_world, virtual, world

LEASED = Limits(ownership_lease=9_000)


@in_world
async def test_a_reply_waits_for_its_commit(w: World) -> None:
    w.store.stall()
    handle = w.enqueue("a")
    await w.settle()
    assert not handle.done()
    w.store.go_on()
    assert (await handle).position == 1


@in_world
async def test_a_read_waits_for_what_it_shows(w: World) -> None:
    w.store.stall()
    w.enqueue("a")
    read = w.get("a")
    await w.settle()
    assert not read.done()
    w.store.go_on()
    assert (await read).task.id == "a"


@in_world
async def test_a_read_that_comes_while_the_commit_is_in_flight_waits_for_it(w: World) -> None:
    w.store.stall()
    w.enqueue("a")
    await w.settle()
    read = w.get("a")
    await w.settle()
    assert not read.done() and len(w.store.commits) == 1
    w.store.go_on()
    assert (await read).task.id == "a"
    assert len(w.store.commits) == 1


@in_world
async def test_a_refusal_waits_for_what_it_gives_away(w: World) -> None:
    await w.enqueue("a")
    [task] = (await w.claim()).tasks
    w.store.stall()
    w.complete(task)
    await w.settle()
    refused = w.submit(Cancel(tenant=T, id="a"))
    late = w.complete(task, result=b"8")
    await w.settle()
    assert not refused.done() and not late.done()
    w.store.go_on()
    with pytest.raises(Conflict):
        await refused
    assert isinstance((await late).items[0], LeaseLost)


@in_world
async def test_what_time_alone_brings_waits_for_its_commit_too(w: World) -> None:
    await w.submit(Enqueue(tenant=T, tasks=(NewTask(id="a", spec=SPEC, delay=5_000),)))
    parked = w.claim(wait=60_000)
    await w.settle()
    w.store.stall()
    await w.pass_time(6)
    assert not parked.done()
    w.store.go_on()
    await w.settle()
    assert parked.done() and [task.id for task in (await parked).tasks] == ["a"]


@in_world
async def test_a_read_is_answered_at_once_where_nothing_is_pending(w: World) -> None:
    await w.enqueue("a")
    assert w.get("a").done()


@in_world
async def test_a_fence_keeps_a_read_from_showing_what_it_erased(w: World) -> None:
    w.store.stall()
    w.store.script.append("fence")
    enqueued, read = w.enqueue("a"), w.get("a")
    await w.settle()
    w.store.go_on()
    for handle in (enqueued, read):
        with pytest.raises(Unavailable, match="repeat"):
            await handle
    with pytest.raises(NotFound):
        await w.get("a")


@in_world
async def test_a_directive_is_told_when_its_cause_is_durable(w: World) -> None:
    await w.enqueue("a")
    await w.claim()
    heard: list[str] = []
    with w.engine.directives(
        lambda directive: directive.worker_id == "w", lambda d: heard.append(d.directive)
    ):
        w.store.stall()
        w.submit(Cancel(tenant=T, id="a"))
        await w.settle()
        assert heard == []
        w.store.go_on()
        await w.settle()
        assert heard == ["cancel"]
        await w.submit(Drain(tenant=T, worker_id="w"))
        assert heard == ["cancel", "drain"]
    await w.enqueue("b")


@virtual
async def test_a_reply_waits_until_a_tenure_that_ran_out_is_confirmed() -> None:
    store = ScriptedStore(exclusive=False)
    async with world(store, limits=LEASED) as w:
        await w.enqueue("a")
        store.swap_gate.clear()  # as if the roster could not be reached
        await w.pass_time(10)
        read = w.get("a")
        await w.pass_time(1)
        assert not read.done()
        store.swap_gate.set()
        assert (await read).task.id == "a"


@virtual
async def test_a_reply_that_waits_for_the_tenure_has_a_beat_made_at_once() -> None:
    store = ScriptedStore(exclusive=False)
    async with world(store, limits=LEASED) as w:
        await w.enqueue("a")
        w.engine.membership.until = 0.0  # as if this process had stood still
        before = store.swapped
        read = w.get("a")
        assert not read.done()
        await w.settle()
        assert (await read).task.id == "a"
        assert store.swapped == before + 1


@virtual
async def test_a_commit_that_took_longer_than_the_tenure_confirms_only_what_was_computed_before() -> None:
    store = ScriptedStore(exclusive=False)
    async with world(store, limits=LEASED) as w:
        store.swap_gate.clear()
        store.stall()
        enqueued = w.enqueue("a")
        await w.settle()
        read = w.get("a")  # computed after the commit was sent: a successor may have come since
        await w.pass_time(6)
        store.go_on()
        await w.settle()
        assert enqueued.done() and not read.done()
        store.swap_gate.set()
        assert (await read).task.id == "a"


@virtual
async def test_a_tenure_is_kept_alive_by_a_beat_and_no_more_while_nothing_happens() -> None:
    store = ScriptedStore(exclusive=False)
    async with world(store, limits=LEASED) as w:
        await w.enqueue("a")
        before = store.swapped
        for _ in range(10):
            await w.pass_time(4.5)
            assert w.get("a").done()
        assert store.swapped - before == 25  # one in a fifth of the lease


@virtual
async def test_a_coordinator_that_was_taken_for_dead_answers_nothing_more_from_memory() -> None:
    store = ScriptedStore(exclusive=False)
    async with world(store, limits=LEASED) as w:
        await w.enqueue("a")
        me = w.engine.membership.id
        there = await store.read_roster()
        roster = decode(there.data, shards=1)
        await store.swap_roster(there.version, encode(remove(roster, [me])))
        w.engine.membership.until = 0.0
        read = w.get("a")
        with pytest.raises(Unavailable, match="repeat"):
            await read
        await w.pass_time(1)
        assert w.engine.membership.id != me and w.engine.membership.counts.evicted == 1
        assert (await w.get("a")).task.id == "a"


@in_world
async def test_positions_can_be_waited_for(w: World) -> None:
    w.store.stall()
    w.enqueue("a")
    waiting = asyncio.ensure_future(w.engine.wait_for_position(T, 1))
    await w.settle()
    assert not waiting.done()
    w.store.go_on()
    await waiting
    await w.engine.wait_for_position(T, 1)
    with pytest.raises(Exception, match="not been reached"):
        await w.engine.wait_for_position(T, 99)
