"""What the holder of a lease may report, and how leases end without a report.

Everything a worker says of its task passes `_held`: one place where a late worker fails. The first outcome
with the current token wins. It leaves a `Settled` behind, so that the same outcome again, byte for byte, gets
the same answer until the task is leased anew; everything else is `LeaseLost` and changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from hashlib import blake2b
from typing import Any

import msgspec

from lineshaft.core.backoff import retry_delay
from lineshaft.core.batch import Blob
from lineshaft.core.claims import begin, check, claim, dismiss, give_back, match, release
from lineshaft.core.commands import (
    CancelHeld,
    Complete,
    Fail,
    Heartbeat,
    Op,
    Release,
    Report,
    Snooze,
    Start,
)
from lineshaft.core.enqueue import known
from lineshaft.core.memory import Memory
from lineshaft.core.replies import Claimed, OpReply, Reported
from lineshaft.core.task import MAX_LOST_LEASES, Lease, Run, Settled, State, Task
from lineshaft.core.tenants import Tenant
from lineshaft.errors import LeaseLost, LineshaftError

_SHORT = 32
"""Outcomes up to this many bytes are kept as they are; longer ones as a digest."""


def report(memory: Memory, command: Report) -> Reported:
    """Apply operations in order, each for itself, and then the claim."""
    if command.claim is not None:
        check(command.claim)
    tenant = memory.tenant(command.tenant)
    memory.need(tenant, [op.task_id for op in command.items])
    items: list[OpReply | LineshaftError] = []
    for op in command.items:
        try:
            items.append(operate(memory, tenant, op))
        except LineshaftError as error:
            items.append(error.with_traceback(None))  # which holds on to all that called us
    tasks: list[Task] = []
    directive = "continue"
    if command.claim is not None:
        match(memory)
        claimed = claim(memory, command.claim, ticket=0)
        assert isinstance(claimed, Claimed)
        tasks, directive = claimed.tasks, claimed.directive
    return Reported(items=items, tasks=tasks, position=memory.ledger.observed, directive=directive)


def operate(memory: Memory, tenant: Tenant, op: Op) -> OpReply:
    """Apply one operation, or repeat the answer that it got before."""
    task = known(memory, tenant, op.task_id)
    run = task.run
    if run is not None:
        if run.lease is not None and op.token == f"{run.lease.fence:x}-{task.seq:x}":
            return _VERBS[type(op)](memory, tenant, task, op)
        settled = run.settled
        if (
            settled is not None
            and op.token == f"{settled.fence:x}-{task.seq:x}"
            and settled.digest == outcome_digest(op)
        ):
            return OpReply(
                task_id=task.id, state=settled.state, position=settled.position, run_at=settled.run_at
            )
    raise LeaseLost("the lease token is not current; the task is not yours", task_id=task.id)


def outcome_digest(op: Op) -> bytes:
    """Return what distinguishes one outcome from another, byte for byte."""
    if type(op) is Complete:
        result = op.result
        if op.carry is None and op.result_ttl is None:
            told = b"complete:%d:%b::None" % (len(result), result)
        else:
            told = b"complete:%d:" % len(result) + result
            told += b":%s:%s" % (op.carry or b"", str(op.result_ttl).encode())
        return told if len(told) <= _SHORT else blake2b(told, digest_size=16).digest()
    match op:
        case Fail(error=error, retry=retry, retry_after=after):
            told = b"fail:%d:%s:" % (retry, str(after).encode()) + error
        case Snooze(delay=delay):
            told = b"snooze:%d" % delay
        case CancelHeld(reason=reason):
            told = b"cancel:" + (reason or "").encode()
        case _:
            told = type(op).__name__.encode()
    return told if len(told) <= _SHORT else blake2b(told, digest_size=16).digest()


def lose_lease(memory: Memory, tenant: Tenant, task: Task) -> None:
    """The lease ran out: queue the task at once, unless it was to be cancelled or has lost too many."""
    run = task.run
    assert run is not None
    started = task.state is State.RUNNING
    lease = memory.end_lease(tenant, task, "lease_lost")
    _distrust(memory, tenant, lease)
    run.lost_leases += 1
    memory.ledger.totals["lost"] += 1
    exhausted = started and run.attempt > task.spec.max_retries
    if run.cancel is not None:
        memory.finish(tenant, task, State.CANCELLED, run.cancel.reason)
    elif run.lost_leases >= MAX_LOST_LEASES or exhausted:
        run.error = b'{"type":"too_many_lost_leases","message":"%d lost, %d of %d attempts used"}' % (
            run.lost_leases,
            run.attempt,
            task.spec.max_retries + 1,
        )
        memory.finish(tenant, task, State.FAILED, "too_many_lost_leases")
    else:
        memory.run_again(tenant, task, task.run_at, "lease_lost")


def _distrust(memory: Memory, tenant: Tenant, lease: Lease) -> None:
    """Give a worker that let a lease run out nothing until it asks again: frozen, it would lose that too."""
    worker = tenant.fleet.of(lease.worker_id, lease.incarnation)
    if worker is not None:
        for claimer in list(worker.claimers.values()):
            dismiss(memory, tenant, claimer)


def time_out(memory: Memory, tenant: Tenant, task: Task) -> None:
    """The attempt took longer than its `timeout`: it has failed, whatever its worker still does."""
    assert task.spec.timeout is not None
    error = b'{"type":"timeout","message":"the attempt took longer than %g s"}' % (task.spec.timeout / 1000)
    memory.ledger.totals["timed_out"] += 1
    _end_attempt(memory, tenant, task, "timeout", error)


# -- the verbs ---------------------------------------------------------------------------------------


def _start(memory: Memory, tenant: Tenant, task: Task, op: Start) -> OpReply:
    memory.renew(task)
    if task.state is State.CLAIMED:
        begin(memory, tenant, task)
    return _alive(memory, tenant, task)


def _heartbeat(memory: Memory, tenant: Tenant, task: Task, op: Heartbeat) -> OpReply:
    run = _run(task)
    ledger = memory.ledger
    memory.renew(task)
    if op.progress is not None:
        run.progress = msgspec.structs.replace(op.progress, at=ledger.now)
        ledger.rows[task.seq] = task
    if op.usage is not None:
        run.usage = op.usage
        ledger.rows[task.seq] = task
    if op.checkpoint is not None:
        run.has_checkpoint = op.checkpoint != b"null"
        ledger.blobs[(Blob.CHECKPOINT, task.seq)] = op.checkpoint if run.has_checkpoint else None
        ledger.rows[task.seq] = task
    return _alive(memory, tenant, task)


def _complete(memory: Memory, tenant: Tenant, task: Task, op: Complete) -> OpReply:
    run = _begun(memory, tenant, task)
    ledger = memory.ledger
    lease = memory.end_lease(tenant, task, "completed")
    run.error = None
    run.has_result = op.result != b"null"
    if run.has_result:
        ledger.blobs[(Blob.RESULT, task.seq)] = op.result
    if op.carry is not None:
        ledger.blobs[(Blob.CARRY, task.seq)] = op.carry
    if run.has_checkpoint:
        run.has_checkpoint = False
        ledger.blobs[(Blob.CHECKPOINT, task.seq)] = None
    ttl = task.spec.result_ttl if op.result_ttl is None else op.result_ttl
    run.result_expires_at = None if ttl is None else ledger.now + ttl
    return _settled(memory, tenant, task, op, lease.fence, State.COMPLETED)


def _fail(memory: Memory, tenant: Tenant, task: Task, op: Fail) -> OpReply:
    run = _begun(memory, tenant, task)
    assert run.lease is not None
    fence = run.lease.fence
    _end_attempt(memory, tenant, task, "failed", op.error, retry=op.retry, retry_after=op.retry_after)
    return _settle(memory, task, op, fence)


def _release(memory: Memory, tenant: Tenant, task: Task, op: Release) -> OpReply:
    fence = _fence(task)
    release(memory, tenant, task)
    return _settle(memory, task, op, fence)


def _snooze(memory: Memory, tenant: Tenant, task: Task, op: Snooze) -> OpReply:
    run = _run(task)
    fence = _fence(task)
    give_back(memory, tenant, task, "snoozed")
    memory.ledger.totals["snoozed"] += 1
    if run.cancel is not None:
        memory.finish(tenant, task, State.CANCELLED, run.cancel.reason)
    else:
        memory.run_again(tenant, task, memory.now + op.delay, "snoozed")
    return _settle(memory, task, op, fence)


def _cancel_held(memory: Memory, tenant: Tenant, task: Task, op: CancelHeld) -> OpReply:
    lease = memory.end_lease(tenant, task, "cancelled")
    return _settled(memory, tenant, task, op, lease.fence, State.CANCELLED, reason=op.reason)


_VERBS: dict[type[Op], Callable[[Memory, Tenant, Task, Any], OpReply]] = {
    Start: _start,
    Heartbeat: _heartbeat,
    Complete: _complete,
    Fail: _fail,
    Release: _release,
    Snooze: _snooze,
    CancelHeld: _cancel_held,
}


# -- shared steps ------------------------------------------------------------------------------------


def _end_attempt(
    memory: Memory,
    tenant: Tenant,
    task: Task,
    outcome: str,
    error: bytes,
    *,
    retry: bool = True,
    retry_after: int | None = None,
) -> None:
    """End a failed attempt: again after a while if it may, else for good."""
    run = _run(task)
    spec = task.spec
    memory.end_lease(tenant, task, outcome, error)
    run.error = error
    if run.cancel is not None:
        memory.finish(tenant, task, State.CANCELLED, run.cancel.reason)
    elif retry and run.attempt <= spec.max_retries:
        delay = retry_after
        if delay is None:
            delay = retry_delay(spec.retry_policy, run.attempt, salt=f"{task.id}/{task.seq}")
        memory.ledger.totals["retried"] += 1
        memory.run_again(tenant, task, memory.now + delay, outcome)
    else:
        memory.finish(tenant, task, State.FAILED, None if outcome == "failed" else outcome)


def _begun(memory: Memory, tenant: Tenant, task: Task) -> Run:
    """An outcome of a task whose start was not reported begins it now: it must cost an attempt."""
    if task.state is State.CLAIMED:
        begin(memory, tenant, task)
    return _run(task)


def _settled(
    memory: Memory, tenant: Tenant, task: Task, op: Op, fence: int, state: State, *, reason: str | None = None
) -> OpReply:
    memory.finish(tenant, task, state, reason)
    return _settle(memory, task, op, fence)


def _settle(memory: Memory, task: Task, op: Op, fence: int) -> OpReply:
    run = _run(task)
    run_at = None if task.state >= State.COMPLETED else task.run_at
    position = memory.ledger.position
    run.settled = Settled(fence, outcome_digest(op), task.state, run_at, position)
    return OpReply(task_id=task.id, state=task.state, position=position, run_at=run_at)


def _alive(memory: Memory, tenant: Tenant, task: Task) -> OpReply:
    run = _run(task)
    assert run.lease is not None
    directive, reason = "continue", None
    worker = tenant.fleet.of(run.lease.worker_id, run.lease.incarnation)
    if worker is not None:
        worker.seen_at = memory.now
    if run.cancel is not None:
        directive, reason = "cancel", run.cancel.reason
    elif worker is not None and tenant.fleet.is_draining(worker):
        directive = "drain"
    return OpReply(
        task_id=task.id,
        state=task.state,
        position=memory.ledger.observed,
        lease_ttl=run.lease.ttl,
        directive=directive,
        reason=reason,
    )


def _run(task: Task) -> Run:
    assert task.run is not None
    return task.run


def _fence(task: Task) -> int:
    lease = task.lease
    assert lease is not None
    return lease.fence
