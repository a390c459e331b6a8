"""Outcomes: the first one with the current token wins, and its repetition gets the same answer."""

from __future__ import annotations

from typing import Any

import pytest

from lineshaft.core import commands as c
from lineshaft.core.batch import Blob
from lineshaft.core.task import State, Task, lease_token
from lineshaft.errors import LeaseLost, LineshaftError, NotFound
from tests.core.world import DAY, HOUR, LEASE, MINUTE, SECOND, World, ids

OUTCOMES: list[tuple[type[c.Op], dict[str, Any], State]] = [
    (c.Complete, {"result": b'{"a":1}', "carry": b"[1]"}, State.COMPLETED),
    (c.Fail, {"error": b'{"type":"E"}'}, State.SCHEDULED),
    (c.Fail, {"error": b'{"type":"E"}', "retry": False}, State.FAILED),
    (c.Fail, {"error": b'{"type":"E"}', "retry_after": 0}, State.QUEUED),
    (c.Release, {}, State.QUEUED),
    (c.Snooze, {"delay": MINUTE}, State.SCHEDULED),
    (c.Snooze, {"delay": 0}, State.QUEUED),
    (c.CancelHeld, {"reason": "no use"}, State.CANCELLED),
]


def running(w: World) -> Task:
    w.enqueue(id="t")
    [held] = w.claim()
    return held


@pytest.mark.parametrize("op, fields, state", OUTCOMES)
def test_an_outcome_ends_the_lease(w: World, op: type[c.Op], fields: dict[str, Any], state: State) -> None:
    held = running(w)
    answer = w.op(op, held, **fields)
    assert (answer.task_id, answer.state) == ("t", state)
    task = w.get("t")
    assert (task.state, task.lease) == (state, None)
    assert task.run is not None
    assert (task.run.finished_at is not None) == state.terminal


@pytest.mark.parametrize("reload", [False, True])
@pytest.mark.parametrize("op, fields, state", OUTCOMES)
def test_the_same_outcome_again_gets_the_same_answer_and_changes_nothing(
    w: World, op: type[c.Op], fields: dict[str, Any], state: State, reload: bool
) -> None:
    held = running(w)
    answer = w.op(op, held, **fields)
    row, blobs = w.row("t"), dict(w.rows.blobs)
    if reload:
        w.reload()
    w.now += SECOND
    assert w.op(op, held, **fields) == answer
    assert (w.row("t"), w.rows.blobs) == (row, blobs)


@pytest.mark.parametrize("second", [*OUTCOMES, (c.Heartbeat, {}, None), (c.Start, {}, None)])
@pytest.mark.parametrize("first", OUTCOMES)
def test_another_outcome_for_the_same_token_is_a_lost_lease(
    w: World, first: tuple[type[c.Op], dict[str, Any], State], second: tuple[type[c.Op], dict[str, Any], Any]
) -> None:
    if first == second:
        return
    held = running(w)
    w.op(first[0], held, **first[1])
    row = w.row("t")
    with pytest.raises(LeaseLost):
        w.op(second[0], held, **second[1])
    assert w.row("t") == row


def test_another_result_for_the_same_token_is_a_lost_lease(w: World) -> None:
    held = running(w)
    w.complete(held, b"1")
    for result in (b"2", b"1 ", b"1.0"):
        with pytest.raises(LeaseLost):
            w.complete(held, result)
    assert w.blob(Blob.RESULT, held) == b"1"


def test_long_results_are_told_apart_too(w: World) -> None:
    held = running(w)
    one, other = (b'"' + b"x" * 1_000 + end + b'"' for end in (b"1", b"2"))
    first = w.complete(held, one)
    assert w.complete(held, one) == first
    with pytest.raises(LeaseLost):
        w.complete(held, other)
    assert w.blob(Blob.RESULT, held) == one


@pytest.mark.parametrize("op, fields, state", OUTCOMES)
def test_a_repeated_outcome_is_lost_after_the_next_lease(
    w: World, op: type[c.Op], fields: dict[str, Any], state: State
) -> None:
    held = running(w)
    w.op(op, held, **fields)
    if state.terminal:
        w.retry("t")
    elif state is State.SCHEDULED:
        w.promote("t")
    assert ids(w.claim("b")) == ["t"]
    with pytest.raises(LeaseLost):
        w.op(op, held, **fields)


@pytest.mark.parametrize("op, fields, state", OUTCOMES)
def test_an_outcome_of_an_unknown_task_is_not_found_whatever_the_token(
    w: World, op: type[c.Op], fields: dict[str, Any], state: State
) -> None:
    [answer] = w.report(op(task_id="nobody", token="nonsense", **fields)).items
    assert isinstance(answer, NotFound)


