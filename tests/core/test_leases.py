"""Leases: who holds a task, for how long, and what becomes of those who hold it no longer."""

from __future__ import annotations

import json

import pytest

from lineshaft.core import commands as c
from lineshaft.core.batch import Blob
from lineshaft.core.loading import MAX_RENEWALS
from lineshaft.core.task import MAX_LOST_LEASES, Progress, State, Task, lease_token
from lineshaft.errors import LeaseLost
from tests.core.world import HOUR, LEASE, MINUTE, SECOND, World, ids


def lost_leases(task: Task) -> int:
    assert task.run is not None
    return task.run.lost_leases


def error_type(task: Task) -> str:
    assert task.run is not None
    error = task.run.error or task.run.attempts[-1].error
    assert error is not None
    return str(json.loads(error)["type"])


def test_a_lost_lease_queues_the_task_at_once_for_another_attempt(w: World) -> None:
    w.enqueue()
    [lost] = w.claim("a")
    w.advance(LEASE - 1)
    assert w.claim("b") == []
    w.advance(1)
    [again] = w.claim("b")
    assert (again.id, again.attempt, lost_leases(again)) == (lost.id, 2, 1)


def test_a_frozen_worker_is_not_given_what_it_has_just_lost(w: World) -> None:
    w.enqueue()
    [lost] = w.claim("frozen")
    parked = w.park("frozen")
    w.advance(LEASE)
    assert ids(parked.tasks) == []
    [again] = w.claim("b")
    assert (again.id, again.attempt) == (lost.id, 2)


def test_a_heartbeat_extends_the_lease(w: World) -> None:
    w.enqueue()
    [held] = w.claim()
    for _ in range(5):
        w.advance(LEASE - 1)
        answer = w.heartbeat(held)
        assert (answer.state, answer.lease_ttl, answer.directive) == (State.RUNNING, LEASE, "continue")
    assert w.get(held).state is State.RUNNING
    w.advance(LEASE)
    assert w.get(held).state is State.QUEUED


def test_a_plain_heartbeat_is_not_written(w: World) -> None:
    w.enqueue()
    [held] = w.claim()
    w.advance(SECOND)
    position, row = w.rows.position, w.row(held)
    w.heartbeat(held)
    assert (w.rows.position, w.row(held)) == (position, row)


def test_a_heartbeat_never_shortens_a_lease(w: World) -> None:
    w.enqueue()
    [held] = w.claim()
    w.apply(c.Grace(tenant="acme", duration=HOUR))
    w.heartbeat(held)
    w.advance(HOUR)
    assert w.get(held).state is State.RUNNING


def test_fences_and_tokens_rise_with_every_lease(w: World) -> None:
    w.enqueue(id="t", max_retries=100)
    fences, tokens = [], []
    for way in ("lost", "failed", "released", "snoozed", "reload", "manual retry", "deleted"):
        [held] = w.claim()
        assert held.lease is not None
        fences.append(held.lease.fence)
        tokens.append(lease_token(held))
        match way:
            case "lost":
                w.advance(LEASE)
            case "failed":
                w.fail(held, retry_after=0)
            case "released":
                w.release(held)
            case "snoozed":
                w.snooze(held, 0)
            case "reload":
                w.reload()
                w.release(held)
                w.reload()
            case "manual retry":
                w.complete(held)
                w.retry("t")
            case "deleted":
                w.complete(held)
                w.delete("t")
                w.enqueue(id="t")
    [held] = w.claim()
    assert held.lease is not None
    fences.append(held.lease.fence)
    assert fences == sorted(set(fences))
    assert len({*tokens, lease_token(held)}) == len(fences)


@pytest.mark.parametrize("held_again", [False, True])
@pytest.mark.parametrize(
    "op, fields",
    [
        (c.Start, {}),
        (c.Heartbeat, {"progress": Progress(done=1), "checkpoint": b"1", "usage": b"{}"}),
        (c.Complete, {"result": b"1", "carry": b"2"}),
        (c.Fail, {}),
        (c.Release, {}),
        (c.Snooze, {"delay": 1}),
        (c.CancelHeld, {}),
    ],
)
def test_a_stale_token_changes_nothing(
    w: World, op: type[c.Op], fields: dict[str, object], held_again: bool
) -> None:
    w.enqueue()
    [stale] = w.claim("a")
    w.advance(LEASE)
    if held_again:
        w.claim("b")
    row, blobs, position = w.row(stale), dict(w.rows.blobs), w.rows.position
    with pytest.raises(LeaseLost) as refused:
        w.op(op, stale, **fields)
    assert refused.value.task_id == stale.id
    assert (w.row(stale), w.rows.blobs, w.rows.position) == (row, blobs, position)


