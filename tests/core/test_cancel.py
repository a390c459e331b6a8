"""Cancelling in every state."""

from __future__ import annotations

import pytest

from lineshaft.core.replies import Found
from lineshaft.core.task import State, lease_token
from lineshaft.errors import Conflict, LeaseLost, NotFound
from tests.core.world import HOUR, LEASE, MINUTE, World, ids


def test_a_scheduled_or_queued_task_ends_at_once(w: World) -> None:
    w.enqueue(id="scheduled", delay=HOUR)
    w.enqueue(id="queued")
    for name in ("scheduled", "queued"):
        task = w.cancel(name, "not needed")
        assert task.state is State.CANCELLED
        assert task.run is not None and task.run.finished_at == w.now
    assert w.claim(max=2) == []
    w.advance(2 * HOUR)
    assert w.claim(max=2) == []


@pytest.mark.parametrize("start", [False, True])
def test_a_held_task_is_asked_to_end_by_a_directive(w: World, start: bool) -> None:
    w.enqueue(id="t")
    [held] = w.claim(start=start)
    task = w.cancel("t", "user left")
    if task.state is State.CANCELLED:
        assert not start, "a running task ends by its worker's word"
        return
    assert task.run is not None and task.run.cancel is not None
    answer = w.heartbeat(held)
    assert (answer.directive, answer.reason) == ("cancel", "user left")
    assert w.cancel_held(held).state is State.CANCELLED


def test_a_cancel_request_survives_a_reload(w: World) -> None:
    w.enqueue(id="t")
    [held] = w.claim()
    w.cancel("t")
    w.reload()
    assert w.heartbeat(held).directive == "cancel"


def test_the_worker_is_told_at_once_where_it_listens(w: World) -> None:
    w.enqueue(id="t")
    [held] = w.claim("a", incarnation="1")
    w.cancel("t", "user left")
    w.drain("a")
    told = [(d.worker_id, d.incarnation, d.directive, d.task_id, d.token, d.reason) for d in w.directives]
    assert told == [
        ("a", "1", "cancel", "t", lease_token(held), "user left"),
        ("a", "1", "drain", None, None, None),
    ]


def test_a_worker_that_comes_back_is_told_again(w: World) -> None:
    for name in ("cancelled", "spared"):
        w.enqueue(id=name)
    w.claim("a", max=2)
    w.enqueue(id="prefetched")
    w.claim("a", start=False)
    w.cancel("cancelled", "user left")
    w.directives.clear()
    assert w.claim("a", max=1) == []
    assert w.directives == [], "only a hello, which takes nothing, asks for what it has missed"
    assert w.claim("a", max=0) == []
    assert [(d.directive, d.task_id, d.reason) for d in w.directives] == [
        ("cancel", "cancelled", "user left")
    ]


def test_cancel_goes_before_drain_in_the_directive(w: World) -> None:
    w.enqueue(id="t")
    [held] = w.claim("a")
    w.cancel("t")
    w.drain("a")
    assert w.heartbeat(held).directive == "cancel"


def test_if_the_worker_completes_first_that_stands(w: World) -> None:
    w.enqueue(id="t")
    [held] = w.claim()
    w.cancel("t")
    assert w.complete(held).state is State.COMPLETED


@pytest.mark.parametrize("way", ["fail", "fail for good", "lease lost", "timeout", "release", "snooze"])
def test_once_asked_whatever_else_ends_the_lease_ends_it_as_cancelled(w: World, way: str) -> None:
    w.enqueue(id="t", timeout=MINUTE)
    [held] = w.claim(lease=HOUR if way == "timeout" else None)
    w.cancel("t", "user left")
    match way:
        case "fail":
            w.fail(held)
        case "fail for good":
            w.fail(held, retry=False)
        case "lease lost":
            w.advance(LEASE)
        case "timeout":
            w.advance(MINUTE)
        case "release":
            w.release(held)
        case "snooze":
            w.snooze(held, MINUTE)
    assert w.get("t").state is State.CANCELLED
    assert w.claim() == []


def test_cancelling_twice_is_the_same_and_a_finished_task_is_a_conflict(w: World) -> None:
    w.enqueue(id="t")
    w.enqueue(id="u")
    _, u = w.claim(max=2)
    w.cancel("t", "first")
    row = w.row("t")
    w.cancel("t", "second")
    assert w.row("t") == row
    w.complete(u)
    with pytest.raises(Conflict):
        w.cancel("u")
    with pytest.raises(NotFound):
        w.cancel("nobody")


def test_a_cancelled_task_may_be_cancelled_again_for_a_client_that_heard_no_answer(w: World) -> None:
    w.enqueue(id="t")
    first = w.cancel("t")
    row = w.row("t")
    assert w.cancel("t") == first
    w.reload()
    assert w.cancel("t").state is State.CANCELLED
    assert w.row("t") == row


def test_cancelling_answers_who_waits(w: World) -> None:
    w.enqueue(id="t")
    waiting = w.wait("t", MINUTE)
    w.cancel("t")
    assert isinstance(waiting.reply, Found)
    assert waiting.reply.task.state is State.CANCELLED


def test_a_cancelled_task_leaves_its_place_to_the_next(w: World) -> None:
    w.enqueue(id="1")
    w.enqueue(id="2")
    w.cancel("1")
    assert ids(w.claim()) == ["2"]


def test_a_retried_task_has_forgotten_that_it_was_cancelled(w: World) -> None:
    w.enqueue(id="t")
    [held] = w.claim()
    w.cancel("t")
    w.cancel_held(held)
    w.retry("t")
    [again] = w.claim()
    assert w.heartbeat(again).directive == "continue"
    w.fail(again, retry_after=0)
    assert w.get("t").state is State.QUEUED
    with pytest.raises(LeaseLost):
        w.cancel_held(held)


def test_the_holder_may_cancel_unasked(w: World) -> None:
    w.enqueue(id="t")
    [held] = w.claim()
    assert w.cancel_held(held, "obsolete").state is State.CANCELLED


def test_a_cancelled_task_tells_why(w: World) -> None:
    w.enqueue(id="asked")
    w.cancel("asked", reason="out of stock")
    w.enqueue(id="held")
    [held] = w.claim()
    w.cancel_held(held, reason="nothing to do")
    w.enqueue(id="late", expires_in=MINUTE)
    w.advance(MINUTE)
    told = [w.get(name).run for name in ("asked", "held", "late")]
    assert [run.reason for run in told if run is not None] == ["out of stock", "nothing to do", "expired"]
    w.retry("asked")
    again = w.get("asked").run
    assert again is not None
    assert again.reason is None


def test_how_earlier_generations_ended_is_remembered(w: World) -> None:
    w.enqueue(id="t", max_retries=0)
    w.cancel("t", reason="not yet")
    first = w.now
    w.advance(MINUTE)
    w.retry("t")
    [held] = w.claim()
    w.fail(held)
    w.retry("t")
    run = w.get("t").run
    assert run is not None
    assert [(e.at, e.state, e.reason, e.retried_at) for e in run.endings] == [
        (first, State.CANCELLED, "not yet", first + MINUTE),
        (w.now, State.FAILED, None, w.now),
    ]
