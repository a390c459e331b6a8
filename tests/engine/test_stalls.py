"""While the store stalls no lease is lost, since no worker could report."""

from __future__ import annotations

import pytest

from lineshaft.errors import LineshaftError, Unavailable
from lineshaft.values.instants import format_instant
from tests.engine.world import World, in_world


@in_world
async def test_leases_do_not_run_out_while_a_commit_is_in_flight(w: World) -> None:
    await w.enqueue("a", "b")
    [task] = (await w.claim(lease=10_000)).tasks
    w.store.stall()
    stuck = w.enqueue("c")
    await w.pass_time(100)
    assert w.shard_health.state == "stalled" and w.metrics.stalls == 1
    assert w.engine.trouble() == f"the store has not answered since {format_instant(w.clock.wall)}"
    with pytest.raises(Unavailable):
        await stuck
    w.store.go_on()
    await w.settle()
    assert w.shard_health.state == "serving"
    await w.pass_time(9)
    [reply] = (await w.complete(task)).items
    assert not isinstance(reply, LineshaftError)


@in_world
async def test_they_run_out_afterwards_with_what_they_had_left(w: World) -> None:
    await w.enqueue("a")
    await w.claim(lease=10_000)
    await w.pass_time(4)
    w.store.stall()
    w.record("x").add_done_callback(lambda reply: reply.exception())
    await w.pass_time(100)
    w.store.go_on()
    await w.pass_time(5)
    assert (await w.get("a")).task.lease is not None
    await w.pass_time(1.5)
    assert (await w.get("a")).task.lease is None


@in_world
async def test_another_deadline_in_a_stall_does_not_take_the_leases_along(w: World) -> None:
    await w.enqueue("a")
    [task] = (await w.claim(lease=5_000)).tasks
    w.store.stall()
    stuck, claim = w.record("x"), w.claim(wait=7_000, worker="other")
    await w.pass_time(8)
    w.store.go_on()
    await stuck
    assert (await claim).tasks == []
    [reply] = (await w.complete(task)).items
    assert not isinstance(reply, LineshaftError)


@in_world
async def test_other_deadlines_pass_in_a_stall(w: World) -> None:
    w.store.stall()
    stuck = w.record("x")
    claim = w.claim(wait=3_000)
    await w.pass_time(4)
    # It is over in memory, but what it shows is not durable.
    assert not claim.done() and not stuck.done()
    w.store.go_on()
    assert (await claim).tasks == []
    await stuck


@in_world
async def test_a_short_commit_suspends_nothing(w: World) -> None:
    await w.enqueue("a")
    await w.claim(lease=1_000)
    await w.pass_time(0.5)
    w.store.stall()
    stuck = w.record("x")
    await w.pass_time(0.9)
    w.store.go_on()
    await stuck
    assert (await w.get("a")).task.lease is None
    assert w.metrics.stalls == 0


@in_world
async def test_a_stall_ends_with_a_fence_like_any_commit(w: World) -> None:
    await w.enqueue("a")
    await w.claim(lease=10_000)
    w.store.stall()
    w.store.script.append("fence")
    w.record("x").add_done_callback(lambda reply: reply.exception())
    await w.pass_time(60)
    w.store.go_on()
    await w.settle()
    await w.pass_time(9)
    assert (await w.get("a")).task.lease is not None
    assert w.shard_health.state == "serving"