def test_a_late_worker_cannot_complete_what_another_completed(w: World) -> None:
    w.enqueue()
    [late] = w.claim("a")
    w.advance(LEASE)
    [held] = w.claim("b")
    w.complete(held, b'"of b"')
    with pytest.raises(LeaseLost):
        w.complete(late, b'"of a"')
    assert w.blob(Blob.RESULT, held) == b'"of b"'


def test_a_task_fails_when_it_reaches_the_limit_of_lost_leases(w: World) -> None:
    w.enqueue(id="poison", max_retries=100)
    for number in range(1, MAX_LOST_LEASES + 1):
        [held] = w.claim()
        assert held.attempt == number
        w.advance(LEASE)
    task = w.get("poison")
    assert (task.state, lost_leases(task), error_type(task)) == (
        State.FAILED,
        MAX_LOST_LEASES,
        "too_many_lost_leases",
    )
    assert w.claim() == []


def test_a_poison_task_ends_also_where_it_kills_before_it_starts(w: World) -> None:
    w.enqueue(id="poison", max_retries=0)
    for _ in range(MAX_LOST_LEASES):
        assert ids(w.claim(start=False)) == ["poison"]
        w.advance(LEASE)
    assert w.get("poison").state is State.FAILED


def test_a_lost_lease_that_used_up_the_last_attempt_fails_the_task(w: World) -> None:
    w.enqueue(id="t", max_retries=1)
    [held] = w.claim()
    w.fail(held, retry_after=0)
    w.claim()
    w.advance(LEASE)
    task = w.get("t")
    assert (task.state, task.attempt, error_type(task)) == (State.FAILED, 2, "too_many_lost_leases")


def test_a_poison_task_does_not_hold_up_the_others(w: World) -> None:
    w.enqueue(id="poison", priority=-1)
    w.enqueue(id="good")
    for _ in range(MAX_LOST_LEASES):
        w.claim()
        w.advance(LEASE)
    assert w.get("poison").state is State.FAILED
    assert ids(w.claim()) == ["good"]


def test_a_heartbeat_brings_progress_and_checkpoint_to_the_next_attempt(w: World) -> None:
    w.enqueue()
    [held] = w.claim()
    w.heartbeat(
        held, progress=Progress(done=1, total=4, message="one"), checkpoint=b'{"at":1}', usage=b'{"cpu":1}'
    )
    seen = w.get(held)
    assert seen.run is not None and seen.run.progress is not None
    assert (seen.run.progress.done, seen.run.progress.total, seen.run.progress.message) == (1, 4, "one")
    assert (seen.run.progress.at, seen.run.has_checkpoint, seen.run.usage) == (w.now, True, b'{"cpu":1}')
    assert w.blob(Blob.CHECKPOINT, held) == b'{"at":1}'
    w.advance(LEASE)
    w.reload()
    [again] = w.claim()
    assert again.run is not None and again.run.has_checkpoint
    assert w.blob(Blob.CHECKPOINT, again) == b'{"at":1}'
    w.heartbeat(again, checkpoint=b'{"at":2}')
    assert w.blob(Blob.CHECKPOINT, again) == b'{"at":2}'


# Time limits of an attempt.


def test_past_its_timeout_an_attempt_is_ended_and_retried(w: World) -> None:
    w.enqueue(id="t", timeout=10 * SECOND)
    [held] = w.claim(lease=MINUTE)
    w.advance(10 * SECOND - 1)
    w.heartbeat(held)
    w.advance(1)
    task = w.get("t")
    assert (task.state, task.attempt, error_type(task), lost_leases(task)) == (
        State.SCHEDULED,
        1,
        "timeout",
        0,
    )
    with pytest.raises(LeaseLost):
        w.complete(held)


