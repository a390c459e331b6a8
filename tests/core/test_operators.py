"""What people do to tasks, queues and workers, and what they are told."""

from __future__ import annotations

import pytest

from lineshaft.core import commands as c
from lineshaft.core.batch import Blob, Record
from lineshaft.core.fleet import FORGET_AFTER
from lineshaft.core.replies import Reason
from lineshaft.core.task import State, lease_token
from lineshaft.errors import Conflict, LeaseLost, NotFound, QueueClosed
from tests.core.world import DAY, HOUR, LEASE, MINUTE, SECOND, World, ids

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


# Queues.


def test_queues_tell_their_counts_switches_and_age(w: World) -> None:
    w.enqueue(id="1")
    w.advance(MINUTE)
    w.enqueue(id="2")
    w.enqueue(id="3", delay=HOUR)
    w.enqueue(id="4", queue="other")
    w.claim(queues=("other",))
    default, other = sorted(w.queues(), key=lambda queue: queue.queue)
    assert (default.queue, default.oldest_age, default.paused, default.closed) == (
        "default",
        MINUTE,
        False,
        False,
    )
    assert {s: n for s, n in default.counts.items() if n} == {State.QUEUED: 2, State.SCHEDULED: 1}
    assert (other.running, other.oldest_age, other.workers) == (1, 0, 1)
    assert [queue.queue for queue in w.queues("other")] == ["other"]


def test_an_unknown_queue_is_made_up_empty_and_setting_one_makes_it(w: World) -> None:
    [empty] = w.queues("nowhere")
    assert (empty.queue, sum(empty.counts.values())) == ("nowhere", 0)
    assert w.queues() == []
    assert w.set_queue("made", paused=True).paused
    assert [queue.queue for queue in w.queues()] == ["made"]


def test_switches_are_remembered_and_each_is_set_alone(w: World) -> None:
    w.set_queue("q", paused=True)
    w.set_queue("q", closed=True)
    w.reload()
    [queue] = w.queues("q")
    assert (queue.paused, queue.closed) == (True, True)
    w.set_queue("q", paused=False)
    w.reload()
    [queue] = w.queues("q")
    assert (queue.paused, queue.closed) == (False, True)


def test_setting_a_switch_as_it_is_gets_the_same_answer(w: World) -> None:
    first = w.set_queue("q", paused=True)
    again = w.set_queue("q", paused=True)
    assert (again.paused, again.closed) == (first.paused, first.closed) == (True, False)
    assert w.set_queue("q").paused


def test_queues_of_other_tenants_are_not_told(w: World) -> None:
    w.enqueue(queue="acme-only")
    w.tenant = "globex"
    assert w.queues() == []


# Workers.


def test_workers_tell_what_they_declare_hold_and_have_free(w: World) -> None:
    w.enqueue(resources={"gpu": 1})
    w.claim("a", incarnation="i", capabilities=("es",), resources={"gpu": 2}, queues=("default",))
    w.park("b")
    a, b = sorted(w.workers(), key=lambda worker: worker.worker_id)
    assert (a.worker_id, a.incarnation, a.capabilities, a.resources, a.free) == (
        "a", "i", ("es",), {"gpu": 2}, {"gpu": 1},
    )  # fmt: skip
    assert (a.held, a.waiting, a.draining, a.seen_at, a.queues) == (1, False, False, w.now, ("default",))
    assert (b.held, b.waiting) == (0, True)


def test_a_worker_that_was_not_heard_of_for_long_is_forgotten(w: World) -> None:
    w.claim("a")
    w.advance(FORGET_AFTER + 1)
    w.claim("b")
    assert [worker.worker_id for worker in w.workers()] == ["b"]


def test_the_last_worker_to_fall_silent_is_counted_no_longer(w: World) -> None:
    w.claim("a")
    assert w.stats().workers == 1
    w.advance(60 * SECOND)
    assert (w.stats().workers, w.workers()) == (0, [])


def test_a_worker_is_heard_by_what_it_reports(w: World) -> None:
    w.enqueue()
    [held] = w.claim("a")
    w.advance(20 * SECOND)
    w.heartbeat(held)
    assert w.workers()[0].seen_at == w.now


# Explain.


def codes(reasons: list[Reason]) -> list[str]:
    return [reason.code for reason in reasons]


def test_explain_says_why_a_task_is_not_running(w: World) -> None:
    w.enqueue(id="scheduled", delay=HOUR)
    w.set_queue("stopped", paused=True)
    w.enqueue(id="paused", queue="stopped")
    w.enqueue(id="special", capability=("quantum",))
    w.enqueue(id="plain", queue="lonely")
    scheduled = w.explain("scheduled")
    assert codes(scheduled.reasons) == ["scheduled"]
    assert scheduled.reasons[0].until == w.now + HOUR
    assert "paused" in codes(w.explain("paused").reasons)
    assert codes(w.explain("plain").reasons) == ["no_claim"]
    w.claim("a", queues=("nothing",))
    assert "no_worker" in codes(w.explain("special").reasons) or "no_claim" in codes(
        w.explain("special").reasons
    )
    with pytest.raises(NotFound):
        w.explain("nobody")


