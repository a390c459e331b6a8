"""From the core's values to answer structs: instants, durations and states as the protocol spells them."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import Any, cast

from lineshaft.core import replies
from lineshaft.core.batch import Change
from lineshaft.core.task import Attempt, Lease, Progress, RetryPolicy, State, Task, lease_token
from lineshaft.errors import LineshaftError
from lineshaft.values.durations import seconds
from lineshaft.values.instants import format_instant
from lineshaft.wire import (
    UNSET,
    AttemptInfo,
    ClaimedTask,
    ErrorInfo,
    Explanation,
    ItemAnswer,
    LeaseAnswer,
    OutcomeAnswer,
    PushedDirective,
    Raw,
    Reason,
    TaskChange,
    tasks,
)
from lineshaft.wire.messages import Directive, Instant, Seconds, StateWord, UnsetType

NULL = Raw(b"null")


def word(state: State) -> StateWord:
    """Return a state as it is spelled."""
    return cast("StateWord", state.word)


def directive(told: str) -> Directive:
    """Return a directive as it is spelled."""
    return cast("Directive", told)


def pushed_directive(told: replies.Directive) -> PushedDirective:
    """Return what is pushed to a worker."""
    return PushedDirective(
        directive=directive(told.directive),
        task_id=told.task_id,
        lease_token=told.token,
        reason=told.reason,
    )


def error_info(error: LineshaftError) -> ErrorInfo:
    """Return the error as it stands in a body or beside an item."""
    return ErrorInfo(
        type=error.type,
        reason=error.reason,
        field=error.field,
        task_id=error.task_id,
        earliest=getattr(error, "earliest", None),
    )


def task(
    row: Task,
    *,
    payload: bytes | None = None,
    result: bytes | None = None,
    checkpoint: bytes | None = None,
    full: bool = False,
) -> tasks.Task:
    """Return a task; with `full` (as `GET` shows it) also payload, result, checkpoint and attempts."""
    answer = tasks.Task(**_fields(row))
    if full:
        fill(answer, row, payload=payload, result=result, checkpoint=checkpoint)
    return answer


def changed_task(row: Task, *, position: int, created: bool | UnsetType = UNSET) -> tasks.ChangedTask:
    """Return a task after a write; `fill` adds what lists leave out."""
    return tasks.ChangedTask(**_fields(row), position=position, created=created)


def fill(
    answer: tasks.Task,
    row: Task,
    *,
    payload: bytes | None = None,
    result: bytes | None = None,
    checkpoint: bytes | None = None,
) -> None:
    """Add what lists leave out: payload, result, checkpoint and attempts."""
    answer.payload = NULL if payload is None else Raw(payload)
    answer.result = result_of(row, result)
    answer.checkpoint = optional_raw(checkpoint)
    answer.attempts = attempts(row)


def result_of(row: Task, result: bytes | None) -> Raw | UnsetType:
    """Return the result of a completed task (`null` where it had none or is past its time), else UNSET."""
    if row.state is not State.COMPLETED:
        return UNSET
    return NULL if result is None else Raw(result)


def error_of(row: Task) -> Raw | None:
    """Return what the last attempt failed with."""
    return None if row.run is None else optional_raw(row.run.error)


def optional_raw(value: bytes | None) -> Raw | None:
    """Return JSON bytes as they are embedded, None where there are none."""
    return None if value is None else Raw(value)


def optional_instant(instant: int | None) -> Instant | None:
    """Return an instant as it is spelled, None where there is none."""
    return None if instant is None else format_instant(instant)


def _optional_seconds(duration: int | None) -> Seconds | None:
    return None if duration is None else seconds(duration)


def _fields(row: Task) -> dict[str, Any]:
    spec, run, lease = row.spec, row.run, row.lease
    fields: dict[str, Any] = {
        "task_id": row.id,
        "name": spec.name,
        "queue": spec.queue,
        "state": word(row.state),
        "priority": spec.priority,
        "attempt": row.attempt,
        "lost_leases": 0,
        "max_retries": spec.max_retries,
        "created_at": format_instant(row.created_at),
        "run_at": format_instant(row.run_at),
        "expires_at": optional_instant(row.expires_at),
        "timeout": _optional_seconds(spec.timeout),
        "lease": seconds(spec.lease),
        "retry_policy": _policy(spec.retry_policy),
        "worker_affinity": _affinity(row),
        "tags": list(row.tags),
        "metadata": optional_raw(row.metadata),
        "traceparent": row.traceparent,
        "retention": seconds(spec.retention),
        "result_ttl": _optional_seconds(spec.result_ttl),
    }
    if run is not None:
        fields |= {
            "lost_leases": run.lost_leases,
            "generation": run.generation,
            "started_at": optional_instant(run.started_at),
            "finished_at": optional_instant(run.finished_at),
            "worker_id": _worker(row, lease),
            "reason": run.reason,
            "cancel_requested_at": None if run.cancel is None else format_instant(run.cancel.at),
            "progress": _progress(run.progress),
            "error": optional_raw(run.error),
            "usage": optional_raw(run.usage),
        }
    return fields


def _worker(row: Task, lease: Lease | None) -> str | None:
    if lease is not None:
        return lease.worker_id
    attempts = () if row.run is None else row.run.attempts
    return attempts[-1].worker_id if attempts and row.state.terminal else None


def _policy(policy: RetryPolicy) -> tasks.RetryPolicyInfo:
    return tasks.RetryPolicyInfo(
        backoff=policy.backoff,
        base=seconds(policy.base),
        factor=policy.factor,
        cap=seconds(policy.cap),
        jitter=policy.jitter,
    )


def _affinity(row: Task) -> tasks.AffinityInfo | None:
    affinity = row.spec.affinity
    if not affinity.capability and not affinity.resources:
        return None
    return tasks.AffinityInfo(
        capability=list(affinity.capability) or None, resources=amounts(affinity.resources) or None
    )


def _progress(progress: Progress | None) -> tasks.ProgressInfo | None:
    if progress is None:
        return None
    return tasks.ProgressInfo(
        done=_whole(progress.done),
        total=None if progress.total is None else _whole(progress.total),
        message=progress.message,
        at=format_instant(progress.at),
    )


def amounts(given: Iterable[tuple[str, float]]) -> dict[str, float]:
    """Return amounts by the names of resources."""
    return {name: _whole(amount) for name, amount in given}


def _whole(number: float) -> int | float:
    return int(number) if number == int(number) else number


def attempts(row: Task) -> list[AttemptInfo]:
    """Return the ended attempts and the one under way."""
    run, lease = row.run, row.lease
    ended = [] if run is None else [_attempt(attempt) for attempt in run.attempts]
    if run is not None and lease is not None:
        number = run.attempt if lease.started_at is not None else run.attempt + 1
        ended.append(
            AttemptInfo(
                attempt=number,
                generation=run.generation,
                fence=lease.fence,
                worker_id=lease.worker_id,
                claimed_at=format_instant(lease.claimed_at),
                started_at=optional_instant(lease.started_at),
            )
        )
    return ended


def _attempt(attempt: Attempt) -> AttemptInfo:
    return AttemptInfo(
        attempt=attempt.number,
        generation=attempt.generation,
        fence=attempt.fence,
        worker_id=attempt.worker_id,
        claimed_at=format_instant(attempt.claimed_at),
        started_at=optional_instant(attempt.started_at),
        ended_at=format_instant(attempt.ended_at),
        outcome=attempt.outcome,
        error=optional_raw(attempt.error),
    )


def claimed(row: Task, payload: bytes | None, checkpoint: bytes | None) -> ClaimedTask:
    """Return a task under its live lease."""
    spec, run = row.spec, row.run
    assert run is not None
    lease = run.lease
    assert lease is not None
    return ClaimedTask(
        task_id=row.id,
        lease_token=lease_token(row),
        name=spec.name,
        queue=spec.queue,
        attempt=run.attempt if lease.started_at is not None else run.attempt + 1,
        max_retries=spec.max_retries,
        fence=lease.fence,
        lease_ttl=_in_seconds(lease.ttl),
        timeout=None if spec.timeout is None else seconds(spec.timeout),
        enqueued_at=_formatted(row.created_at),
        payload=NULL if payload is None else Raw(payload),
        metadata=None if row.metadata is None else Raw(row.metadata),
        tags=list(row.tags),
        traceparent=row.traceparent,
        checkpoint=None if checkpoint is None else Raw(checkpoint),
    )


# Of a batch many are alike.
_in_seconds = lru_cache(128)(seconds)
_formatted = lru_cache(128)(format_instant)


def lease_answer(reply: replies.OpReply) -> LeaseAnswer:
    """Return the answer to a start or heartbeat."""
    return LeaseAnswer(
        lease_ttl=seconds(reply.lease_ttl or 0),
        directive=directive(reply.directive),
        reason=reply.reason,
        position=reply.position,
    )


def outcome_answer(reply: replies.OpReply) -> OutcomeAnswer:
    """Return the answer to an outcome."""
    return OutcomeAnswer(
        task_id=reply.task_id,
        state=word(reply.state),
        run_at=optional_instant(reply.run_at),
        position=reply.position,
    )


def item_answer(reply: replies.OpReply | LineshaftError) -> ItemAnswer:
    """Return what became of one item of a report."""
    if isinstance(reply, LineshaftError):
        return ItemAnswer(status=reply.status, error=error_info(reply))
    if reply.lease_ttl is None:
        if reply.run_at is None:
            return _DONE[reply.state]
        return ItemAnswer(status=200, state=word(reply.state), run_at=optional_instant(reply.run_at))
    return ItemAnswer(
        status=200,
        lease_ttl=seconds(reply.lease_ttl),
        directive=directive(reply.directive),
        reason=reply.reason,
    )


_DONE = {state: ItemAnswer(status=200, state=word(state)) for state in State}
"""What most items are answered; nobody changes it."""


def explanation(reply: replies.Explanation) -> Explanation:
    """Return why a task is not running."""
    reasons = [
        Reason(
            code=reason.code,
            detail=reason.detail,
            until=optional_instant(reason.until),
            missing=list(reason.missing) or None,
        )
        for reason in reply.reasons
    ]
    state = word(reply.task.state)
    return Explanation(task_id=reply.task.id, state=state, reasons=reasons, ahead=reply.ahead)


def change(told: Change) -> TaskChange:
    """Return one line of the change feed."""
    return TaskChange(
        task_id=told.task_id,
        state="deleted" if told.state is None else told.state.word,
        queue=told.queue,
        name=told.name,
        at=format_instant(told.at),
        attempt=told.attempt,
        reason=told.reason,
    )