def test_a_timeout_without_retries_left_fails_the_task(w: World) -> None:
    w.enqueue(id="t", timeout=10 * SECOND, max_retries=0)
    w.claim(lease=MINUTE)
    w.advance(10 * SECOND)
    assert w.get("t").state is State.FAILED
    assert error_type(w.get("t")) == "timeout"


def test_the_timeout_runs_from_the_start_not_from_the_claim(w: World) -> None:
    w.enqueue(id="t", timeout=10 * SECOND)
    [held] = w.claim(lease=MINUTE, start=False)
    w.advance(20 * SECOND)
    assert w.get("t").state is State.CLAIMED
    w.start(held)
    w.advance(10 * SECOND - 1)
    assert w.get("t").state is State.RUNNING
    w.advance(1)
    assert w.get("t").state is State.SCHEDULED


def test_the_timeout_of_an_earlier_attempt_does_not_end_a_later_one(w: World) -> None:
    w.enqueue(id="t", timeout=10 * SECOND)
    [held] = w.claim(lease=MINUTE)
    w.advance(5 * SECOND)
    w.release(held)
    w.claim(lease=MINUTE)
    w.advance(9 * SECOND)
    assert w.get("t").state is State.RUNNING
    w.advance(SECOND)
    assert w.get("t").state is State.SCHEDULED


def test_a_timeout_survives_a_reload(w: World) -> None:
    w.enqueue(id="t", timeout=2 * HOUR)
    [held] = w.claim(lease=HOUR)
    w.reload()
    for _ in range(5):
        w.advance(30 * MINUTE)
        if w.get("t").state is State.RUNNING:
            w.heartbeat(held)
    assert error_type(w.get("t")) == "timeout"


# Nobody loses a lease because the coordinator was away.


def test_a_lease_is_extended_by_the_time_that_nobody_owned_the_shard(w: World) -> None:
    w.enqueue()
    [held] = w.claim()
    w.advance(LEASE - 1)
    w.reload(down=HOUR)
    w.tick()
    assert w.heartbeat(held).state is State.RUNNING
    w.complete(held)


def test_after_a_load_a_dead_worker_is_still_noticed(w: World) -> None:
    w.enqueue()
    [held] = w.claim()
    w.reload(down=HOUR)
    w.advance(2 * LEASE)
    assert w.get(held).state is State.QUEUED


def test_repeated_outages_do_not_keep_a_dead_workers_lease_for_ever(w: World) -> None:
    w.enqueue()
    [held] = w.claim()
    for _ in range(MAX_RENEWALS + 2):
        w.reload(down=LEASE - 1)
        w.tick()
    assert w.get(held).state is State.QUEUED


def test_a_worker_that_is_heard_of_between_outages_keeps_its_lease(w: World) -> None:
    w.enqueue()
    [held] = w.claim()
    for _ in range(3 * MAX_RENEWALS):
        w.reload(down=LEASE)
        w.heartbeat(held)
    assert w.get(held).state is State.RUNNING


def test_loading_twice_equals_loading_once(w: World) -> None:
    w.enqueue()
    w.enqueue(delay=MINUTE)
    w.enqueue("other", queue="q")
    w.claim(claim_id="c")
    w.reload()
    w.reload()
    first = w.rows.all()
    w.reload()
    assert [(t.id, t.state, t.attempt, t.run_at) for t in w.rows.all()] == [
        (t.id, t.state, t.attempt, t.run_at) for t in first
    ]


def test_no_lease_is_lost_while_the_store_stalls_and_grace_makes_up_for_it(w: World) -> None:
    task = w.enqueue(id="t")
    w.enqueue(id="due", delay=MINUTE)
    [held] = w.claim()
    w.now += 2 * LEASE
    w.tick(leases=False)
    assert w.get(task).state is State.RUNNING
    assert w.get("due").state is State.QUEUED
    w.apply(c.Grace(tenant="acme", duration=2 * LEASE))
    w.tick()
    assert w.heartbeat(held).state is State.RUNNING
    w.advance(4 * LEASE)
    assert w.get(task).state is State.QUEUED


