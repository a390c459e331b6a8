"""What people are told of queues, workers and counts, and why a task does not run."""

from __future__ import annotations

import pytest

from lineshaft.core import commands as c
from lineshaft.core.batch import Record
from lineshaft.core.fleet import FORGET_AFTER
from lineshaft.core.replies import Reason
from lineshaft.core.task import State, lease_token
from lineshaft.errors import NotFound
from tests.core.world import HOUR, LEASE, MINUTE, SECOND, World

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


def test_after_a_reload_a_worker_counts_where_it_holds_something_until_it_asks_again(w: World) -> None:
    w.enqueue(id="a", queue="mail")
    w.enqueue(id="b", queue="mail")
    w.enqueue(id="c", queue="files")
    w.enqueue(id="d", queue="else")
    w.claim("w", queues=("mail",), max=2)
    w.reload()
    assert {queue.queue: queue.workers for queue in w.queues()} == {"else": 0, "files": 0, "mail": 1}
    w.claim("w", queues=("files",))
    assert {queue.queue: queue.workers for queue in w.queues()} == {"else": 0, "files": 1, "mail": 0}