def test_explain_names_what_is_missing(w: World) -> None:
    w.claim("a", capabilities=("es",))
    w.enqueue(id="t", capability=("es", "gpu"))
    [reason] = w.explain("t").reasons
    assert (reason.code, reason.missing) == ("no_worker", ("gpu",))


def test_explain_says_when_the_capable_are_busy(w: World) -> None:
    w.enqueue(id="1", resources={"gpu": 1})
    w.claim("a", resources={"gpu": 1})
    w.enqueue(id="2", resources={"gpu": 1})
    assert codes(w.explain("2").reasons) == ["busy"]


def test_explain_counts_who_goes_before(w: World) -> None:
    for number in range(5):
        w.enqueue(id=f"{number}")
    w.enqueue("other", id="first", priority=-1)
    w.claim("a", queues=("empty",))
    explanation = w.explain("3")
    assert explanation.ahead == 4
    assert w.explain("first").ahead == 0


def test_explain_says_that_others_go_first(w: World) -> None:
    w.enqueue(id="0")
    w.claim("a")
    w.enqueue(id="1")
    w.enqueue(id="2")
    assert "behind" in codes(w.explain("2").reasons)


def test_explain_tells_of_held_and_finished_tasks(w: World) -> None:
    w.enqueue(id="t")
    [held] = w.claim(start=False)
    assert codes(w.explain("t").reasons) == ["claimed"]
    w.start(held)
    assert codes(w.explain("t").reasons) == ["running"]
    w.complete(held)
    w.reload()
    assert codes(w.explain("t").reasons) == ["finished"]


# Stats, records, barrier.


def test_stats_equal_a_recount(w: World) -> None:
    for number in range(10):
        w.enqueue(id=f"{number}", delay=HOUR if number == 9 else None)
    held = w.claim(max=6)
    w.complete(held[0])
    w.fail(held[1], retry=False)
    w.cancel_held(held[2])
    w.snooze(held[3], HOUR)
    w.claim(start=False)
    for _ in range(2):
        stats = w.stats()
        assert {state: n for state, n in stats.counts.items() if n} == w.counts()
        assert stats.leases == 3
        w.reload()
    w.tenant = "*"
    assert sum(w.stats().counts.values()) == 10


def test_totals_count_what_happened_since_the_load(w: World) -> None:
    w.enqueue(id="t")
    [held] = w.claim()
    w.complete(held)
    totals = w.stats().totals
    assert {key: n for key, n in totals.items() if n} == {
        "enqueued": 1, "claimed": 1, "started": 1, "completed": 1,
    }  # fmt: skip


def test_records_are_kept_by_kind_and_tenant(w: World) -> None:
    w.apply(c.PutRecord(tenant="acme", kind="key", key="k1", data=b"1"))
    w.apply(c.PutRecord(tenant="acme", kind="key", key="k2", data=b"2"))
    w.apply(c.PutRecord(tenant="globex", kind="key", key="k3", data=b"3"))
    w.apply(c.PutRecord(tenant="acme", kind="key", key="k2", data=None))
    for _ in range(2):
        assert w.apply(c.Records(tenant="acme", kind="key")) == [Record("key", "acme", "k1", b"1")]
        assert w.apply(c.Records(tenant="acme", kind="other")) == []
        w.reload()


def test_a_barrier_tells_the_position_and_changes_nothing(w: World) -> None:
    w.enqueue()
    assert w.apply(c.Barrier(tenant="acme")) == w.rows.position == w.shard.observed()


def test_every_reply_names_the_position_that_makes_it_durable(w: World) -> None:
    found = w.apply(c.Enqueue(tenant="acme", tasks=(w.new(id="t"),)))
    assert found.position == w.rows.position
    before = w.rows.position
    assert w.apply(c.Get(tenant="acme", id="t")).position == before
    w.shard.apply(c.Cancel(tenant="acme", id="t"), w.now)
    assert w.shard.apply(c.Get(tenant="acme", id="t"), w.now).position == before + 1
    assert w.shard.observed() == before + 1


def test_a_token_names_its_row_too(w: World) -> None:
    w.enqueue()
    [held] = w.claim()
    assert lease_token(held) == f"{1:x}-{held.seq:x}"


def test_a_lost_task_is_told_in_the_log_with_a_reason(w: World) -> None:
    w.enqueue(id="t")
    [held] = w.claim()
    w.advance(LEASE)
    change = [change for change in w.rows.changes if change.seq == held.seq][-1]
    assert (change.state, change.at, change.attempt) == (State.QUEUED, w.now, 1)
    assert change.reason
