"""Finished tasks are forgotten when their time is over, and never what somebody has just revived."""

from __future__ import annotations

from lineshaft.core.batch import Blob
from lineshaft.core.commands import Enqueue, NewTask, Queues, Retry
from lineshaft.core.task import Spec, State
from lineshaft.engine import Limits
from lineshaft.errors import NotFound
from lineshaft.store.base import Query
from tests.engine.world import T, World, in_world

MINUTE = 60_000


async def finish(w: World, id: str, *, retention: int) -> None:
    spec = Spec(name="mail", retention=retention)
    await w.submit(Enqueue(tenant=T, tasks=(NewTask(id=id, spec=spec, payload=b"[1]"),)))
    await w.complete(*(await w.claim()).tasks)


async def counted(w: World) -> int:
    [queue] = await w.submit(Queues(tenant=T))
    return int(queue.counts.get(State.COMPLETED, 0))


@in_world
async def test_what_is_over_is_pruned_and_counted_out(w: World) -> None:
    await finish(w, "short", retention=2 * MINUTE)
    await finish(w, "long", retention=60 * MINUTE)
    assert await counted(w) == 2
    await w.pass_time(5 * 60)
    assert await counted(w) == 1 and w.metrics.pruned == 1
    assert [task.id for task in (await w.engine.search(Query(tenant=T))).tasks] == ["long"]


@in_world
async def test_a_shard_that_never_held_anything_is_left_alone(w: World) -> None:
    await w.pass_time(10 * 60)
    assert w.store.pruned_before == []
    await w.enqueue("a")
    await w.pass_time(5 * 60)
    assert w.store.pruned_before


@in_world
async def test_the_log_is_truncated(w: World) -> None:
    await w.enqueue("a")
    await w.pass_time(25 * 3600)
    assert (await w.engine.log(T, 0)).earliest == 2


@in_world(limits=Limits(reply=10_000_000))
async def test_a_task_revived_just_in_time_is_not_pruned_before_that_is_durable(w: World) -> None:
    await finish(w, "a", retention=2 * MINUTE)
    await w.pass_time(100)
    w.store.stall()
    stuck = w.record("x")
    await w.pass_time(10)
    revived = w.submit(Retry(tenant=T, id="a"))
    await w.pass_time(189.5)
    w.store.go_on()
    await stuck
    w.store.stall()
    # The commit in flight now is young, so the round at 300 s is not left out; what it holds is old.
    rounds = len(w.store.pruned_before)
    await w.pass_time(0.6)
    assert len(w.store.pruned_before) == rounds + 1
    w.store.go_on()
    assert (await revived).task.state is State.QUEUED
    assert await w.store.read(0, [(Blob.PAYLOAD, 0)]) == [b"[1]"]


@in_world
async def test_a_store_that_cannot_prune_is_asked_again(w: World) -> None:
    await finish(w, "a", retention=MINUTE)
    broken, w.store.prune = w.store.prune, None  # type: ignore[method-assign,assignment]
    await w.pass_time(300)
    w.store.prune = broken  # type: ignore[method-assign]
    await w.pass_time(61)
    assert w.metrics.pruned == 1
    try:
        await w.get("a")
    except NotFound:
        return
    raise AssertionError("it is still there")
