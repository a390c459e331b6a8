"""Enqueue: an id names one task; each item of a bulk stands for itself."""

from __future__ import annotations

from typing import Any

import pytest

from lineshaft.core.batch import Blob
from lineshaft.core.commands import Enqueue
from lineshaft.core.replies import EnqueuedTask, Found
from lineshaft.core.shard import Missing
from lineshaft.core.task import State
from lineshaft.errors import Conflict, LeaseLost, LineshaftError, QueueClosed
from tests.core.world import HOUR, MINUTE, SECOND, World, encoded, ids


def test_an_enqueued_task_is_queued_with_its_payload_kept_as_it_was_spelled(w: World) -> None:
    task = w.enqueue("mail", "m-1", payload=b'{"n": 1e2, "b":12345678901234567890}', tags=("x",))
    assert (task.id, task.state, task.created_at, task.run_at) == ("m-1", State.QUEUED, w.now, w.now)
    assert w.blob(Blob.PAYLOAD, task) == b'{"n": 1e2, "b":12345678901234567890}'
    assert w.rows.task("acme", "m-1") == task


def test_an_absent_payload_reads_back_as_null(w: World) -> None:
    task = w.enqueue()
    assert w.blob(Blob.PAYLOAD, task) in (None, b"null")


def test_enqueueing_an_id_again_returns_the_task_that_is_there(w: World) -> None:
    first = w.enqueue_again("mail", "m-1", priority=3)
    row = w.row("m-1")
    again = w.enqueue_again("mail", "m-1", priority=7, payload=b"2")
    assert first.created and not again.created
    assert again.task == first.task
    assert w.row("m-1") == row


def test_an_id_names_its_task_also_after_it_finished_and_was_forgotten_by_memory(w: World) -> None:
    w.enqueue("mail", "m-1")
    [held] = w.claim()
    w.complete(held, b'"sent"')
    w.reload()
    again = w.enqueue_again("mail", "m-1")
    assert (again.created, again.task.state) == (False, State.COMPLETED)
    assert w.missing[-1] == ("acme", "m-1")


def test_a_task_with_an_id_made_by_the_coordinator_is_not_looked_up(w: World) -> None:
    w.enqueue()
    assert w.missing == []


def test_conflict_error_refuses_another_body_and_accepts_the_same(w: World) -> None:
    w.enqueue("mail", "m-1", fingerprint=17)
    assert not w.enqueue_again("mail", "m-1", fingerprint=17, conflict_error=True).created
    with pytest.raises(Conflict) as refused:
        w.enqueue_again("mail", "m-1", fingerprint=18, conflict_error=True)
    assert refused.value.task_id == "m-1"
    assert not w.enqueue_again("mail", "m-1", fingerprint=18).created


def test_two_tenants_may_use_the_same_id(w: World) -> None:
    w.enqueue("mail", "m-1", payload=b'"acme"')
    w.tenant = "globex"
    other = w.enqueue_again("mail", "m-1", payload=b'"globex"')
    assert other.created
    [claimed] = w.claim(max=10)
    assert claimed.tenant == "globex"
    w.tenant = "acme"
    [claimed] = w.claim(max=10)
    assert claimed.tenant == "acme"


def test_a_delayed_task_is_scheduled_and_becomes_queued_when_due(w: World) -> None:
    task = w.enqueue(delay=10 * SECOND)
    assert (task.state, task.run_at) == (State.SCHEDULED, w.now + 10 * SECOND)
    w.advance(10 * SECOND - 1)
    assert w.claim() == []
    w.advance(1)
    assert ids(w.claim()) == [task.id]
    assert w.states(task)[:2] == [State.SCHEDULED, State.QUEUED]


def test_run_at_in_the_past_is_now_and_no_delay_is_queued(w: World) -> None:
    assert w.enqueue(run_at=w.now - HOUR).state is State.QUEUED
    assert w.enqueue(delay=0).state is State.QUEUED
    assert w.enqueue(run_at=w.now).state is State.QUEUED
    assert w.enqueue(run_at=w.now + 1).state is State.SCHEDULED


def test_a_scheduled_task_is_claimed_on_time_after_a_reload(w: World) -> None:
    task = w.enqueue(delay=MINUTE)
    w.reload()
    assert w.shard.next_deadline() == w.now + MINUTE
    w.advance(MINUTE)
    assert ids(w.claim()) == [task.id]


def test_a_task_that_fell_due_while_nobody_owned_the_shard_is_ready_after_the_load(w: World) -> None:
    task = w.enqueue(delay=MINUTE)
    w.reload(down=HOUR)
    w.tick()
    assert ids(w.claim()) == [task.id]


@pytest.mark.parametrize("when", ["expires_at", "expires_in"])
def test_past_expires_at_a_task_that_has_not_started_is_cancelled(w: World, when: str) -> None:
    expiry: dict[str, Any] = {when: w.now + MINUTE if when == "expires_at" else MINUTE}
    queued = w.enqueue(**expiry)
    scheduled = w.enqueue(delay=HOUR, **expiry)
    w.advance(MINUTE)
    assert w.get(queued).state is w.get(scheduled).state is State.CANCELLED
    assert w.get(queued).expires_at == w.now


def test_a_task_that_started_is_not_touched_by_expires_at(w: World) -> None:
    w.enqueue(expires_in=MINUTE)
    [held] = w.claim(lease=HOUR)
    w.advance(2 * MINUTE)
    assert w.get(held).state is State.RUNNING
    w.complete(held)


def test_a_task_that_is_already_past_expires_at_is_never_claimed(w: World) -> None:
    task = w.enqueue(expires_at=w.now)
    w.tick()
    assert w.claim() == []
    assert w.get(task).state is State.CANCELLED