def test_a_grace_does_not_delay_the_loss_of_later_leases(w: World) -> None:
    """Regression: a lease that runs longer than its TTL must not stand before those that do not."""
    w.enqueue(id="old")
    w.claim()
    w.advance(10 * SECOND)
    w.enqueue(id="newer")
    w.claim()
    w.apply(c.Grace(tenant="*", duration=HOUR))
    w.enqueue(id="after")
    w.claim()
    w.advance(LEASE)
    assert [w.get(id).state for id in ("old", "newer", "after")] == [
        State.RUNNING,
        State.RUNNING,
        State.QUEUED,
    ]
    w.advance(HOUR - 10 * SECOND)
    assert [w.get(id).state for id in ("old", "newer")] == [State.QUEUED, State.RUNNING]


def test_while_the_store_stalls_no_lease_is_a_deadline(w: World) -> None:
    w.enqueue()
    w.claim()
    assert w.shard.next_deadline() == w.now + LEASE
    assert w.shard.next_deadline(leases=False) is None
    w.enqueue(delay=MINUTE)
    assert w.shard.next_deadline(leases=False) == w.now + MINUTE
    assert w.shard.open_leases() == 1


def test_a_tick_bounds_its_work_and_the_next_goes_on(w: World) -> None:
    number = 2_500
    w.bulk(*(w.new(id=f"{n}", delay=MINUTE) for n in range(number)))
    w.now += MINUTE
    w.tick()
    assert 0 < w.counts()[State.QUEUED] < number
    w.advance(0)
    assert w.counts() == {State.QUEUED: number}
    for _ in range(3):
        w.claim(max=1_000)
    w.now += LEASE
    w.tick()
    assert w.counts()[State.RUNNING] == number - w.counts()[State.QUEUED] > 0
    w.advance(0)
    assert w.counts() == {State.QUEUED: number}


def test_a_worker_without_a_name_keeps_its_lease_too(w: World) -> None:
    w.enqueue()
    [held] = w.claim(None)
    w.advance(LEASE - 1)
    assert w.heartbeat(held).directive == "continue"
    w.cancel(held)
    assert w.heartbeat(held).directive == "cancel"
    assert w.directives == [], "nobody to tell at once"


def test_time_never_runs_backwards(w: World) -> None:
    task = w.enqueue(delay=MINUTE)
    w.now -= HOUR
    later = w.enqueue()
    assert later.created_at >= task.created_at
    w.reload()
    assert w.enqueue().created_at >= task.created_at


def test_leases_of_many_lengths_are_lost_each_in_its_time(w: World) -> None:
    for number in range(1, 6):
        w.enqueue(id=f"{number}")
        w.claim(lease=number * SECOND)
    for number in range(1, 6):
        w.advance(SECOND)
        assert w.get(f"{number}").state is State.QUEUED
        if number < 5:
            assert w.get(f"{number + 1}").state is State.RUNNING


def test_the_history_of_attempts_tells_how_each_lease_ended(w: World) -> None:
    w.enqueue(id="t", max_retries=9, timeout=5 * MINUTE)
    for way in (w.release, lambda t: w.snooze(t, 0), lambda t: w.fail(t, retry_after=0)):
        [held] = w.claim()
        way(held)
    w.claim()
    w.advance(LEASE)
    w.claim(lease=HOUR)
    w.advance(5 * MINUTE)
    w.promote("t")
    [held] = w.claim()
    w.complete(held)
    run = w.get("t").run
    assert run is not None
    assert [(attempt.number, attempt.outcome) for attempt in run.attempts] == [
        (1, "released"), (1, "snoozed"), (1, "failed"), (2, "lease_lost"), (3, "timeout"), (4, "completed"),
    ]  # fmt: skip
    assert [attempt.fence for attempt in run.attempts] == [1, 2, 3, 4, 5, 6]


def test_the_history_of_attempts_is_bounded_and_counts_what_it_drops(w: World) -> None:
    w.enqueue(id="t")
    for _ in range(30):
        [held] = w.claim()
        w.release(held)
    run = w.get("t").run
    assert run is not None
    assert (len(run.attempts), run.dropped_attempts) == (20, 10)
    assert run.attempts[-1].fence == 30
