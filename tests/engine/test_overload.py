"""What is pending is bounded: beyond, requests are refused, and workers' reports are refused last."""

from __future__ import annotations

import asyncio

import pytest

from lineshaft.engine import Limits
from lineshaft.errors import LineshaftError, Overloaded, Unavailable
from tests.engine.world import World, in_world

FEW = Limits(pending_commands=8, reply=1_000_000)
SMALL = Limits(pending_bytes=8_000)


@in_world(limits=FEW)
async def test_too_many_commands_are_refused_with_429(w: World) -> None:
    w.store.stall()
    handles = [w.enqueue(f"t{n}") for n in range(7)]
    with pytest.raises(Overloaded) as caught:
        await handles[6]
    assert caught.value.retry_after and w.metrics.refused == 1
    w.store.go_on()
    await asyncio.gather(*handles[:6])
    assert (await w.enqueue("t6")).items[0].created
    assert w.metrics.pending_commands == 0


@in_world(limits=SMALL)
async def test_too_many_bytes_are_refused(w: World) -> None:
    w.store.stall()
    accepted = w.enqueue("a", payload=b"1" * 5_000)
    with pytest.raises(Overloaded):
        await w.enqueue("b", payload=b"1" * 2_000)
    w.store.go_on()
    await accepted


@in_world(limits=SMALL)
async def test_one_that_is_larger_than_the_bound_is_taken_alone(w: World) -> None:
    assert (await w.enqueue("a", payload=b"1" * 50_000)).items[0].created


@in_world(limits=FEW)
async def test_reports_have_room_where_enqueues_have_none(w: World) -> None:
    await w.enqueue("a", "b", "c")
    tasks = (await w.claim(3)).tasks
    w.store.stall()
    stuck = [w.enqueue(f"t{n}") for n in range(6)]
    with pytest.raises(Overloaded):
        await w.get("a")
    reports = [w.complete(task) for task in tasks[:2]]
    with pytest.raises(Overloaded):
        await w.complete(tasks[2])
    w.store.go_on()
    for report in reports:
        assert not isinstance((await report).items[0], LineshaftError)
    await asyncio.gather(*stuck)


@in_world(limits=FEW)
async def test_in_a_stall_the_refusal_is_503(w: World) -> None:
    w.store.stall()
    handles = [w.enqueue(f"t{n}") for n in range(6)]
    await w.pass_time(2)
    with pytest.raises(Unavailable) as caught:
        await w.enqueue("more")
    assert caught.value.retry_after
    w.store.go_on()
    await asyncio.gather(*handles)


@in_world(limits=FEW)
async def test_parked_commands_are_not_pending(w: World) -> None:
    claims = [w.claim(wait=5_000, worker=f"w{n}") for n in range(50)]
    assert w.metrics.parked == 50 and w.metrics.pending_commands == 0
    await w.enqueue("a")
    await asyncio.gather(*claims)


@in_world
async def test_a_reply_that_is_not_durable_in_time_is_503_and_its_leases_are_released(w: World) -> None:
    await w.enqueue("a")
    w.store.stall()
    claim = w.claim()
    enqueue = w.enqueue("b", given=False)
    await w.pass_time(21)
    for handle in (claim, enqueue):
        with pytest.raises(Unavailable, match="in time"):
            await handle
    w.store.go_on()
    [again, b] = (await w.claim(2)).tasks
    assert (again.id, again.attempt, again.run.lost_leases, b.id) == ("a", 1, 0, "b")
    assert w.metrics.given_up == 2


@in_world()
async def test_a_store_that_is_behind_refuses_new_tasks_and_nothing_else(w: World) -> None:
    await w.enqueue("a")
    w.store.congested = "the projection is behind"
    with pytest.raises(Overloaded, match="the projection is behind") as caught:
        await w.enqueue("b")
    assert caught.value.retry_after
    [task] = (await w.claim(1)).tasks
    assert not isinstance((await w.complete(task)).items[0], LineshaftError)
    w.store.congested = None
    assert (await w.enqueue("b")).items[0].created


@in_world()
async def test_a_store_says_how_much_one_commit_should_carry(w: World) -> None:
    assert w.engine.runners[0].limits.batch_bytes == Limits().batch_bytes
    w.store.largest_commit = 10_000
    runner = w.engine._runner(0, b"another")
    assert runner.limits.batch_bytes == 10_000
