"""Natural group commit: what gathers while one commit is in flight is the next batch."""

from __future__ import annotations

import asyncio

from lineshaft.engine import Limits
from tests.engine.world import World, in_world


def ids(batch: object) -> list[str]:
    return [task.id for task in batch.tasks]  # type: ignore[attr-defined]


@in_world
async def test_requests_of_one_iteration_share_a_commit(w: World) -> None:
    await asyncio.gather(*(w.enqueue(f"t{n}") for n in range(10)))
    assert [len(batch.tasks) for batch in w.store.commits] == [10]


@in_world
async def test_what_gathers_while_a_commit_is_in_flight_is_the_next(w: World) -> None:
    w.store.stall()
    first = w.enqueue("a")
    await w.settle()
    rest = [w.enqueue("b"), w.enqueue("c")]
    await w.settle()
    assert [ids(batch) for batch in w.store.commits] == [["a"]]
    w.store.go_on()
    await asyncio.gather(first, *rest)
    assert [ids(batch) for batch in w.store.commits] == [["a"], ["b", "c"]]
    assert [batch.position for batch in w.store.commits] == [1, 2]


@in_world
async def test_a_parked_claim_is_matched_in_the_commit_of_the_enqueue(w: World) -> None:
    claim = w.claim(wait=30_000)
    await w.settle()
    assert not claim.done() and w.store.commits == []
    w.enqueue("a")
    claimed = await claim
    assert [task.id for task in claimed.tasks] == ["a"]
    assert len(w.store.commits) == 1


@in_world(limits=Limits(batch_commands=3))
async def test_a_batch_is_bounded_and_the_rest_waits_its_turn(w: World) -> None:
    w.store.stall()
    handles = [w.enqueue(f"t{n}") for n in range(8)]
    await w.settle()
    w.store.go_on()
    await asyncio.gather(*handles)
    assert [len(batch.tasks) for batch in w.store.commits] == [3, 3, 2]


@in_world
async def test_what_changes_nothing_commits_nothing(w: World) -> None:
    await w.enqueue("a")
    await w.get("a")
    [task] = (await w.claim()).tasks
    before = len(w.store.commits)
    await w.heartbeat(task)
    await w.get("a")
    assert len(w.store.commits) == before


@in_world
async def test_whoever_asks_in_a_loop_stops_nobody(w: World) -> None:
    await w.enqueue("a")
    other = asyncio.ensure_future(w.enqueue("b"))
    for _ in range(20):
        await w.get("a")
    assert other.done() and (await other).position == 2


@in_world
async def test_a_wait_that_runs_out_is_answered_at_its_time(w: World) -> None:
    started = w.clock.now()
    claimed = await w.claim(wait=5_000)
    assert claimed.tasks == [] and 5_000 <= w.clock.now() - started <= 5_002


@in_world
async def test_a_lease_runs_out_at_its_time(w: World) -> None:
    await w.enqueue("a")
    [task] = (await w.claim(lease=10_000)).tasks
    again = await w.claim(wait=20_000, worker="other")
    assert [t.id for t in again.tasks] == ["a"]
    assert again.tasks[0].run.lost_leases == 1 and again.tasks[0].lease.fence > task.lease.fence


@in_world
async def test_counters_are_kept(w: World) -> None:
    await asyncio.gather(*(w.enqueue(f"t{n}") for n in range(10)))
    await w.get("t1")
    metrics = w.metrics
    assert (metrics.commits, metrics.commands, metrics.committed_rows) == (1, 11, 10)
    assert metrics.batch_commands.cumulated()[3] == ("10", 1)
    assert metrics.pending_commands == metrics.pending_bytes == 0
