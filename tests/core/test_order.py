"""Order: by (priority, run_at, arrival), whatever was asked for, and nobody stands in another's way."""

from __future__ import annotations

from lineshaft.core.task import State
from tests.core.world import HOUR, LEASE, MINUTE, SECOND, World, ids


def test_lower_priority_numbers_run_first(w: World) -> None:
    w.enqueue(id="later", priority=5)
    w.enqueue(id="first", priority=-5)
    w.enqueue(id="normal")
    assert ids(w.claim(max=10)) == ["first", "normal", "later"]


def test_within_a_priority_the_older_run_at_goes_first_then_arrival(w: World) -> None:
    w.enqueue(id="delayed", delay=SECOND)
    w.advance(SECOND)
    w.enqueue(id="now-1")
    w.enqueue(id="now-2")
    w.enqueue(id="overdue", run_at=w.now - HOUR)
    assert ids(w.claim(max=10)) == ["overdue", "delayed", "now-1", "now-2"]


def test_tasks_that_fall_due_together_go_by_priority(w: World) -> None:
    w.enqueue(id="b", delay=MINUTE, priority=1)
    w.enqueue(id="a", delay=MINUTE)
    w.enqueue(id="c", delay=MINUTE, priority=1)
    w.advance(MINUTE)
    assert ids(w.claim(max=10)) == ["a", "b", "c"]


def test_a_claim_merges_queues_and_names_by_order(w: World) -> None:
    w.enqueue("mail", "1", queue="q1")
    w.enqueue("scan", "2", queue="q2")
    w.enqueue("mail", "3", queue="q2", priority=-1)
    w.enqueue("scan", "4", queue="q1")
    assert ids(w.claim(max=10)) == ["3", "1", "2", "4"]


def test_a_claim_takes_only_the_queues_it_names(w: World) -> None:
    w.enqueue(id="1", queue="q1")
    w.enqueue(id="2", queue="q2")
    w.enqueue(id="3", queue="q3")
    assert ids(w.claim(max=10, queues=("q3", "q2"))) == ["2", "3"]
    assert w.claim(queues=("unknown",)) == []
    assert ids(w.claim(max=10)) == ["1"]


def test_a_claim_takes_only_the_names_it_asks_for(w: World) -> None:
    w.enqueue("mail", "1")
    w.enqueue("scan", "2")
    assert ids(w.claim(max=10, names=("scan",))) == ["2"]
    assert ids(w.claim(max=10, names=("mail", "scan"))) == ["1"]


def test_queues_and_names_together_must_both_fit(w: World) -> None:
    w.enqueue("mail", "1", queue="q1")
    w.enqueue("mail", "2", queue="q2")
    w.enqueue("scan", "3", queue="q2")
    assert ids(w.claim(max=10, queues=("q2",), names=("mail",))) == ["2"]


def test_max_bounds_a_claim(w: World) -> None:
    for number in range(5):
        w.enqueue(id=f"{number}")
    assert ids(w.claim(max=2)) == ["0", "1"]
    assert ids(w.claim()) == ["2"]
    assert ids(w.claim(max=10)) == ["3", "4"]


def test_max_bounds_a_claim_of_several_lanes(w: World) -> None:
    for number in range(5):
        w.enqueue(("mail", "scan")[number % 2], f"{number}")
    assert ids(w.claim(max=2)) == ["0", "1"]
    assert ids(w.claim()) == ["2"]
    assert ids(w.claim(max=10)) == ["3", "4"]


def test_order_survives_a_reload(w: World) -> None:
    for number, priority in enumerate((3, 1, 2, 1, 0)):
        w.enqueue(id=f"{number}", priority=priority)
    w.enqueue(id="delayed", delay=MINUTE, priority=-1)
    w.reload()
    assert ids(w.claim(max=10)) == ["4", "1", "3", "2", "0"]
    w.advance(MINUTE)
    assert ids(w.claim()) == ["delayed"]


