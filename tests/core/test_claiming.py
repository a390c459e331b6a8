"""Claims: parked ones, repeated ones, prefetched tasks, and workers that go."""

from __future__ import annotations

from typing import cast

import pytest

from lineshaft.core import commands as c
from lineshaft.core.replies import Claimed
from lineshaft.core.task import State, lease_token
from lineshaft.errors import Conflict, Invalid, LeaseLost, LineshaftError, NotFound
from tests.core.world import LEASE, MINUTE, SECOND, World, ids


def test_a_claim_leases_and_starts(w: World) -> None:
    task = w.enqueue()
    [held] = w.claim("a", incarnation="a1")
    assert (held.id, held.state, held.attempt) == (task.id, State.RUNNING, 1)
    assert held.lease is not None
    assert (held.lease.worker_id, held.lease.incarnation) == ("a", "a1")
    assert (held.lease.expires_at, held.lease.started_at) == (w.now + LEASE, w.now)
    assert w.states(task) == [State.QUEUED, State.CLAIMED, State.RUNNING]
    assert w.claim("b") == []


def test_the_lease_of_the_claim_wins_over_the_tasks_own(w: World) -> None:
    w.enqueue(lease=MINUTE)
    w.enqueue(lease=MINUTE)
    [own] = w.claim()
    [asked] = w.claim(lease=5 * SECOND)
    assert own.lease is not None and asked.lease is not None
    assert (own.lease.ttl, asked.lease.ttl) == (MINUTE, 5 * SECOND)


def test_a_worker_need_not_name_itself(w: World) -> None:
    w.enqueue()
    [held] = w.claim(None)
    assert held.lease is not None and held.lease.worker_id is None
    w.complete(held)


def test_a_claim_that_does_not_wait_is_answered_empty(w: World) -> None:
    assert w.claim() == []
    assert w.claim(max=10) == []


# Claim ids.


def test_repeating_a_claim_id_returns_the_tasks_of_the_first_answer(w: World) -> None:
    for _ in range(3):
        w.enqueue()
    first = w.claim(max=2, claim_id="c1")
    again = w.claim(max=2, claim_id="c1")
    assert ids(again) == ids(first)
    assert [lease_token(task) for task in again] == [lease_token(task) for task in first]
    assert len(w.claim(max=2, claim_id="c2")) == 1


def test_a_repeated_claim_id_returns_only_what_is_still_held(w: World) -> None:
    for _ in range(3):
        w.enqueue()
    first = w.claim(max=2, claim_id="c1")
    w.complete(first[0])
    assert ids(w.claim(max=2, claim_id="c1")) == [first[1].id]


def test_a_claim_id_is_forgotten_when_none_of_its_tasks_is_held(w: World) -> None:
    w.enqueue()
    [held] = w.claim(claim_id="c1")
    w.complete(held)
    assert w.claim(claim_id="c1") == []
    task = w.enqueue()
    assert ids(w.claim(claim_id="c1")) == [task.id]


def test_an_empty_answer_is_not_remembered(w: World) -> None:
    assert w.claim(claim_id="c1") == []
    task = w.enqueue()
    assert ids(w.claim(claim_id="c1")) == [task.id]


def test_a_claim_id_is_remembered_over_a_reload(w: World) -> None:
    w.enqueue(priority=1)
    w.enqueue(priority=0)
    first = w.claim(max=2, claim_id="c1")
    w.reload()
    again = w.claim(max=2, claim_id="c1")
    assert [lease_token(task) for task in again] == [lease_token(task) for task in first]
    w.complete(again[0])
    assert ids(w.claim(claim_id="c1")) == [first[1].id]


def test_a_lease_lost_leaves_the_claim_id(w: World) -> None:
    w.enqueue()
    [lost] = w.claim(claim_id="c1")
    w.advance(LEASE)
    [again] = w.claim("b", claim_id="c2")
    assert again.id == lost.id
    assert w.claim(claim_id="c1") == []


def test_a_repeat_takes_over_a_parked_first(w: World) -> None:
    first = w.park(claim_id="c1")
    repeat = w.park(claim_id="c1")
    assert w.stats().waiting_claims == 1
    task = w.enqueue()
    assert ids(repeat.tasks) == [task.id]
    with pytest.raises(LineshaftError):
        assert first.tasks == []
        raise LineshaftError("an empty answer is as good")


def test_a_claim_id_of_another_tenant_is_another(w: World) -> None:
    w.enqueue()
    w.claim(claim_id="c1")
    w.tenant = "globex"
    assert w.claim(claim_id="c1") == []


# Prefetch and start.


