"""What people do to tasks: patch, promote, retry, delete, one or all that fit."""

from __future__ import annotations

import pytest

from lineshaft.core import commands as c
from lineshaft.core.batch import Blob
from lineshaft.core.task import State
from lineshaft.errors import Conflict, LeaseLost, NotFound, QueueClosed
from tests.core.world import DAY, HOUR, MINUTE, SECOND, World, ids

# Patch.


def test_patching_a_queued_task(w: World) -> None:
    w.enqueue(id="t", payload=b"1")
    task = w.patch("t", priority=4, queue="other", payload=b"2", tags=("x", "y"))
    assert (task.spec.priority, task.spec.queue, task.tags) == (4, "other", ("x", "y"))
    assert w.blob(Blob.PAYLOAD, task) == b"2"
    assert w.claim(queues=("default",)) == []
    assert ids(w.claim(queues=("other",))) == ["t"]


def test_patching_run_at_moves_between_scheduled_and_queued(w: World) -> None:
    w.enqueue(id="t", delay=HOUR)
    assert w.patch("t", run_at=w.now + MINUTE).state is State.SCHEDULED
    w.advance(MINUTE)
    assert w.get("t").state is State.QUEUED
    assert w.patch("t", run_at=w.now + HOUR).state is State.SCHEDULED
    assert w.claim() == []
    assert w.patch("t", run_at=w.now).state is State.QUEUED
    w.patch("t", run_at=w.now + HOUR)
    w.patch("t", run_at=w.now + 2 * HOUR)
    w.advance(2 * HOUR - 1)
    assert w.claim() == []
    w.advance(1)
    assert ids(w.claim()) == ["t"]


def test_patching_nothing_changes_nothing(w: World) -> None:
    w.enqueue(id="t")
    row = w.row("t")
    w.patch("t")
    assert w.row("t") == row


def test_a_task_that_has_started_or_ended_cannot_be_patched(w: World) -> None:
    w.enqueue(id="t")
    [held] = w.claim()
    with pytest.raises(Conflict):
        w.patch("t", priority=1)
    w.complete(held)
    with pytest.raises(Conflict):
        w.patch("t", priority=1)
    with pytest.raises(NotFound):
        w.patch("nobody", priority=1)


def test_a_task_cannot_be_patched_into_a_closed_queue(w: World) -> None:
    w.set_queue("shut", closed=True)
    w.enqueue(id="t")
    row = w.row("t")
    with pytest.raises(QueueClosed):
        w.patch("t", queue="shut")
    assert w.row("t") == row


def test_a_patched_task_counts_in_its_new_queue(w: World) -> None:
    w.enqueue(id="t")
    w.patch("t", queue="other")
    counts = {queue.queue: queue.counts.get(State.QUEUED, 0) for queue in w.queues()}
    assert counts == {"default": 0, "other": 1}
    w.reload()
    assert {queue.queue for queue in w.queues()} >= {"other"}


# Promote, retry, delete.


def test_promoting_a_scheduled_task_runs_it_now(w: World) -> None:
    w.enqueue(id="t", delay=HOUR)
    task = w.promote("t")
    assert (task.state, task.run_at) == (State.QUEUED, w.now)
    row = w.row("t")
    w.promote("t")
    assert w.row("t") == row
    assert ids(w.claim()) == ["t"]
    with pytest.raises(NotFound):
        w.promote("nobody")


def test_a_promoted_task_keeps_its_place_when_its_old_time_comes(w: World) -> None:
    w.enqueue(id="t", delay=HOUR)
    row = w.promote("t")
    w.advance(2 * HOUR)
    assert w.get("t") == row


def test_promoting_a_finished_task_is_a_conflict(w: World) -> None:
    w.enqueue(id="t")
    w.cancel("t")
    with pytest.raises(Conflict):
        w.promote("t")