@pytest.mark.parametrize(
    "token",
    ["", "-", "1", "x-y", "1-1-1", "zz", "0-0", "fffffffffffffffffff-1", "1-2", "+1-1", " 1-1", "01-0"],
)
def test_what_is_not_the_token_is_a_lost_lease(w: World, token: str) -> None:
    held = running(w)
    assert token != lease_token(held)
    [answer] = w.report(c.Complete(task_id="t", token=token)).items
    assert isinstance(answer, LeaseLost)
    w.complete(held)


def test_a_task_that_was_never_claimed_has_no_token(w: World) -> None:
    w.enqueue(id="t")
    [answer] = w.report(c.Complete(task_id="t", token="1-0")).items
    assert isinstance(answer, LeaseLost)


def test_the_token_of_one_task_is_not_anothers(w: World) -> None:
    w.enqueue(id="a")
    w.enqueue(id="b")
    a, b = w.claim(max=2)
    [answer] = w.report(c.Complete(task_id="a", token=lease_token(b))).items
    assert isinstance(answer, LeaseLost)
    w.complete(a)
    w.complete(b)


def test_a_result_is_kept_byte_for_byte(w: World) -> None:
    held = running(w)
    w.complete(held, b'{"b": 1.50, "a":123456789012345678901234567890}', carry=b'"next"')
    assert w.blob(Blob.RESULT, held) == b'{"b": 1.50, "a":123456789012345678901234567890}'
    assert w.blob(Blob.CARRY, held) == b'"next"'
    run = w.get("t").run
    assert run is not None and run.has_result and run.finished_at == w.now


def test_completing_forgets_the_checkpoint(w: World) -> None:
    held = running(w)
    w.heartbeat(held, checkpoint=b"1")
    w.complete(held)
    assert w.blob(Blob.CHECKPOINT, held) is None
    run = w.get("t").run
    assert run is not None and not run.has_checkpoint


def test_a_checkpoint_is_taken_back_with_null(w: World) -> None:
    held = running(w)
    w.heartbeat(held, checkpoint=b"1")
    w.heartbeat(held, checkpoint=b"null")
    assert w.blob(Blob.CHECKPOINT, held) is None


def test_a_null_result_is_a_result(w: World) -> None:
    held = running(w)
    w.complete(held)
    assert w.blob(Blob.RESULT, held) in (None, b"null")
    assert w.get("t").state is State.COMPLETED


def test_failing_keeps_the_error_and_counts_up_to_the_limit(w: World) -> None:
    w.enqueue(id="t", max_retries=2)
    for attempt in (1, 2, 3):
        [held] = w.claim()
        assert held.attempt == attempt
        w.fail(held, b'{"type":"E","message":"%d"}' % attempt, retry_after=0)
    task = w.get("t")
    assert task.run is not None
    assert (task.state, task.run.error) == (State.FAILED, b'{"type":"E","message":"3"}')
    assert w.claim() == []


def test_max_retries_zero_fails_at_once(w: World) -> None:
    w.enqueue(id="t", max_retries=0)
    [held] = w.claim()
    assert w.fail(held).state is State.FAILED


def test_a_failure_that_is_not_to_be_retried_ends_the_task(w: World) -> None:
    w.enqueue(id="t", max_retries=9)
    [held] = w.claim()
    assert w.fail(held, retry=False).state is State.FAILED


@pytest.mark.parametrize("give_back", [c.Release, c.Snooze])
def test_giving_back_burns_no_attempt(w: World, give_back: type[c.Op]) -> None:
    w.enqueue(id="t", max_retries=1)
    fields: dict[str, Any] = {"delay": 0} if give_back is c.Snooze else {}
    for _ in range(5):
        [held] = w.claim()
        assert held.attempt == 1
        w.op(give_back, held, **fields)
    assert w.get("t").attempt == 0
    [held] = w.claim()
    w.fail(held, retry_after=0)
    [held] = w.claim()
    assert held.attempt == 2
    w.op(give_back, held, **fields)
    [held] = w.claim()
    assert held.attempt == 2


def test_snoozing_runs_it_later(w: World) -> None:
    held = running(w)
    answer = w.snooze(held, MINUTE)
    assert (answer.state, answer.run_at) == (State.SCHEDULED, w.now + MINUTE)
    w.advance(MINUTE - 1)
    assert w.claim() == []
    w.advance(1)
    assert ids(w.claim()) == ["t"]