def test_expiry_survives_a_reload(w: World) -> None:
    task = w.enqueue(expires_in=MINUTE)
    w.reload()
    w.advance(MINUTE)
    assert w.get(task).state is State.CANCELLED


def test_a_prefetched_task_that_did_not_start_in_time_is_cancelled(w: World) -> None:
    w.enqueue(expires_in=MINUTE)
    [held] = w.claim(lease=HOUR, start=False)
    w.advance(MINUTE)
    assert w.get(held).state is State.CANCELLED
    with pytest.raises(LeaseLost):
        w.start(held)


def test_a_task_given_back_past_expires_at_without_having_begun_an_attempt_is_cancelled(w: World) -> None:
    """Regression: its deadline had passed while it ran, and nothing looked at it any more."""
    w.enqueue(expires_in=MINUTE)
    [held] = w.claim(lease=HOUR)
    w.advance(2 * MINUTE)
    w.release(held)
    w.tick()
    assert w.get(held).state is State.CANCELLED


def test_nobody_is_given_a_task_past_expires_at_though_the_tick_is_late(w: World) -> None:
    late = [w.enqueue("a", expires_in=MINUTE), w.enqueue("b", expires_in=MINUTE, priority=-1)]
    good = w.enqueue("b")
    w.now += MINUTE
    assert ids(w.claim(max=5)) == [good.id]
    assert {w.get(task).state for task in late} == {State.CANCELLED}


def test_a_started_task_that_is_retried_past_expires_at_runs_again(w: World) -> None:
    w.enqueue(expires_in=MINUTE)
    [held] = w.claim()
    w.fail(held, retry_after=2 * MINUTE)
    w.advance(3 * MINUTE)
    assert w.get(held).state is State.QUEUED
    assert ids(w.claim()) == [held.id]


def test_one_bad_item_of_a_bulk_spoils_only_itself(w: World) -> None:
    w.set_queue("shut", closed=True)
    good, bad, other = w.bulk(w.new(id="a"), w.new(id="b", queue="shut"), w.new(id="c"))
    assert isinstance(good, EnqueuedTask) and isinstance(other, EnqueuedTask)
    assert isinstance(bad, QueueClosed)
    assert w.rows.task("acme", "b") is None
    assert ids(w.claim(max=10)) == ["a", "c"]


def test_an_id_twice_in_one_bulk_is_one_task(w: World) -> None:
    first, second = w.bulk(w.new(id="a"), w.new(id="a"))
    assert isinstance(first, EnqueuedTask) and isinstance(second, EnqueuedTask)
    assert (first.created, second.created) == (True, False)
    assert len(w.rows.tasks) == 1


def test_nothing_is_changed_before_all_that_is_missing_is_there(w: World) -> None:
    tasks = (w.new(), w.new(id="known"), w.new(id="other"))
    with pytest.raises(Missing) as missing:
        w.shard.apply(Enqueue(tenant="acme", tasks=tasks), w.now)
    assert set(missing.value.keys) == {("acme", "known"), ("acme", "other")}
    assert not w.shard.dirty
    assert w.claim(max=10) == []


def test_memory_wins_over_what_a_read_brings_back(w: World) -> None:
    stale = w.enqueue(id="a")
    [held] = w.claim()
    reply = w.shard.apply(Enqueue(tenant="acme", tasks=(w.new(id="a"),)), w.now, found={("acme", "a"): stale})
    assert reply.items[0].task.state is State.RUNNING
    assert encoded(w.get("a")) == encoded(held)


def test_a_closed_queue_takes_what_was_accepted_before_it_was_closed(w: World) -> None:
    w.set_queue(closed=True)
    command = Enqueue(tenant="acme", tasks=(w.new("mail", "m-1"),), accepted=True)
    assert w.apply(command).items[0].created


def test_a_closed_queue_takes_no_new_task_but_still_names_those_it_has(w: World) -> None:
    w.enqueue(id="old")
    w.set_queue(closed=True)
    with pytest.raises(QueueClosed):
        w.enqueue(id="new")
    assert not w.enqueue_again(id="old").created
    assert ids(w.claim(max=2)) == ["old"]
    w.reload()
    with pytest.raises(QueueClosed):
        w.enqueue(id="new")
    w.set_queue(closed=False)
    assert w.enqueue_again(id="new").created


def test_a_refused_enqueue_that_would_wait_is_refused_at_once(w: World) -> None:
    w.set_queue(closed=True)
    with pytest.raises(LineshaftError):
        answer = w.enqueue_and_wait(wait=MINUTE, id="a")
        [item] = answer.items
        raise item


def test_enqueue_and_wait_answers_when_the_task_ends(w: World) -> None:
    waiting = w.enqueue_and_wait(wait=MINUTE, id="a")
    [held] = w.claim()
    assert waiting.waiting
    w.complete(held, b"7")
    found = waiting.reply
    assert isinstance(found, Found)
    assert (found.ended, found.created, found.task.state) == (True, True, State.COMPLETED)


def test_enqueue_and_wait_answers_with_the_state_when_time_is_up(w: World) -> None:
    waiting = w.enqueue_and_wait(wait=MINUTE, id="a")
    w.advance(MINUTE)
    assert (waiting.reply.ended, waiting.reply.created) == (False, True)
    assert waiting.reply.task.state is State.QUEUED


def test_enqueue_and_wait_on_a_finished_task_answers_at_once(w: World) -> None:
    w.enqueue(id="a")
    [held] = w.claim()
    w.complete(held)
    w.reload()
    found = w.enqueue_and_wait(wait=MINUTE, id="a")
    assert isinstance(found, Found)
    assert (found.ended, found.created) == (True, False)
