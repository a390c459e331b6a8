"""A command whose requester has gone: nothing is leased to nobody."""

from __future__ import annotations

import asyncio

from lineshaft.core.commands import Claim, Report, WorkerInfo
from lineshaft.core.task import State
from lineshaft.errors import LineshaftError
from tests.engine.world import T, World, in_world


async def state(w: World, id: str) -> tuple[State, int]:
    task = (await w.get(id)).task
    return task.state, task.attempt


@in_world
async def test_a_parked_claim_is_unparked(w: World) -> None:
    gone, there = w.claim(wait=60_000, worker="gone"), w.claim(wait=60_000, worker="there")
    await w.settle()
    gone.cancel()
    await w.enqueue("a")
    assert [task.id for task in (await there).tasks] == ["a"]
    assert w.metrics.parked == 0


@in_world
async def test_a_wait_is_unparked(w: World) -> None:
    await w.enqueue("a")
    gone, there = w.get("a", wait=60_000), w.get("a", wait=60_000)
    gone.cancel()
    await w.complete(*(await w.claim()).tasks)
    assert (await there).ended and gone.cancelled()


@in_world
async def test_cancelling_whoever_awaits_it_is_enough(w: World) -> None:
    async def request() -> object:
        return await w.claim(wait=60_000)

    requester = asyncio.ensure_future(request())
    await w.settle()
    assert w.metrics.parked == 1
    requester.cancel()
    await w.settle()
    assert w.metrics.parked == 0


@in_world
async def test_what_was_claimed_but_not_shown_yet_is_released_unburned(w: World) -> None:
    await w.enqueue("a")
    w.store.stall()
    claim = w.claim()
    await w.settle()
    claim.cancel()
    w.store.go_on()
    assert await state(w, "a") == (State.QUEUED, 0)


@in_world
async def test_what_was_delivered_to_a_parked_claim_that_goes_is_released(w: World) -> None:
    claim = w.claim(wait=60_000)
    await w.settle()
    w.store.stall()
    w.enqueue("a")
    await w.settle()
    claim.cancel()
    w.store.go_on()
    await w.settle()
    assert await state(w, "a") == (State.QUEUED, 0)


@in_world
async def test_an_answer_that_could_not_be_sent_is_abandoned(w: World) -> None:
    await w.enqueue("a", "b")
    claim = w.claim()
    await claim
    [held] = claim.result().tasks
    report = w.submit(
        Report(
            tenant=T,
            items=(),
            claim=Claim(tenant=T, max=1, worker=WorkerInfo(id="w", incarnation="1")),
        )
    )
    await report
    report.abandon()
    assert await state(w, "b") == (State.QUEUED, 0)
    assert not isinstance((await w.complete(held)).items[0], LineshaftError)
    claim.abandon()
    assert await state(w, "a") == (State.COMPLETED, 1)


@in_world
async def test_abandoning_twice_is_once(w: World) -> None:
    await w.enqueue("a")
    claim = w.claim()
    await claim
    claim.abandon()
    again = w.claim()
    claim.abandon()
    await again
    assert (await state(w, "a"))[0] is State.RUNNING


@in_world
async def test_what_a_repeated_claim_was_given_is_its_own(w: World) -> None:
    await w.enqueue("a")
    w.store.stall()
    first = w.claim(claim_id="c1")
    await w.settle()
    second = w.claim(claim_id="c1")
    await w.settle()
    first.cancel()
    w.store.go_on()
    [task] = (await second).tasks
    assert not isinstance((await w.complete(task)).items[0], LineshaftError)


@in_world
async def test_so_it_is_when_the_first_answer_was_ready_before(w: World) -> None:
    await w.enqueue("a")
    first = w.claim(claim_id="c1")
    await first
    [task] = (await w.claim(claim_id="c1")).tasks
    first.abandon()
    assert not isinstance((await w.complete(task)).items[0], LineshaftError)


@in_world
async def test_an_enqueue_whose_requester_goes_stays(w: World) -> None:
    w.enqueue("a").cancel()
    assert (await w.get("a")).task.id == "a"
