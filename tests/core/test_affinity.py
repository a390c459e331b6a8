"""Worker affinity: what a task needs against what a worker declares and has free."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lineshaft.core.fleet import FORGET_AFTER, RESERVE_AFTER
from lineshaft.core.task import Task
from tests.core.world import HOUR, LEASE, MINUTE, SECOND, World, ids


def test_a_task_goes_only_to_a_worker_that_has_every_capability(w: World) -> None:
    w.enqueue(id="t", capability=("es", "gpu"))
    assert w.claim("a") == []
    assert w.claim("b", capabilities=("es",)) == []
    assert w.claim(None) == []
    assert ids(w.claim("c", capabilities=("gpu", "x", "es"))) == ["t"]


def test_a_task_that_nobody_can_run_does_not_stand_in_the_way(w: World) -> None:
    w.enqueue(id="special", capability=("quantum",), priority=-9)
    w.enqueue(id="huge", resources={"gpu": 99}, priority=-9)
    w.enqueue(id="plain")
    assert ids(w.claim("a", resources={"gpu": 1}, max=3)) == ["plain"]


def test_a_capable_worker_also_takes_plain_tasks(w: World) -> None:
    w.enqueue(id="plain")
    w.enqueue(id="special", capability=("es",))
    assert ids(w.claim("a", capabilities=("es",), max=2)) == ["plain", "special"]


def test_resources_are_taken_by_a_lease_and_freed_by_its_end(w: World) -> None:
    for number in range(3):
        w.enqueue(id=f"{number}", resources={"gpu": 1})
    first, second = w.claim("a", resources={"gpu": 2}, max=10)
    assert w.claim("a", resources={"gpu": 2}) == []
    w.complete(first)
    assert ids(w.claim("a", resources={"gpu": 2}, max=10)) == ["2"]
    w.complete(second)


@pytest.mark.parametrize("way", ["release", "fail", "lost", "cancel"])
def test_whatever_ends_the_lease_frees_what_it_took(w: World, way: str) -> None:
    w.enqueue(id="1", resources={"gpu": 1})
    w.enqueue(id="2", resources={"gpu": 1})
    [held] = w.claim("a", resources={"gpu": 1}, max=2)
    parked = w.park("a", resources={"gpu": 1})
    match way:
        case "release":
            w.snooze(held, HOUR)
        case "fail":
            w.fail(held)
        case "lost":
            w.advance(LEASE)
        case "cancel":
            w.cancel_held(held)
    if way == "lost":
        # Whoever lets a lease run out is given nothing until it asks again.
        assert ids(parked.tasks) == []
        assert ids(w.claim("a", resources={"gpu": 1})) == ["1"]
    else:
        assert ids(parked.tasks) == ["2"]


def test_a_parked_worker_is_woken_when_its_resources_come_free(w: World) -> None:
    w.enqueue(id="1", resources={"gpu": 1})
    [held] = w.claim("a", resources={"gpu": 1})
    parked = w.park("a", resources={"gpu": 1})
    w.enqueue(id="2", resources={"gpu": 1})
    assert parked.waiting
    w.complete(held)
    assert ids(parked.tasks) == ["2"]


def test_resources_are_of_one_worker_not_of_all(w: World) -> None:
    w.enqueue(id="1", resources={"memory": 2.0**34})
    w.enqueue(id="2", resources={"memory": 2.0**34})
    assert ids(w.claim("a", resources={"memory": 2.0**34}, max=2)) == ["1"]
    assert ids(w.claim("b", resources={"memory": 2.0**34}, max=2)) == ["2"]


def test_what_a_worker_holds_is_known_after_a_reload(w: World) -> None:
    w.enqueue(id="1", resources={"gpu": 1})
    w.enqueue(id="2", resources={"gpu": 1})
    [held] = w.claim("a", incarnation="i", resources={"gpu": 1})
    w.reload()
    assert w.claim("a", incarnation="i", resources={"gpu": 1}) == []
    w.complete(held)
    assert ids(w.claim("a", incarnation="i", resources={"gpu": 1})) == ["2"]


@given(st.lists(st.integers(1, 9), min_size=1, max_size=8), st.randoms(use_true_random=False))
def test_fractions_of_a_resource_add_up_again(tenths: list[int], order: Random) -> None:
    """Regression: what was taken in tenths and given back in another order is all free again."""
    w = World()
    total = {"cpu": sum(tenths) / 10}
    for part in tenths:
        w.enqueue(resources={"cpu": part / 10})
    held = w.claim("a", resources=total, max=10)
    assert len(held) == len(tenths)
    order.shuffle(held)
    stays = held.pop()
    for task in held:
        w.complete(task)
    w.enqueue("rest", id="rest", resources={"cpu": total["cpu"] - tenths[stays.seq] / 10})
    assert ids(w.claim("a", resources=total)) == ["rest"]


def test_a_worker_may_declare_more_or_less_later(w: World) -> None:
    w.enqueue(id="t", capability=("es",))
    assert w.claim("a") == []
    assert ids(w.claim("a", capabilities=("es",))) == ["t"]


def test_a_waiter_that_can_is_woken_past_one_that_cannot(w: World) -> None:
    plain = w.park("a")
    capable = w.park("b", capabilities=("es",))
    w.enqueue(id="t", capability=("es",))
    assert plain.waiting
    assert ids(capable.tasks) == ["t"]


# A big request that smaller ones starve.


def small(w: World, number: int) -> Task:
    return w.enqueue("small", id=f"small-{number}", resources={"gpu": 1})


def keep_busy(w: World, held: list[Task], number: int) -> tuple[list[Task], int]:
    """Let a worker of two finish one small task and ask for whatever fits."""
    small(w, number)
    w.complete(held.pop(0))
    held += w.claim("a", resources={"gpu": 2})
    w.advance(5 * SECOND)
    for task in held:
        w.heartbeat(task)
    return held, number + 1


def test_a_big_request_that_others_starve_is_reserved_for_after_a_while(w: World) -> None:
    small(w, 0), small(w, 1)
    held = w.claim("a", resources={"gpu": 2}, max=2)
    big = w.enqueue("big", id="big", resources={"gpu": 2}, priority=-1)
    number, began = 2, w.now
    while w.now < began + RESERVE_AFTER + 2 * MINUTE:
        held, number = keep_busy(w, held, number)
        if not held or held[-1].id == "big" or len(held) < 2:
            break
    assert w.now >= began + RESERVE_AFTER, "while it has not waited long, smaller ones go on"
    if held and held[-1].id != "big":
        w.complete(held.pop(0))
        held = w.claim("a", resources={"gpu": 2}, max=2)
    assert ids(held) == [big.id]


def test_a_reservation_leaves_alone_what_needs_nothing_of_it(w: World) -> None:
    small(w, 0), small(w, 1)
    first, second = w.claim("a", resources={"gpu": 2}, max=2)
    w.enqueue("big", id="big", resources={"gpu": 2})
    w.advance(RESERVE_AFTER - SECOND)
    w.heartbeat(first), w.heartbeat(second)
    w.complete(first)
    w.advance(2 * SECOND)
    w.heartbeat(second)
    assert w.claim("a", resources={"gpu": 2}) == []
    small(w, 2)
    assert w.claim("a", resources={"gpu": 2}) == [], "kept free for the big one"
    w.enqueue("light", id="light")
    assert ids(w.claim("a", resources={"gpu": 2})) == ["light"]
    w.complete(second)
    assert ids(w.claim("a", resources={"gpu": 2})) == ["big"]


def reserved(w: World, worker: str) -> Task:
    """Let a worker of two hold one small task while a big one has waited for long; return the small one."""
    small(w, 0)
    [held] = w.claim(worker, resources={"gpu": 2}, lease=3 * HOUR)
    w.enqueue("big", id="big", resources={"gpu": 2})
    w.advance(RESERVE_AFTER)
    assert w.claim(worker, resources={"gpu": 2}) == []
    small(w, 1)
    assert w.claim(worker, resources={"gpu": 2}) == [], "kept free for the big one"
    return held


def test_a_reservation_ends_when_the_big_request_is_gone(w: World) -> None:
    reserved(w, "a")
    w.cancel("big")
    assert ids(w.claim("a", resources={"gpu": 2}, max=2)) == ["small-1"]


def test_only_one_worker_is_reserved_for_a_big_request(w: World) -> None:
    reserved(w, "a")
    small(w, 2)
    w.enqueue("medium", id="fills", resources={"gpu": 1}, priority=-1)
    assert ids(w.claim("b", resources={"gpu": 2}, max=1)) == ["fills"]
    assert ids(w.claim("b", resources={"gpu": 2}, max=1)) == ["small-1"], "nothing is kept free there"


def test_another_worker_that_has_it_free_takes_the_big_request(w: World) -> None:
    held = reserved(w, "a")
    assert ids(w.claim("b", resources={"gpu": 2}, max=1)) == ["big"]
    assert ids(w.claim("a", resources={"gpu": 2}, max=1)) == ["small-1"]
    w.complete(held)


def test_a_reservation_ends_while_the_queue_of_the_big_request_is_paused(w: World) -> None:
    reserved(w, "a")
    w.enqueue("other", id="elsewhere", queue="q2", resources={"gpu": 1})
    w.set_queue(paused=True)
    assert ids(w.claim("a", resources={"gpu": 2}, max=5)) == ["elsewhere"]


def test_a_reservation_ends_when_its_worker_is_forgotten(w: World) -> None:
    held = reserved(w, "a")
    w.complete(held)
    w.advance(FORGET_AFTER + SECOND)
    small(w, 2)
    w.enqueue("big", id="other", resources={"gpu": 2}, priority=9)
    assert ids(w.claim("b", resources={"gpu": 2}, max=9)) == ["big"]
    assert [worker.worker_id for worker in w.workers()] == ["b"]


def test_a_reservation_binds_no_worker_that_cannot_serve_it_any_more(w: World) -> None:
    """Regression: a worker that declares less than before was kept from everything."""
    small(w, 0)
    [held] = w.claim("a", resources={"gpu": 3}, lease=HOUR)
    w.enqueue("big", id="big", resources={"gpu": 3})
    w.advance(RESERVE_AFTER)
    assert w.claim("a", resources={"gpu": 3}) == []
    small(w, 1)
    assert w.claim("a", resources={"gpu": 3}) == [], "kept free for the big one"
    assert ids(w.claim("a", resources={"gpu": 2})) == ["small-1"]
    w.complete(held)
