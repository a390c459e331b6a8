"""What people and programs outside do to tasks: patch, cancel, retry, promote, delete, one or many."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from lineshaft.core import claims
from lineshaft.core.batch import Blob
from lineshaft.core.commands import Cancel, Delete, Filter, Patch, Promote, Retry, Sweep
from lineshaft.core.enqueue import known
from lineshaft.core.memory import Memory
from lineshaft.core.replies import Found, Swept
from lineshaft.core.task import KEPT_ATTEMPTS, CancelRequest, Ending, Run, Spec, State, Task
from lineshaft.core.tenants import Tenant
from lineshaft.errors import Conflict, QueueClosed

UNSTARTED = (State.SCHEDULED, State.WAITING, State.QUEUED)


def patch(memory: Memory, command: Patch) -> Found:
    """Change a task that has not started; a copy takes the place of the old entry."""
    tenant = memory.tenant(command.tenant)
    task = known(memory, tenant, command.id)
    if task.state not in UNSTARTED or task.attempt > 0:
        raise Conflict(f"the task has started (it is {task.state.word})", task_id=task.id)
    spec = _patched_spec(task, command)
    if spec.queue != task.spec.queue and tenant.queue(spec.queue).closed:
        raise QueueClosed(f"queue {spec.queue!r} is closed", field="queue", task_id=task.id)
    task = _take_out(memory, tenant, task)
    tenant.queue(task.spec.queue).counts[task.state] -= 1
    task.spec = tenant.share(spec)
    tenant.queue(spec.queue).counts[task.state] += 1
    if command.tags is not msgspec.UNSET:
        task.tags = command.tags
    if command.payload is not msgspec.UNSET:
        memory.ledger.blobs[(Blob.PAYLOAD, task.seq)] = command.payload
        task.payload_size = len(command.payload)
    if command.run_at is not msgspec.UNSET:
        task.run_at = command.run_at
    _put_back(memory, tenant, task, "patched")
    return _found(memory, task)


def cancel(memory: Memory, command: Cancel) -> Found:
    """End a task that is not running; ask the worker of a running one to end it."""
    tenant = memory.tenant(command.tenant)
    task = known(memory, tenant, command.id)
    _cancel(memory, tenant, task, command.reason)
    return _found(memory, task)


def retry(memory: Memory, command: Retry) -> Found:
    """Run a finished task again: a new generation under the same id, attempts from 1, fences going on."""
    tenant = memory.tenant(command.tenant)
    return _found(memory, _retry(memory, tenant, known(memory, tenant, command.id)))


def promote(memory: Memory, command: Promote) -> Found:
    """Run a scheduled task now."""
    tenant = memory.tenant(command.tenant)
    task = known(memory, tenant, command.id)
    _promote(memory, tenant, task)
    return _found(memory, task)


def delete(memory: Memory, command: Delete) -> Found:
    """Forget a finished task; its id is free again."""
    tenant = memory.tenant(command.tenant)
    task = known(memory, tenant, command.id)
    found = _found(memory, task)
    _delete(memory, tenant, task)
    return msgspec.structs.replace(found, position=memory.ledger.observed)


def sweep(memory: Memory, command: Sweep) -> Swept:
    """Do one verb to many, each judged again as it truly stands now."""
    tenant = memory.tenant(command.tenant)
    memory.need(tenant, [task_id for task_id, _ in command.keys])
    matched = changed = 0
    for task_id, seq in command.keys:
        task = memory.find(tenant, task_id)
        if task is None or task.seq != seq or not matches(command.filter, task):
            continue
        matched += 1
        changed += _sweep_one(memory, tenant, task, command)
    return Swept(matched=matched, changed=changed, position=memory.ledger.observed)


def matches(filter: Filter, task: Task) -> bool:
    """Tell whether a task is among those that a filter means."""
    spec = task.spec
    return (
        (filter.states is None or task.state in filter.states)
        and (filter.queues is None or spec.queue in filter.queues)
        and (filter.names is None or spec.name in filter.names)
        and all(tag in task.tags for tag in filter.tags)
        and (filter.text is None or _mentions(task, filter.text))
    )


# -- each verb on a task that was found ----------------------------------------------------------------


def _sweep_one(memory: Memory, tenant: Tenant, task: Task, command: Sweep) -> bool:
    verb = command.verb
    if not _changeable(task, verb):
        return False
    if not command.dry_run:
        if verb == "cancel":
            _cancel(memory, tenant, task, command.reason)
        else:
            _BY_VERB[verb](memory, tenant, task)
    return True


def _changeable(task: Task, verb: str) -> bool:
    match verb:
        case "cancel":
            return not task.state.terminal and (task.run is None or task.run.cancel is None)
        case "promote":
            return task.state is State.SCHEDULED
        case _:
            return task.state.terminal


def _cancel(memory: Memory, tenant: Tenant, task: Task, reason: str | None) -> None:
    if task.state is State.CANCELLED:
        return
    if task.state.terminal:
        raise Conflict(f"the task has ended already (it is {task.state.word})", task_id=task.id)
    if task.run is None:
        task.run = Run()
    run = task.run
    if run.cancel is None:
        run.cancel = CancelRequest(memory.now, reason)
        memory.ledger.rows[task.seq] = task
    if task.state is State.RUNNING:
        claims.tell_of_cancel(memory, tenant, task)
        return
    if run.lease is not None:
        memory.end_lease(tenant, task, "cancelled")
    memory.finish(tenant, task, State.CANCELLED, run.cancel.reason)


def _retry(memory: Memory, tenant: Tenant, task: Task) -> Task:
    if _is_retried(task):
        return task  # the same request again, after an unknown outcome
    if not task.state.terminal:
        raise Conflict(f"the task has not ended (it is {task.state.word})", task_id=task.id)
    task = memory.replace(tenant, task)
    run, ledger = task.run, memory.ledger
    assert run is not None
    run.generation += 1
    assert run.finished_at is not None
    ending = Ending(run.finished_at, task.state, run.reason, memory.now)
    run.endings = (*run.endings, ending)[-KEPT_ATTEMPTS:]
    run.attempt = run.lost_leases = 0
    run.cancel = run.reason = run.progress = run.error = run.started_at = run.finished_at = None
    run.prune_at = run.result_expires_at = None
    if run.has_result:
        run.has_result = False
        ledger.blobs[(Blob.RESULT, task.seq)] = None
    if task.expires_at is not None and task.expires_at <= memory.now:
        task.expires_at = None
    ledger.totals["retried"] += 1
    memory.run_again(tenant, task, memory.now, "retry")
    return task


def _is_retried(task: Task) -> bool:
    run = task.run
    return task.state is State.QUEUED and run is not None and run.generation > 1 and run.attempt == 0


def _promote(memory: Memory, tenant: Tenant, task: Task) -> None:
    if task.state is State.QUEUED:
        return
    if task.state is not State.SCHEDULED:
        raise Conflict(f"only a scheduled task can be promoted (it is {task.state.word})", task_id=task.id)
    memory.run_again(tenant, task, memory.now, "promoted")


def _delete(memory: Memory, tenant: Tenant, task: Task) -> None:
    if not task.state.terminal:
        raise Conflict(f"the task has not ended (it is {task.state.word}); cancel it first", task_id=task.id)
    memory.forget(tenant, task)


_BY_VERB: dict[str, Callable[[Memory, Tenant, Task], object]] = {
    "retry": _retry,
    "promote": _promote,
    "delete": _delete,
}


# -- shared steps ------------------------------------------------------------------------------------


def _patched_spec(task: Task, command: Patch) -> Spec:
    changes = {
        field: value
        for field, value in (("priority", command.priority), ("queue", command.queue))
        if value is not msgspec.UNSET
    }
    return msgspec.structs.replace(task.spec, **changes) if changes else task.spec


def _take_out(memory: Memory, tenant: Tenant, task: Task) -> Task:
    """Leave a dead entry where the task stood, and go on with a copy."""
    twin = memory.replace(tenant, task)
    was, task.state = task.state, State.CANCELLED
    memory.withdraw(tenant, task, was)
    return twin


def _put_back(memory: Memory, tenant: Tenant, task: Task, reason: str) -> None:
    due = State.SCHEDULED if task.run_at > memory.now else State.QUEUED
    if task.state is due:
        memory.ledger.tell(task, reason)
    else:
        memory.move(tenant, task, due, reason)
    memory.stand_in_line(tenant, task)


def _mentions(task: Task, text: str) -> bool:
    text = text.lower()
    error = b"" if task.run is None else task.run.error or b""
    places = (task.id, task.spec.name, *task.tags, error.decode("utf-8", "replace"))
    return any(text in place.lower() for place in places)


def _found(memory: Memory, task: Task) -> Found:
    return Found(task=task.snapshot(), position=memory.ledger.observed, ended=task.state.terminal)