@pytest.mark.parametrize("end", ["completed", "failed", "cancelled"])
def test_a_manual_retry_begins_a_new_generation(w: World, end: str) -> None:
    w.enqueue(id="t", max_retries=1, result_ttl=MINUTE)
    [held] = w.claim()
    match end:
        case "completed":
            w.complete(held, b'"old"')
        case "failed":
            w.fail(held, retry=False)
        case "cancelled":
            w.cancel_held(held)
    w.reload()
    w.now += SECOND
    task = w.retry("t")
    assert task.run is not None
    assert (task.state, task.attempt, task.run.generation, task.run.lost_leases) == (State.QUEUED, 0, 2, 0)
    assert (task.run.finished_at, task.run.prune_at, task.run.error, task.run.has_result) == (
        None,
        None,
        None,
        False,
    )
    assert task.run.result_expires_at is None
    assert w.blob(Blob.RESULT, task) is None
    [again] = w.claim()
    assert again.attempt == 1
    assert again.lease is not None and again.lease.fence == 2
    w.fail(again, retry_after=0)
    [again] = w.claim()
    assert w.fail(again, retry_after=0).state is State.FAILED


def test_a_retry_may_be_repeated_until_the_task_is_leased(w: World) -> None:
    w.enqueue(id="t")
    w.cancel("t")
    first = w.retry("t")
    row = w.row("t")
    w.reload()
    assert w.retry("t") == first
    assert w.row("t") == row
    w.claim()
    with pytest.raises(Conflict):
        w.retry("t")


def test_an_open_task_cannot_be_retried_by_hand(w: World) -> None:
    w.enqueue(id="t")
    with pytest.raises(Conflict):
        w.retry("t")
    w.claim()
    with pytest.raises(Conflict):
        w.retry("t")
    with pytest.raises(NotFound):
        w.retry("nobody")


def test_a_retried_task_is_not_pruned_while_it_is_open(w: World) -> None:
    w.enqueue(id="t", retention=MINUTE, delay=0)
    [held] = w.claim()
    w.complete(held)
    w.retry("t")
    w.advance(DAY)
    w.prune()
    assert w.get("t").state is State.QUEUED


def test_a_retried_task_does_not_expire_at_once(w: World) -> None:
    w.enqueue(id="t", expires_in=MINUTE)
    w.advance(MINUTE)
    assert w.get("t").state is State.CANCELLED
    w.advance(MINUTE)
    w.retry("t")
    w.tick()
    assert ids(w.claim()) == ["t"]


def test_deleting_forgets_a_finished_task_and_frees_its_id(w: World) -> None:
    w.enqueue(id="t", payload=b"1")
    [held] = w.claim()
    w.complete(held, b"2")
    assert w.delete("t").state is State.COMPLETED
    assert w.rows.tasks == {} and w.rows.blobs == {}
    with pytest.raises(NotFound):
        w.get("t")
    with pytest.raises(NotFound):
        w.delete("t")
    with pytest.raises(NotFound):
        w.complete(held, b"2")
    again = w.enqueue_again(id="t")
    assert again.created and again.task.seq != held.seq
    with pytest.raises(LeaseLost):
        w.complete(held, b"2")


def test_a_deleted_task_is_not_looked_up_while_the_store_may_still_have_it(w: World) -> None:
    w.enqueue(id="t")
    w.cancel("t")
    w.shard.apply(c.Delete(tenant="acme", id="t"), w.now)
    w.missing.clear()
    with pytest.raises(NotFound):
        w.get("t")
    assert w.missing == []
    w.shard.evict(0)
    w.enqueue(id="1")
    w.enqueue(id="2")
    w.shard.evict(0)
    w.missing.clear()
    with pytest.raises(NotFound):
        w.get("t")
    assert w.missing == [("acme", "t")]


