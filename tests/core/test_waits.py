"""Waiting for a task to end."""

from __future__ import annotations

import pytest

from lineshaft.core.replies import Found
from lineshaft.core.task import State
from lineshaft.errors import NotFound
from tests.core.world import LEASE, MINUTE, World


def test_all_who_wait_are_answered_when_the_task_ends(w: World) -> None:
    w.enqueue(id="t")
    waits = [w.wait("t", MINUTE) for _ in range(3)]
    assert w.stats().waiting_results == 3
    [held] = w.claim()
    w.complete(held)
    assert {wait.reply.task.state for wait in waits} == {State.COMPLETED}
    assert {wait.reply.ended for wait in waits} == {True}
    assert w.stats().waiting_results == 0


def test_a_wait_ends_with_the_state_when_time_is_up(w: World) -> None:
    w.enqueue(id="t")
    waiting = w.wait("t", MINUTE)
    w.advance(MINUTE - 1)
    assert waiting.waiting
    w.advance(1)
    assert (waiting.reply.ended, waiting.reply.task.state) == (False, State.QUEUED)


def test_each_wait_ends_at_its_own_time(w: World) -> None:
    w.enqueue(id="t")
    short, longer = w.wait("t", MINUTE), w.wait("t", 2 * MINUTE)
    w.advance(MINUTE)
    assert not short.waiting and longer.waiting
    w.cancel("t")
    assert longer.reply.ended


def test_nobody_waits_any_more_when_the_last_has_left(w: World) -> None:
    w.enqueue(id="t")
    gone = w.wait("t", MINUTE)
    w.unpark(gone)
    assert w.stats().waiting_results == 0
    w.cancel("t")
    w.advance(MINUTE)
    assert gone.waiting


def test_one_of_several_who_leaves_takes_nobody_with_it(w: World) -> None:
    for id in "tu":
        w.enqueue(id=id)
    other, gone, stays = w.wait("u", MINUTE), w.wait("t", MINUTE), w.wait("t", MINUTE)
    w.unpark(gone)
    w.unpark(gone)
    w.cancel("t")
    assert gone.waiting and other.waiting and not stays.waiting


def test_a_wait_goes_on_through_retries(w: World) -> None:
    w.enqueue(id="t")
    waiting = w.wait("t", 10 * MINUTE)
    [held] = w.claim()
    w.fail(held, retry_after=0)
    w.claim()
    w.advance(LEASE)
    assert waiting.waiting
    [held] = w.claim()
    w.fail(held, retry=False)
    assert waiting.reply.task.state is State.FAILED


def test_waiting_for_a_finished_task_is_answered_at_once(w: World) -> None:
    w.enqueue(id="t")
    [held] = w.claim()
    w.complete(held)
    for _ in range(2):
        found = w.wait("t", MINUTE)
        assert isinstance(found, Found) and found.ended
        w.reload()


def test_waiting_for_nobody_is_not_found(w: World) -> None:
    with pytest.raises(NotFound):
        w.wait("nobody", MINUTE)


def test_a_waiter_that_is_gone_is_not_answered(w: World) -> None:
    w.enqueue(id="t")
    gone = w.wait("t", MINUTE)
    stays = w.wait("t", MINUTE)
    w.unpark(gone)
    w.cancel("t")
    assert gone.waiting and not stays.waiting
    w.advance(2 * MINUTE)


def test_a_wait_that_was_answered_is_not_answered_again_when_its_time_is_up(w: World) -> None:
    w.enqueue(id="t")
    waiting = w.wait("t", MINUTE)
    w.cancel("t")
    w.retry("t")
    w.advance(2 * MINUTE)
    assert waiting.reply.task.state is State.CANCELLED


def test_getting_without_waiting_tells_whether_it_has_ended(w: World) -> None:
    task = w.enqueue(id="t")
    assert w.get("t") == task
    with pytest.raises(NotFound):
        w.get("nobody")
    w.tenant = "globex"
    with pytest.raises(NotFound):
        w.get("t")


def test_a_snapshot_that_was_answered_does_not_change_later(w: World) -> None:
    w.enqueue(id="t")
    [held] = w.claim()
    before = held.run
    w.complete(held)
    assert held.state is State.RUNNING
    assert held.run is before and held.lease is not None