def test_a_lost_lease_puts_the_task_back_at_its_old_place(w: World) -> None:
    w.enqueue(id="1")
    w.claim()
    w.enqueue(id="2")
    w.advance(LEASE)
    assert ids(w.claim(max=2)) == ["1", "2"]


def test_a_released_task_goes_before_those_that_came_later(w: World) -> None:
    w.enqueue(id="1")
    [held] = w.claim()
    w.advance(SECOND)
    w.enqueue(id="2")
    w.release(held)
    assert ids(w.claim(max=2)) == ["1", "2"]


def test_a_retried_task_goes_by_its_new_run_at(w: World) -> None:
    w.enqueue(id="1")
    [held] = w.claim()
    w.fail(held, retry_after=MINUTE)
    w.advance(SECOND)
    w.enqueue(id="2")
    w.advance(MINUTE)
    assert ids(w.claim(max=2)) == ["2", "1"]


def test_a_task_that_leaves_its_lane_and_comes_back_in_the_same_instant(w: World) -> None:
    """Regression: two entries of one task with the same place must not be compared by the heap."""
    w.enqueue(id="tail", priority=5)
    w.enqueue(id="a")
    w.enqueue(id="b")
    for _ in range(3):
        w.cancel("a")
        w.cancel("b")
        w.retry("b")
        w.retry("a")
    assert sorted(ids(w.claim(max=2))) == ["a", "b"]
    assert ids(w.claim(max=2)) == ["tail"]


def test_patched_tasks_find_their_new_place(w: World) -> None:
    w.enqueue(id="tail", priority=9)
    for name in "abcd":
        w.enqueue(id=name)
    w.patch("d", priority=-1)
    w.patch("a", priority=3)
    w.patch("b", tags=("still here",))
    w.patch("c", run_at=w.now + MINUTE)
    assert w.get("c").state is State.SCHEDULED
    assert ids(w.claim(max=10, lease=HOUR)) == ["d", "b", "a", "tail"]
    w.advance(MINUTE)
    assert ids(w.claim(max=10)) == ["c"]


def test_many_withdrawn_tasks_leave_the_rest_in_order(w: World) -> None:
    tasks = [w.enqueue(id=f"{n:03}", priority=n % 3) for n in range(400)]
    for task in tasks[:300]:
        w.cancel(task)
    left = sorted((task.spec.priority, task.seq, task.id) for task in tasks[300:])
    assert ids(w.claim(max=1000)) == [id for _, _, id in left]


def test_more_lanes_than_are_kept_lose_nobody(w: World) -> None:
    parked, anybody = w.park("waiting", names=("kind-2500", "early")), w.park("patient", queues=("other",))
    w.enqueue("stays", id="stays", priority=9)
    for number in range(2_100):
        w.enqueue(f"kind-{number}", id=f"{number}")
        [held] = w.claim(names=(f"kind-{number}",))
        w.complete(held)
        if number == 10:
            w.enqueue("early", delay=HOUR, id="early")
    assert parked.waiting and anybody.waiting
    w.enqueue("kind-2500", id="last")
    assert ids(parked.tasks) == ["last"]
    assert ids(w.claim()) == ["stays"]


def test_lanes_that_were_closed_open_again_for_those_who_wait(w: World) -> None:
    w.enqueue("rare", id="1")
    [held] = w.claim()
    w.complete(held)
    parked = w.park("a", names=("rare",))
    for number in range(1_100):
        w.enqueue(f"kind-{number}")
        [held] = w.claim("b")
        w.complete(held)
    w.enqueue("rare", id="2")
    assert ids(parked.tasks) == ["2"]


def test_more_ways_to_be_enqueued_than_are_shared_change_nothing(w: World) -> None:
    w.enqueue("same", id="first", priority=1)
    w.bulk(*(w.new("other", priority=10 + number) for number in range(10_100)))
    w.enqueue("same", id="second", priority=1)
    w.cancel("first")
    w.retry("first")
    w.patch("second", tags=("x",))
    w.enqueue("same", id="third", priority=1)
    assert ids(w.claim(max=3, names=("same",))) == ["first", "second", "third"]
    assert w.stats().counts[State.QUEUED] == 10_100