def test_a_task_deleted_and_enqueued_anew_within_one_batch(w: World) -> None:
    w.enqueue(id="t", payload=b"1")
    w.cancel("t")
    w.shard.apply(c.Delete(tenant="acme", id="t"), w.now)
    w.shard.apply(c.Enqueue(tenant="acme", tasks=(w.new(id="t", payload=b"2"),)), w.now)
    w.tick()
    [held] = w.claim()
    assert w.blob(Blob.PAYLOAD, held) == b"2"
    assert len(w.rows.tasks) == 1


def test_an_open_task_cannot_be_deleted(w: World) -> None:
    w.enqueue(id="t")
    with pytest.raises(Conflict):
        w.delete("t")
    w.claim()
    with pytest.raises(Conflict):
        w.delete("t")


# Sweep.


def test_a_sweep_does_one_verb_to_all_that_fit(w: World) -> None:
    tasks = [w.enqueue(id=f"{n}", queue=f"q{n % 2}", tags=("even",) if n % 2 == 0 else ()) for n in range(6)]
    assert w.sweep("cancel", *tasks, tags=("even",)) == (3, 3)
    assert w.sweep("cancel", *tasks, queues=frozenset({"q1"}), dry_run=True) == (3, 3)
    assert w.counts() == {State.CANCELLED: 3, State.QUEUED: 3}
    assert w.sweep("retry", *tasks, states=frozenset({State.CANCELLED})) == (3, 3)
    assert w.counts() == {State.QUEUED: 6}


def test_a_sweep_judges_each_by_its_true_state(w: World) -> None:
    stale = [w.enqueue(id=f"{n}") for n in range(3)]
    [held] = w.claim()
    w.complete(held)
    w.cancel("1")
    states = frozenset({State.QUEUED})
    assert w.sweep("cancel", *stale, states=states) == (1, 1)
    assert w.get("0").state is State.COMPLETED


def test_a_sweep_never_touches_a_task_enqueued_anew_under_the_same_id(w: World) -> None:
    old = w.enqueue(id="t")
    w.cancel("t")
    w.delete("t")
    w.enqueue(id="t")
    assert w.sweep("cancel", old, names=frozenset({"work"})) == (0, 0)
    assert w.get("t").state is State.QUEUED


def test_a_sweep_counts_what_matches_though_it_cannot_be_changed(w: World) -> None:
    w.enqueue(id="t")
    w.claim()
    task = w.get("t")
    assert w.sweep("delete", task, names=frozenset({"work"})) == (1, 0)
    assert w.sweep("retry", task, names=frozenset({"work"})) == (1, 0)
    assert w.sweep("promote", task, names=frozenset({"work"})) == (1, 0)


def test_a_sweep_promotes_and_deletes(w: World) -> None:
    tasks = [w.enqueue(id=f"{n}", delay=HOUR) for n in range(3)]
    assert w.sweep("promote", *tasks, names=frozenset({"work"})) == (3, 3)
    for held in w.claim(max=2):
        w.complete(held)
    w.reload()
    assert w.sweep("delete", *tasks, states=frozenset({State.COMPLETED})) == (2, 2)
    assert w.counts() == {State.QUEUED: 1}


@pytest.mark.parametrize("text", ["INVOICE", "voice-7", "Mail", "urgent", "timed out"])
def test_a_sweep_by_text_looks_at_id_name_tags_and_error(w: World, text: str) -> None:
    t = w.enqueue("send-mail", id="invoice-7", tags=("urgent",), max_retries=0)
    other = w.enqueue("scan", id="other")
    [held] = w.claim()
    w.fail(held, b'{"type":"E","message":"Timed Out"}')
    assert w.sweep("retry", t, other, text=text) == (1, 1)


def test_a_sweep_over_running_tasks_asks_them_to_end(w: World) -> None:
    w.enqueue(id="t")
    [held] = w.claim()
    assert w.sweep("cancel", held, names=frozenset({"work"})) == (1, 1)
    assert w.heartbeat(held).directive == "cancel"
