"""Enqueue: a task comes into being once, however often it is asked for."""

from __future__ import annotations

from lineshaft.core.batch import Blob
from lineshaft.core.commands import Enqueue, Get, NewTask
from lineshaft.core.deadlines import Kind
from lineshaft.core.memory import PARKED, Memory, Parked
from lineshaft.core.replies import Enqueued, EnqueuedTask, Found
from lineshaft.core.task import State, Task
from lineshaft.core.tenants import Tenant, Wait
from lineshaft.errors import Conflict, LineshaftError, NotFound, QueueClosed


def enqueue(memory: Memory, command: Enqueue, ticket: int) -> Enqueued | Found | Parked:
    """Enqueue each task for itself; one bad item spoils only itself."""
    tenant = memory.tenant(command.tenant)
    memory.need(tenant, [new.id for new in command.tasks if new.given])
    items: list[EnqueuedTask | LineshaftError] = []
    for new in command.tasks:
        try:
            items.append(_enqueue_one(memory, tenant, new, command))
        except LineshaftError as error:
            items.append(error.with_traceback(None))  # which holds on to all that called us
    if command.wait_until is None:
        return Enqueued(items=items, position=memory.ledger.observed)
    [item] = items
    if isinstance(item, LineshaftError):
        raise item
    return _answer_or_wait(memory, tenant, item.task, ticket, until=command.wait_until, created=item.created)


def get(memory: Memory, command: Get, ticket: int) -> Found | Parked:
    """Read a task, at once or when it ends."""
    tenant = memory.tenant(command.tenant)
    task = known(memory, tenant, command.id)
    return _answer_or_wait(memory, tenant, task, ticket, until=command.wait_until, created=False)


def known(memory: Memory, tenant: Tenant, task_id: str) -> Task:
    """Return the task or raise `NotFound`."""
    task = memory.find(tenant, task_id)
    if task is None:
        raise NotFound("no task of this id (it may never have been, or been pruned)", task_id=task_id)
    return task


def wait_over(memory: Memory, wait: Wait) -> None:
    """Answer somebody whose time is up with the task as it stands."""
    waits = wait.tenant.waits.get(wait.task_id)
    if waits is None or waits.pop(wait.ticket, None) is None:
        return
    if not waits:
        del wait.tenant.waits[wait.task_id]
    task = wait.tenant.tasks[wait.task_id]
    reply = Found(
        task=task.snapshot(),
        position=memory.ledger.observed,
        ended=task.state.terminal,
        created=wait.created,
    )
    memory.deliveries.append((wait.ticket, reply))


def _enqueue_one(memory: Memory, tenant: Tenant, new: NewTask, command: Enqueue) -> EnqueuedTask:
    if new.given:
        task = memory.find(tenant, new.id)
        if task is not None:
            if command.conflict_error and task.fingerprint != new.fingerprint:
                raise Conflict("the task exists with another body", field="task_id", task_id=new.id)
            return EnqueuedTask(task=task.snapshot(), created=False)
    queue = tenant.queue(new.spec.queue)
    if queue.closed and not command.accepted:
        raise QueueClosed(f"queue {queue.name!r} is closed", field="queue", task_id=new.id)
    if new.given:
        _forget_expired(memory, tenant, new.id)
    return EnqueuedTask(task=_create(memory, tenant, new).snapshot(), created=True)


def _forget_expired(memory: Memory, tenant: Tenant, task_id: str) -> None:
    """Free the id of a finished task whose retention is over."""
    expired = tenant.tasks.get(task_id)
    if expired is None:
        return
    if memory.may_be_pruned(expired) and memory.found[(tenant.name, task_id)] is None:
        del tenant.tasks[task_id]  # pruned meanwhile, and counted out then
    else:
        memory.forget(tenant, expired)


def _create(memory: Memory, tenant: Tenant, new: NewTask) -> Task:
    ledger = memory.ledger
    now = ledger.now
    if new.run_at is not None:
        run_at = new.run_at
    else:
        run_at = now + new.delay if new.delay else now
    expires_at = new.expires_at if new.expires_in is None else now + new.expires_in
    task = Task(
        seq=ledger.seq,
        tenant=tenant.name,
        id=new.id,
        spec=tenant.share(new.spec),
        state=State.SCHEDULED if run_at > now else State.QUEUED,
        run_at=run_at,
        created_at=now,
        expires_at=expires_at,
        tags=new.tags,
        metadata=new.metadata,
        traceparent=new.traceparent,
        fingerprint=new.fingerprint,
        payload_size=0 if new.payload == b"null" else memory.share_size(len(new.payload)),
    )
    ledger.seq += 1
    tenant.tasks[task.id] = task
    memory.note_id(tenant, task.id)
    if memory.gone:
        memory.gone.pop((tenant.name, task.id), None)
    tenant.queue(task.spec.queue).counts[task.state] += 1
    ledger.tell(task)
    ledger.totals["enqueued"] += 1
    if task.payload_size:
        ledger.blobs[(Blob.PAYLOAD, task.seq)] = new.payload
    memory.stand_in_line(tenant, task)
    if expires_at is not None:
        memory.deadlines.add(expires_at, Kind.EXPIRY, task, expires_at)
    return task


def _answer_or_wait(
    memory: Memory, tenant: Tenant, task: Task, ticket: int, *, until: int | None, created: bool
) -> Found | Parked:
    ended = task.state.terminal
    if ended or until is None or until <= memory.now or ticket == 0:
        return Found(task=task.snapshot(), position=memory.ledger.observed, ended=ended, created=created)
    wait = Wait(ticket, tenant, task.id, created=created)
    tenant.waits.setdefault(task.id, {})[ticket] = wait
    memory.deadlines.add(until, Kind.WAIT, wait)
    return PARKED
