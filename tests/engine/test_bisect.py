"""A rejected batch is bisected: the culprit gets 422, the others their replies."""

from __future__ import annotations

import asyncio

import pytest

from lineshaft.core.commands import Cancel, Claim, Complete, Enqueue, NewTask, Release, Report
from lineshaft.core.loading import MAX_RENEWALS
from lineshaft.core.replies import Enqueued, Found
from lineshaft.core.task import State, lease_token
from lineshaft.errors import Invalid, LineshaftError, Unavailable
from tests.engine.scripted_store import POISON
from tests.engine.world import SPEC, T, World, in_world

BAD = b'"' + POISON + b'"'


async def stored(w: World) -> set[str]:
    log = await w.engine.log(T, 0)
    return {change.task_id for record in log.records for change in record.changes}


@pytest.mark.parametrize("culprit", range(9))
def test_the_culprit_alone_is_refused(culprit: int) -> None:
    @in_world
    async def story(w: World) -> None:
        handles = [w.enqueue(f"t{n}", payload=BAD if n == culprit else b"1") for n in range(9)]
        replies = await asyncio.gather(*handles, return_exceptions=True)
        for n, reply in enumerate(replies):
            if n == culprit:
                assert isinstance(reply, Invalid) and "cannot" in reply.reason
            else:
                assert not isinstance(reply, BaseException) and reply.items[0].created
        assert await stored(w) == {f"t{n}" for n in range(9) if n != culprit}
        assert w.metrics.bisects == 1
        assert w.metrics.pending_bytes == w.metrics.pending_commands == 0

    story()


@in_world
async def test_several_culprits_are_found_each(w: World) -> None:
    handles = [w.enqueue(f"t{n}", payload=BAD if n % 3 == 0 else b"1") for n in range(8)]
    replies = await asyncio.gather(*handles, return_exceptions=True)
    assert [isinstance(reply, Invalid) for reply in replies] == [n % 3 == 0 for n in range(8)]


@in_world
async def test_a_culprit_alone_in_its_batch_is_refused(w: World) -> None:
    with pytest.raises(Invalid):
        await w.enqueue("a", payload=BAD)
    assert (await w.enqueue("b")).items[0].created


@in_world
async def test_what_is_applied_again_is_applied_in_its_order(w: World) -> None:
    handles = [
        w.enqueue("a"),
        w.enqueue("bad", payload=BAD),
        w.submit(Cancel(tenant=T, id="a")),
        w.get("a"),
    ]
    made, refused, cancelled, read = await asyncio.gather(*handles, return_exceptions=True)
    assert isinstance(made, Enqueued) and isinstance(refused, Invalid)
    assert isinstance(cancelled, Found) and cancelled.task.state is State.CANCELLED
    assert isinstance(read, Found) and read.task.state is State.CANCELLED


@in_world
async def test_what_gathered_meanwhile_comes_after_in_order(w: World) -> None:
    w.store.stall()
    bad = w.enqueue("bad", payload=BAD)
    good = w.enqueue("good")
    await w.settle()
    later = [w.enqueue("later"), w.get("good"), w.get("bad")]
    w.store.go_on()
    with pytest.raises(Invalid):
        await bad
    assert (await good).position < (await later[0]).position
    assert (await later[1]).task.id == "good"
    with pytest.raises(LineshaftError, match="no task"):
        await later[2]


@in_world
async def test_parked_claims_survive_and_get_the_task_that_could_be_stored(w: World) -> None:
    parked = w.claim(wait=60_000)
    other = w.claim(wait=60_000, worker="other")
    await w.settle()
    bad = w.enqueue("bad", payload=BAD)
    with pytest.raises(Invalid):
        await bad
    await w.settle()
    assert not parked.done() and not other.done()
    await w.enqueue("good", "better")
    assert [task.id for task in (await parked).tasks] == ["good"]
    assert [task.id for task in (await other).tasks] == ["better"]


@in_world
async def test_a_parked_claim_does_not_release_again_what_it_did_not_know_when_it_came(w: World) -> None:
    await w.enqueue("held")
    parked = w.claim(wait=60_000, queues=("elsewhere",), holding=())
    await w.settle()
    [held] = (await w.claim()).tasks
    with pytest.raises(Invalid):
        await w.enqueue("bad", payload=BAD)
    await w.settle()
    assert not parked.done()
    [reply] = (await w.complete(held)).items
    assert not isinstance(reply, LineshaftError)
    parked.cancel()


