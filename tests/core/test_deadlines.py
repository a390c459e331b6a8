"""Deadlines of what has ended before its time: they are not kept until then."""

from __future__ import annotations

import gc
from typing import Any

from lineshaft.core.claimers import Claimer
from lineshaft.core.deadlines import Deadlines, Kind
from lineshaft.core.tenants import Wait
from tests.core.world import HOUR, MINUTE, SECOND, World

MANY = 5_000


def living(kind: type) -> int:
    return sum(isinstance(each, kind) for each in gc.get_objects())


def test_answered_claims_are_not_kept_until_their_wait_is_over(w: World) -> None:
    waiting = w.park("idle", names=("rare",), wait=HOUR)
    before = living(Claimer)
    for _ in range(MANY):
        parked = w.park("a", wait=HOUR)
        w.enqueue()
        w.complete(parked.tasks[0])
    assert living(Claimer) - before <= 2_000
    w.enqueue("rare")
    assert len(waiting.tasks) == 1


def test_waits_that_are_over_are_not_kept_until_their_time_is_up(w: World) -> None:
    task = w.enqueue("rare")
    last = w.wait(task, HOUR)
    before = living(Wait)
    for _ in range(MANY):
        w.unpark(w.wait(task, HOUR))
    assert living(Wait) - before <= 2_000
    w.advance(HOUR)
    assert last.reply.ended is False


def test_a_sweep_takes_no_deadline_of_what_goes_on(w: World) -> None:
    """Requests and attempts begun before thousands of others ended still end at their own times."""
    w.enqueue(timeout=10 * MINUTE, id="slow", max_retries=0)
    [slow] = w.claim("b", lease=HOUR)
    parked = w.park("idle", names=("rare",), wait=5 * MINUTE)
    for _ in range(MANY):
        w.enqueue(timeout=HOUR)
        w.complete(w.claim("a")[0])
    w.advance(5 * MINUTE - 1)
    assert parked.waiting
    w.advance(1)
    assert parked.tasks == []
    w.advance(5 * MINUTE)
    assert w.get(slow).state.terminal


def test_what_is_due_comes_in_order_from_both_heaps() -> None:
    deadlines = Deadlines(lambda *_: True)
    subjects: list[Any] = [object() for _ in range(4)]
    deadlines.add(2 * SECOND, Kind.WAIT, subjects[2])
    deadlines.add(1 * SECOND, Kind.RUN_AT, subjects[0])
    deadlines.add(3 * SECOND, Kind.EXPIRY, subjects[3])
    deadlines.add(1 * SECOND, Kind.CLAIM, subjects[1])
    assert deadlines.next() == SECOND
    taken = []
    while (due := deadlines.pop_due(3 * SECOND)) is not None:
        taken.append(due[1])
    assert taken == subjects
    assert deadlines.next() is None
