"""Rows that are not in memory are read once for all who ask, and memory wins over what was read."""

from __future__ import annotations

import asyncio

import pytest

from lineshaft.core.commands import Claim, Enqueue, NewTask, WorkerInfo
from lineshaft.core.shard import Shard
from lineshaft.engine import Limits
from lineshaft.errors import NotFound, Unavailable
from tests.engine.world import SPEC, T, World, in_world

FORGETFUL = Limits(finished_in_memory=0)


async def finish(w: World, *ids: str) -> None:
    await w.enqueue(*ids)
    await w.complete(*(await w.claim(len(ids))).tasks)


async def forget(w: World) -> None:
    """Commit until the finished tasks are out of memory."""
    for n in range(3):
        await w.record(f"n{n}")


@in_world(limits=FORGETFUL)
async def test_a_finished_task_is_found_in_the_store(w: World) -> None:
    await finish(w, "a")
    await forget(w)
    found = await w.get("a")
    assert found.ended and w.store.look_ups == [[(T, "a")]]
    assert not (await w.enqueue("a", given=True)).items[0].created


@in_world
async def test_concurrent_commands_share_a_read(w: World) -> None:
    w.store.look_up_gate.clear()
    first = w.enqueue("a", given=True)
    await w.settle()
    rest = [w.enqueue("b", "c", given=True), w.enqueue("c", given=True), w.get("d")]
    await w.settle()
    w.store.look_up_gate.set()
    await first
    created = await asyncio.gather(*rest, return_exceptions=True)
    assert w.store.look_ups == [[(T, "a")], [(T, "b"), (T, "c"), (T, "d")]]
    assert [item.created for item in created[0].items] == [True, True]
    assert not created[1].items[0].created
    assert isinstance(created[2], NotFound)


@in_world
async def test_commands_that_need_no_read_are_not_delayed(w: World) -> None:
    w.store.look_up_gate.clear()
    looking = w.enqueue("a", given=True)
    await w.settle()
    assert (await w.enqueue("b")).items[0].created
    assert not looking.done()
    w.store.look_up_gate.set()
    await looking


@in_world(limits=FORGETFUL)
async def test_a_read_that_says_absent_loses_against_what_was_enqueued_finished_and_forgotten(
    w: World,
) -> None:
    w.store.look_up_gate.clear()
    w.store.stall()
    slow = w.enqueue("a", given=True)  # its read finds nothing, and is slow to say so
    await w.settle()
    w.store.go_on()
    await finish(w, "a")
    await forget(w)
    w.store.look_up_gate.set()
    reply = await slow
    assert not reply.items[0].created and reply.items[0].task.state.terminal
    await forget(w)
    await w.get("a")
    assert len(w.store.look_ups) == 2  # it was forgotten after the read was over


@in_world(limits=FORGETFUL)
async def test_memory_forgets_between_reads_that_follow_each_other(w: World) -> None:
    await finish(w, "a")
    w.store.look_up_gate.clear()
    handles = [w.enqueue("x0", given=True)]
    await w.settle()
    for n in range(1, 4):
        handles.append(w.enqueue(f"x{n}", given=True))
        await w.record(f"n{n}")
        w.store.look_up_gate.set()
        await w.settle()
        w.store.look_up_gate.clear()
    w.store.look_up_gate.set()
    await asyncio.gather(*handles)
    shard = w.engine.runners[0].intake.shard
    assert shard is not None and "a" not in shard._memory.tenants[T].tasks


@in_world
async def test_a_read_that_fails_answers_503_and_changes_nothing(w: World) -> None:
    w.store.refuse_get = OSError("broken pipe")
    with pytest.raises(Unavailable, match="broken pipe") as caught:
        await w.enqueue("a", given=True)
    assert caught.value.retry_after
    w.store.refuse_get = None
    assert (await w.enqueue("a", given=True)).items[0].created
    assert w.metrics.pending_commands == 0


@in_world
async def test_a_read_that_a_fence_overtook_is_made_again(w: World) -> None:
    w.store.look_up_gate.clear()
    looking = w.enqueue("a", given=True)
    await w.settle()
    w.store.script.append("fence")
    with pytest.raises(Unavailable):
        await w.record("x")
    await w.settle()
    w.store.look_up_gate.set()
    assert (await looking).items[0].created
    assert w.store.look_ups == [[(T, "a")], [(T, "a")]]


@in_world
async def test_an_open_task_that_is_found_in_the_store_alone_tells_that_another_has_written(w: World) -> None:
    """Who was cut off reads what the next owner has written before any commit tells that there is one."""
    await w.record("x")
    other = await w.store.acquire(0, b"other")
    theirs, now = Shard(await w.store.load(other), w.clock.now()), w.clock.now()
    theirs.apply(Enqueue(tenant=T, tasks=(NewTask(id="a", spec=SPEC),)), now)
    claim = Claim(tenant=T, claim_id="c", worker=WorkerInfo(id="w", incarnation="1"))
    [task] = theirs.apply(claim, now).tasks
    await w.store.commit(other, theirs.cut(b"x" * 16))
    [told] = (await w.complete(task)).items
    assert told.state.word == "completed"
    assert w.metrics.fences == 1
    assert w.metrics.loads == 2


@in_world
async def test_a_requester_that_goes_while_its_rows_are_read_changes_nothing(w: World) -> None:
    w.store.look_up_gate.clear()
    looking = w.enqueue("a", given=True)
    await w.settle()
    looking.cancel()
    w.store.look_up_gate.set()
    await w.settle()
    assert w.store.commits == [] and w.metrics.pending_commands == 0


@in_world
async def test_a_read_that_never_ends_is_answered_with_503(w: World) -> None:
    w.store.look_up_gate.clear()
    with pytest.raises(Unavailable, match="in time"):
        await w.enqueue("a", given=True)
    w.store.look_up_gate.set()