def test_a_prefetched_task_is_claimed_and_has_no_attempt_until_it_starts(w: World) -> None:
    w.enqueue()
    [held] = w.claim(start=False)
    assert (held.state, held.attempt) == (State.CLAIMED, 0)
    w.advance(SECOND)
    answer = w.start(held)
    assert (answer.state, answer.lease_ttl) == (State.RUNNING, LEASE)
    started = w.get(held)
    assert (started.state, started.attempt) == (State.RUNNING, 1)
    assert started.lease is not None and started.lease.started_at == w.now
    assert lease_token(started) == lease_token(held)


def test_starting_twice_counts_once(w: World) -> None:
    w.enqueue()
    [held] = w.claim(start=False)
    w.start(held)
    w.start(held)
    assert w.get(held).attempt == 1


def test_a_prefetched_task_that_is_released_burned_nothing(w: World) -> None:
    w.enqueue()
    [held] = w.claim(start=False)
    w.release(held)
    [again] = w.claim("b")
    assert again.attempt == 1


def test_an_outcome_of_a_prefetched_task_begins_it(w: World) -> None:
    w.enqueue()
    [held] = w.claim(start=False)
    w.complete(held)
    done = w.get(held)
    assert (done.state, done.attempt) == (State.COMPLETED, 1)
    assert w.states(held)[-3:] == [State.CLAIMED, State.RUNNING, State.COMPLETED]


def test_a_prefetched_task_whose_lease_is_lost_is_queued_and_charged(w: World) -> None:
    w.enqueue()
    [held] = w.claim(start=False)
    w.advance(LEASE)
    task = w.get(held)
    assert (task.state, task.attempt) == (State.QUEUED, 0)
    assert task.run is not None and task.run.lost_leases == 1
    with pytest.raises(LeaseLost):
        w.start(held)


# A worker says what it holds, and workers that go.


def test_holding_releases_what_the_worker_does_not_know_of(w: World) -> None:
    for name in "xyz":
        w.enqueue(id=name)
    x, y, _ = w.claim("a", incarnation="1", max=3)
    got = w.claim("a", incarnation="1", holding=(lease_token(y),), max=10)
    assert sorted(ids(got)) == ["x", "z"]
    assert {task.attempt for task in got} == {1}
    with pytest.raises(LeaseLost):
        w.complete(x)
    w.complete(y)


def test_who_says_what_it_holds_is_told_what_it_holds(w: World) -> None:
    w.enqueue(id="x")
    w.enqueue(id="y")
    x, _ = w.claim("a", max=2)
    claim = w.claim_command("a", max=0, holding=(lease_token(x), "no-token"))
    assert cast(Claimed, w.apply(claim)).held == (lease_token(x),)
    assert cast(Claimed, w.apply(w.claim_command("a", max=0))).held == ()


def test_holding_touches_no_other_incarnation(w: World) -> None:
    w.enqueue()
    [held] = w.claim("a", incarnation="1")
    assert w.claim("a", incarnation="2", holding=()) == []
    assert w.claim("b", holding=()) == []
    w.complete(held)


def test_holding_with_a_repeated_claim_id_keeps_what_the_claim_brought(w: World) -> None:
    w.enqueue(id="x")
    w.enqueue(id="y")
    [x] = w.claim("a", claim_id="c1")
    w.claim("a", claim_id="c2")
    again = w.claim("a", claim_id="c2", holding=(lease_token(x),))
    assert ids(again) == ["y"]
    assert again[0].lease is not None and again[0].lease.fence == 2


def test_holding_nothing_at_all_is_said_with_an_empty_list(w: World) -> None:
    w.enqueue()
    [held] = w.claim("a")
    assert w.claim("a", holding=None) == []
    [again] = w.claim("a", holding=())
    assert again.id == held.id
    assert (again.attempt, again.run.lost_leases if again.run else None) == (1, 0)


def test_a_draining_worker_gets_no_more_and_is_told(w: World) -> None:
    w.enqueue(id="x")
    [held] = w.claim("a", incarnation="1")
    assert w.drain("a").draining
    w.enqueue(id="y")
    reply = w.apply(w.claim_command("a", incarnation="1", wait=MINUTE))
    assert isinstance(reply, Claimed)
    assert (reply.tasks, reply.directive) == ([], "drain")
    assert w.heartbeat(held).directive == "drain"
    w.complete(held)
    assert ids(w.claim("b")) == ["y"]


def test_draining_answers_a_parked_claim_at_once(w: World) -> None:
    parked = w.park("a", incarnation="1")
    other = w.park("b")
    w.drain("a", incarnation="1")
    assert (parked.tasks, parked.reply.directive) == ([], "drain")
    assert other.waiting


