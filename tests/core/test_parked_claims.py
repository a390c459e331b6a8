"""Claims that wait: who is woken by what, and who is left alone."""

from __future__ import annotations

import pytest

from lineshaft.core import commands as c
from lineshaft.core.replies import Claimed
from lineshaft.core.task import State
from tests.core.world import HOUR, LEASE, MINUTE, World, ids


def test_a_parked_claim_gets_the_task_when_it_comes(w: World) -> None:
    parked = w.park("a")
    task = w.enqueue()
    [held] = parked.tasks
    assert (held.id, held.state) == (task.id, State.RUNNING)
    w.advance(HOUR)
    assert len(parked.answers) == 1, "not answered again when its time is up"


def test_one_task_wakes_one_waiter_first_come_first_served(w: World) -> None:
    waiters = [w.park(name) for name in "abc"]
    first = w.enqueue()
    assert ids(waiters[0].tasks) == [first.id]
    assert waiters[1].waiting and waiters[2].waiting
    second = w.enqueue()
    assert ids(waiters[1].tasks) == [second.id]
    assert waiters[2].waiting


def test_a_bulk_fills_the_first_waiter_up_to_its_max_then_the_next(w: World) -> None:
    first, second = w.park("a", max=2), w.park("b", max=2)
    w.bulk(*(w.new(id=f"{n}") for n in range(3)))
    assert sorted(ids(first.tasks) + ids(second.tasks)) == ["0", "1", "2"]
    assert len(first.tasks) == 2


def test_a_waiter_is_woken_only_by_what_it_can_serve(w: World) -> None:
    mail = w.park("a", names=("mail",))
    q2 = w.park("b", queues=("q2",))
    w.enqueue("scan")
    assert mail.waiting and q2.waiting
    task = w.enqueue("scan", queue="q2")
    assert ids(q2.tasks) == [task.id]
    task = w.enqueue("mail")
    assert ids(mail.tasks) == [task.id]


def test_a_parked_claim_is_answered_empty_when_its_time_is_up(w: World) -> None:
    parked = w.park(wait=MINUTE)
    w.advance(MINUTE - 1)
    assert parked.waiting
    w.advance(1)
    assert parked.tasks == []
    w.enqueue()
    assert len(w.claim()) == 1


def test_a_wait_that_is_over_at_once_is_answered_at_once(w: World) -> None:
    reply = w.apply(c.Claim(tenant="acme", wait_until=w.now))
    assert isinstance(reply, Claimed) and reply.tasks == []


def test_a_scheduled_task_that_falls_due_wakes_a_waiter(w: World) -> None:
    task = w.enqueue(delay=MINUTE)
    parked = w.park()
    w.advance(MINUTE)
    [held] = parked.tasks
    assert held.id == task.id
    assert held.lease is not None and held.lease.claimed_at == w.now


@pytest.mark.parametrize(
    "way", ["lease lost", "released", "failed", "promoted", "retried", "resumed", "patched"]
)
def test_whatever_makes_a_task_ready_wakes_a_waiter(w: World, way: str) -> None:
    w.set_queue("q", paused=way == "resumed")
    held = w.enqueue(id="t", queue="q", delay=HOUR if way in ("promoted", "patched") else 0)
    if way in ("lease lost", "released", "failed", "retried"):
        [held] = w.claim("other")
    if way == "retried":
        w.cancel_held(held)
    parked = w.park("a")
    match way:
        case "lease lost":
            w.advance(LEASE)
        case "released":
            w.release(held)
        case "failed":
            w.fail(held, retry_after=0)
        case "promoted":
            w.promote("t")
        case "patched":
            w.patch("t", run_at=w.now)
        case "resumed":
            w.set_queue("q", paused=False)
        case "retried":
            w.retry("t")
    assert ids(parked.tasks) == ["t"]


def test_a_waiter_that_is_gone_takes_nothing(w: World) -> None:
    gone = w.park("a")
    stays = w.park("b")
    w.unpark(gone)
    task = w.enqueue()
    assert gone.waiting
    assert ids(stays.tasks) == [task.id]


def test_unparking_twice_or_unknown_does_nothing(w: World) -> None:
    gone = w.park("a")
    w.unpark(gone)
    w.unpark(gone)
    assert w.stats().waiting_claims == 0


def test_a_new_queue_or_name_finds_those_that_wait_for_it(w: World) -> None:
    parked = w.park(queues=("not-there-yet",))
    task = w.enqueue(queue="not-there-yet")
    assert ids(parked.tasks) == [task.id]


def test_waiters_of_other_tenants_are_left_alone(w: World) -> None:
    parked = w.park("a")
    w.tenant = "globex"
    w.enqueue()
    assert parked.waiting


def test_a_claim_brings_nothing_of_another_tenant(w: World) -> None:
    task = w.enqueue()
    w.tenant = "globex"
    assert w.claim(max=10) == []
    assert w.claim(None, max=10) == []
    w.tenant = "acme"
    assert ids(w.claim(max=10)) == [task.id]


def test_a_claimer_without_a_name_may_wait_too(w: World) -> None:
    parked, over = w.park(None), w.park(None, wait=MINUTE, names=("nothing",))
    task = w.enqueue()
    assert ids(parked.tasks) == [task.id]
    w.advance(MINUTE)
    assert over.tasks == []