def test_giving_back_a_prefetched_task(w: World) -> None:
    w.enqueue(id="t")
    [held] = w.claim(start=False)
    w.snooze(held, MINUTE)
    w.advance(MINUTE)
    [held] = w.claim(start=False)
    w.fail(held, retry_after=0)
    task = w.get("t")
    assert (task.state, task.attempt) == (State.QUEUED, 1)


# Keeping and forgetting.


def test_a_finished_task_is_kept_for_its_retention(w: World) -> None:
    w.enqueue(id="t", retention=DAY)
    [held] = w.claim()
    w.complete(held)
    w.advance(DAY - 1)
    assert w.get("t").state is State.COMPLETED
    assert w.prune() == 0
    w.advance(1)
    with pytest.raises(NotFound):
        w.get("t")


def test_after_its_retention_the_id_is_free_again(w: World) -> None:
    w.enqueue(id="t", retention=DAY)
    [held] = w.claim()
    w.complete(held, b"1")
    w.advance(DAY)
    again = w.enqueue_again(id="t")
    assert (again.created, again.task.state, again.task.run) == (True, State.QUEUED, None)
    assert w.rows.task("acme", "t") == again.task
    assert w.counts() == {State.QUEUED: 1}


def test_an_id_that_was_pruned_is_counted_out_once(w: World) -> None:
    """Regression: enqueueing it again took it off the counters a second time."""
    for pruned in (False, True):
        for _ in range(2):
            w.enqueue(id="t", retention=DAY)
            [held] = w.claim()
            w.complete(held)
            w.advance(DAY + HOUR)
            if pruned:
                assert w.prune() == 1
        w.enqueue(id="t", retention=DAY)
        assert {state: n for state, n in w.stats().counts.items() if n} == {State.QUEUED: 1} == w.counts()
        [held] = w.claim()
        w.complete(held)
        w.advance(DAY + HOUR)


def test_pruning_takes_finished_tasks_off_the_counters(w: World) -> None:
    w.enqueue(id="t", retention=DAY)
    w.enqueue(id="u")
    for held in w.claim(max=2):
        w.complete(held)
    w.advance(DAY + HOUR)
    assert w.prune() == 1
    assert w.stats().counts.get(State.COMPLETED) == 1
    with pytest.raises(NotFound):
        w.get("t")


def test_result_ttl_bounds_how_long_the_result_is_kept(w: World) -> None:
    w.enqueue(id="t", result_ttl=MINUTE)
    w.enqueue(id="u", result_ttl=MINUTE)
    w.enqueue(id="v")
    t, u, v = w.claim(max=3)
    w.complete(t)
    w.complete(u, result_ttl=HOUR)
    w.complete(v)
    expiries = [task.run and task.run.result_expires_at for task in map(w.get, "tuv")]
    assert expiries == [w.now + MINUTE, w.now + HOUR, None]


def test_finished_tasks_leave_memory_but_not_the_store(w: World) -> None:
    for number in range(20):
        w.enqueue(id=f"{number}")
    for held in w.claim(max=20):
        w.complete(held)
    w.enqueue()
    w.enqueue()
    w.shard.evict(5)
    w.missing.clear()
    assert {w.get(f"{number}").state for number in range(20)} == {State.COMPLETED}
    assert len(w.missing) == 15


def test_what_is_not_yet_committed_is_never_evicted(w: World) -> None:
    held = running(w)
    w.shard.apply(c.Report(tenant="acme", items=(c.Complete(task_id="t", token=lease_token(held)),)), w.now)
    w.shard.evict(0)
    assert w.shard.apply(c.Get(tenant="acme", id="t"), w.now).task.state is State.COMPLETED


def test_an_outcome_that_arrives_twice_in_one_report_is_one(w: World) -> None:
    held = running(w)
    op = c.Complete(task_id="t", token=lease_token(held), result=b"1")
    first, second = w.report(op, op).items
    assert not isinstance(first, LineshaftError)
    assert first == second


def test_fail_after_a_reload_counts_on(w: World) -> None:
    w.enqueue(id="t", max_retries=1)
    [held] = w.claim()
    w.fail(held, retry_after=0)
    w.reload()
    [held] = w.claim()
    w.reload()
    assert w.fail(held).state is State.FAILED
    assert w.get("t").attempt == 2


def test_a_lease_that_was_lost_cannot_be_completed_even_when_nobody_took_the_task(w: World) -> None:
    held = running(w)
    w.advance(LEASE)
    with pytest.raises(LeaseLost):
        w.complete(held)
    assert w.get("t").state is State.QUEUED