def test_a_new_incarnation_of_a_drained_worker_works_again(w: World) -> None:
    w.claim("a", incarnation="1")
    w.drain("a", incarnation="1")
    w.enqueue()
    assert w.claim("a", incarnation="1") == []
    assert len(w.claim("a", incarnation="2")) == 1


def test_a_drain_is_remembered_over_a_reload(w: World) -> None:
    w.claim("a", incarnation="1")
    w.drain("a")
    w.reload()
    w.enqueue()
    assert w.claim("a", incarnation="1") == []


def test_draining_an_unknown_worker_or_incarnation_is_not_found(w: World) -> None:
    w.claim("a", incarnation="1")
    with pytest.raises(NotFound):
        w.drain("b")
    with pytest.raises(NotFound):
        w.drain("a", incarnation="2")


def test_a_report_claims_the_next_tasks_after_its_items(w: World) -> None:
    w.enqueue(id="x")
    w.enqueue(id="y")
    [x] = w.claim("a")
    reported = w.report(c.Complete(task_id="x", token=lease_token(x)), claim=w.claim_command("a", max=5))
    assert [getattr(item, "state", None) for item in reported.items] == [State.COMPLETED]
    assert ids(reported.tasks) == ["y"]


def test_a_report_never_waits_for_its_claim(w: World) -> None:
    reported = w.report(claim=w.claim_command("a", wait=MINUTE))
    assert (reported.items, reported.tasks) == ([], [])


def test_a_bad_item_of_a_report_spoils_only_itself(w: World) -> None:
    w.enqueue(id="x")
    w.enqueue(id="y")
    x, y = w.claim(max=2)
    reported = w.report(
        c.Complete(task_id="nobody", token="1-1"),
        c.Complete(task_id="x", token=lease_token(y)),
        c.Complete(task_id="x", token="no token"),
        c.Complete(task_id="y", token=lease_token(y)),
        c.Complete(task_id="x", token=lease_token(x)),
    )
    assert [type(item).__name__ for item in reported.items] == [
        "NotFound", "LeaseLost", "LeaseLost", "OpReply", "OpReply",
    ]  # fmt: skip


def test_a_claim_that_is_refused_spoils_its_report_before_anything_has_changed(w: World) -> None:
    """Regression: the items were applied and their acknowledgement lost in the refusal of the claim."""
    w.enqueue(id="x")
    [x] = w.claim()
    row = w.row("x")
    with pytest.raises(Invalid):
        w.report(c.Complete(task_id="x", token=lease_token(x)), claim=w.claim_command(None, holding=()))
    assert w.row("x") == row
    with pytest.raises(Invalid):
        w.claim(None, holding=())


def test_a_draining_worker_may_report_and_claims_nothing(w: World) -> None:
    w.enqueue(id="x")
    w.enqueue(id="y")
    [x] = w.claim("a")
    w.drain("a")
    reported = w.report(c.Complete(task_id="x", token=lease_token(x)), claim=w.claim_command("a"))
    assert (len(reported.items), reported.tasks, reported.directive) == (1, [], "drain")


def test_a_paused_queue_hands_nothing_out_but_takes_outcomes_and_tasks(w: World) -> None:
    w.enqueue(id="x")
    [x] = w.claim()
    w.set_queue(paused=True)
    w.enqueue(id="y")
    assert w.claim() == []
    w.complete(x)
    w.reload()
    assert w.claim() == []
    parked = w.park("a")
    w.enqueue(id="z")
    assert parked.waiting
    w.set_queue(paused=False)
    assert ids(parked.tasks) == ["y"]


def test_a_waiter_of_several_queues_is_not_held_up_by_a_paused_one(w: World) -> None:
    w.set_queue("q1", paused=True)
    w.enqueue(id="x", queue="q1", priority=-9)
    w.enqueue(id="y", queue="q2")
    assert ids(w.claim(max=5)) == ["y"]


def test_promoting_what_runs_is_refused_and_claims_of_finished_tasks_are_none(w: World) -> None:
    w.enqueue(id="x")
    [x] = w.claim()
    with pytest.raises(Conflict):
        w.promote("x")
    w.complete(x)
    assert w.claim() == []


def test_what_one_claim_brings_is_bounded_by_the_size_of_the_payloads(w: World) -> None:
    for _ in range(5):
        w.enqueue(payload=b'"' + b"x" * (3 << 20) + b'"')
    assert [len(w.claim(max=10)) for _ in range(3)] == [3, 2, 0]


def test_what_one_claim_brings_of_several_lanes_is_bounded_too(w: World) -> None:
    for number in range(5):
        w.enqueue(("mail", "scan")[number % 2], payload=b'"' + b"x" * (3 << 20) + b'"')
    assert [len(w.claim(max=10)) for _ in range(3)] == [3, 2, 0]