@in_world
async def test_a_waiting_enqueue_survives_and_says_that_it_created(w: World) -> None:
    waiting = w.enqueue("a", wait=60_000, given=True)
    await w.settle()
    with pytest.raises(Invalid):
        await w.enqueue("bad", payload=BAD)
    fresh, bad = w.enqueue("b", wait=60_000), w.enqueue("bad", payload=BAD)
    with pytest.raises(Invalid):
        await bad
    await w.settle()
    assert not waiting.done() and not fresh.done()
    tasks = (await w.claim(5)).tasks
    assert [task.id for task in tasks] == ["a", "b"]
    await w.complete(*tasks)
    for handle in (waiting, fresh):
        found = await handle
        assert found.ended and found.created


@in_world
async def test_what_parked_in_a_batch_that_is_rejected_twice_is_done_again_whole(w: World) -> None:
    good, waiting, bad = w.enqueue("good"), w.enqueue("w", wait=60_000), w.enqueue("bad", payload=BAD)
    await good
    with pytest.raises(Invalid):
        await bad
    await w.settle()
    assert not waiting.done()
    await w.complete(*(await w.claim(5)).tasks)
    assert (await waiting).created


@in_world
async def test_one_bad_item_of_a_bulk_spoils_only_itself(w: World) -> None:
    tasks = tuple(NewTask(id=f"t{n}", spec=SPEC, payload=BAD if n == 4 else b"1") for n in range(7))
    reply = await w.submit(Enqueue(tenant=T, tasks=tasks))
    assert [isinstance(item, Invalid) for item in reply.items] == [n == 4 for n in range(7)]
    assert reply.position == w.engine.position(T)
    assert w.metrics.pending_bytes == w.metrics.pending_commands == 0


@in_world
async def test_one_bad_result_of_a_report_spoils_only_itself(w: World) -> None:
    await w.enqueue("a", "b", "c", "d")
    tasks = (await w.claim(3)).tasks
    ops = tuple(
        Complete(task_id=task.id, token=lease_token(task), result=BAD if task.id == "b" else b"1")
        for task in tasks
    )
    reply = await w.submit(Report(tenant=T, items=ops, claim=Claim(tenant=T)))
    assert [isinstance(item, Invalid) for item in reply.items] == [False, True, False]
    assert [task.id for task in reply.tasks] == ["d"]
    [released] = (await w.report(Release(task_id="b", token=lease_token(tasks[1])))).items
    assert not isinstance(released, LineshaftError)


@pytest.mark.parametrize("leases", [0, 1])
def test_a_fence_during_the_bisect_tells_everybody_to_repeat(leases: int) -> None:
    @in_world
    async def story(w: World) -> None:
        if leases:  # so that the load itself has something to commit, and is fenced there
            await w.enqueue("held")
            await w.claim()
        parked = w.claim(wait=60_000, queues=("elsewhere",))
        await w.settle()
        handles = [w.enqueue("a"), w.enqueue("bad", payload=BAD), w.enqueue("c")]
        w.store.script.extend(["ok", "fence"])
        for handle in (*handles, parked):
            with pytest.raises(Unavailable):
                await handle
        await w.enqueue("d")
        assert await stored(w) - {"held"} == {"d"}

    story()


@in_world
async def test_the_requester_of_the_culprit_may_have_gone(w: World) -> None:
    w.store.stall()
    bad, good = w.enqueue("bad", payload=BAD), w.enqueue("good")
    await w.settle()
    bad.cancel()
    w.store.go_on()
    assert (await good).items[0].created
    assert await stored(w) == {"good"}


async def isolate(w: World) -> int:
    """Enqueue many things that cannot be stored; return how often the shard was loaded to find them all."""
    before = w.metrics.loads
    tasks = tuple(NewTask(id=f"bad{n}", spec=SPEC, payload=BAD) for n in range(16))
    reply = await w.submit(Enqueue(tenant=T, tasks=tasks))
    assert all(isinstance(item, Invalid) for item in reply.items)
    return int(w.metrics.loads - before)


@in_world
async def test_however_often_culprits_make_it_load_a_lease_is_charged_for_one_outage(w: World) -> None:
    await w.enqueue("held")
    [held] = (await w.claim()).tasks
    assert held.lease is not None
    silence = 0.9 * held.lease.ttl / 1000
    for _ in range(MAX_RENEWALS - 1):
        await w.pass_time(silence)
        assert await isolate(w) > MAX_RENEWALS
    assert (await w.get("held")).task.state is State.RUNNING


@in_world
async def test_what_cannot_be_stored_does_not_keep_a_dead_workers_lease_for_ever(w: World) -> None:
    await w.enqueue("held")
    [held] = (await w.claim()).tasks
    assert held.lease is not None
    for _ in range(MAX_RENEWALS + 2):
        await w.pass_time(0.9 * held.lease.ttl / 1000)
        await isolate(w)
    assert (await w.get("held")).task.state is State.QUEUED
