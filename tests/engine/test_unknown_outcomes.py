"""An unknown outcome is settled by sending the same batch again, a fence by life anew."""

from __future__ import annotations

import asyncio

import pytest

from lineshaft.errors import LeaseLost, LineshaftError, Unavailable
from lineshaft.store.base import StoreInUse
from tests.engine.world import World, in_world


def positions_and_nonces(w: World) -> list[tuple[int, bytes]]:
    return [(batch.position, batch.nonce) for batch in w.store.commits]


@pytest.mark.parametrize("outcome", ["unapplied", "applied", "crashed"])
def test_the_same_batch_is_sent_until_its_outcome_is_known(outcome: str) -> None:
    @in_world
    async def story(w: World) -> None:
        w.store.script.extend([outcome] * 3)
        await w.enqueue("a")
        sent = positions_and_nonces(w)
        assert len(sent) == 4 and len(set(sent)) == 1
        assert w.store.acquired == 1
        assert w.metrics.commit_retries == 3
        assert [record.position for record in (await w.engine.log("acme", 0)).records] == [1]

    story()


@in_world
async def test_health_says_since_when_the_store_does_not_answer(w: World) -> None:
    w.store.script.extend(["unapplied"] * 12)
    handle = w.enqueue("a")
    await w.pass_time(0.3)
    assert w.shard_health.not_answering_since == w.clock.wall
    assert "no answer" in w.shard_health.reason
    assert not handle.done()
    await w.pass_time(2)
    assert w.shard_health.state == "stalled" and not w.engine.health().ready
    assert "no answer" in (w.engine.trouble() or "")
    with pytest.raises(Unavailable, match="same ids"):
        await handle
    await w.pass_time(60)
    assert w.engine.health().ready and w.shard_health.not_answering_since is None
    assert (await w.get("a")).task.id == "a"


@in_world
async def test_back_off_doubles_up_to_its_cap(w: World) -> None:
    w.store.script.extend(["unapplied"] * 10)
    asyncio.ensure_future(w.enqueue("a")).add_done_callback(lambda reply: reply.exception())
    started = w.engine.clock.monotonic()
    while w.metrics.commits == 0:
        await w.pass_time(0.05)
    # 0.05 + 0.1 + … + 3.2 and three times the cap of 5 s
    assert 21 < w.engine.clock.monotonic() - started < 22


@in_world
async def test_a_fence_fails_whoever_waits_and_the_shard_lives_anew(w: World) -> None:
    await w.enqueue("kept")
    parked = w.claim(wait=60_000, worker="other", queues=("elsewhere",))
    w.store.stall()
    w.store.script.append("fence")
    lost = w.enqueue("lost")
    await w.settle()
    gathered = w.enqueue("gathered")
    w.store.go_on()
    for handle in (lost, gathered, parked):
        with pytest.raises(Unavailable, match="repeat") as caught:
            await handle
        assert caught.value.retry_after
    assert w.shard_health.epoch == 2 and w.metrics.fences == 1
    assert (await w.get("kept")).task.id == "kept"
    created = await w.enqueue("lost", given=True)
    assert created.items[0].created and created.position == 2


@in_world
async def test_a_request_that_comes_while_the_shard_loads_is_served_after(w: World) -> None:
    w.store.script.append("fence")
    w.store.load_gate.clear()
    with pytest.raises(Unavailable):
        await w.enqueue("lost")
    later = w.enqueue("later")
    await w.settle()
    assert w.shard_health.state == "unowned" and not later.done()
    w.store.load_gate.set()
    assert (await later).items[0].created


@in_world
async def test_where_another_owner_stays_commands_answer_503(w: World) -> None:
    w.store.refuse_acquire = StoreInUse("process 7 at there owns the store")
    w.store.script.append("fence")
    with pytest.raises(Unavailable):
        await w.enqueue("lost")
    await w.settle()
    with pytest.raises(Unavailable, match="process 7 at there"):
        await w.enqueue("refused")
    assert w.shard_health.state == "unowned" and "process 7" in w.shard_health.reason
    w.store.refuse_acquire = None
    await w.pass_time(10)
    assert w.engine.health().ready
    await w.enqueue("served")


@in_world
async def test_fences_in_a_row_are_not_answered_by_haste(w: World) -> None:
    w.store.script.extend(["fence"] * 8)
    started = w.engine.clock.monotonic()
    while w.store.script:
        with pytest.raises(Unavailable):
            await w.enqueue("a")
        await w.pass_time(0.01)
    assert w.metrics.fences == 8
    assert 3 < w.engine.clock.monotonic() - started < 5
    await w.pass_time(5)
    await w.enqueue("a")


@in_world
async def test_leases_outlive_a_fence(w: World) -> None:
    await w.enqueue("a")
    [task] = (await w.claim()).tasks
    w.store.script.append("fence")
    with pytest.raises(Unavailable):
        await w.enqueue("b")
    [reply] = (await w.complete(task)).items
    assert not isinstance(reply, LineshaftError) and not isinstance(reply, LeaseLost)


@in_world
async def test_a_rule_that_breaks_drops_the_memory_and_not_the_shard(
    w: World,
) -> None:
    await w.enqueue("a")
    shard = w.engine.runners[0].intake.shard
    assert shard is not None
    shard._memory.find = lambda *_: 1 / 0  # type: ignore[method-assign,assignment]
    with pytest.raises(LineshaftError, match="internal error") as caught:
        await w.get("a")
    assert caught.value.status == 500
    await w.pass_time(1)
    assert w.shard_health.epoch == 2
    assert (await w.get("a")).task.id == "a"
