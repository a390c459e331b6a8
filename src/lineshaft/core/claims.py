"""Claims: who gets which task, now or when one comes.

A claim merges the heads of the ready lanes that its worker can serve, in order. If there is none it may park
at those lanes; a lane that gets a task gives it to whoever has waited longest.
"""

from __future__ import annotations

import heapq

from lineshaft.core.claimers import Claimer
from lineshaft.core.commands import Claim
from lineshaft.core.deadlines import Kind
from lineshaft.core.fleet import RESERVE_AFTER, Worker
from lineshaft.core.lanes import Lane, Order, order
from lineshaft.core.memory import PARKED, Memory, Parked
from lineshaft.core.replies import Claimed, Directive
from lineshaft.core.task import Lease, Run, State, Task, lease_token
from lineshaft.core.tenants import Tenant
from lineshaft.errors import Invalid

CLAIM_BYTES = 8 * 1024 * 1024
"""Payloads beyond this wait for the next claim: an answer that takes long eats into the leases it brings."""


def claim(memory: Memory, command: Claim, ticket: int) -> Claimed | Parked:
    """Lease tasks to a worker, or park the claim until some come."""
    check(command)
    tenant = memory.tenant(command.tenant)
    worker = _hear(memory, tenant, command)
    repeated = _held_of_claim(memory, tenant, command.claim_id)
    if command.holding is not None:
        _release_unknown(memory, tenant, command, keep=repeated)
    if worker is not None and command.max == 0:
        _remind(memory, tenant, worker)
    if repeated:
        return _claimed(memory, repeated)
    _take_over_parked(memory, tenant, command.claim_id)
    holder = None if command.holding is None else worker
    if worker is not None and tenant.fleet.is_draining(worker):
        return _claimed(memory, [], holder, directive="drain")
    claimer = Claimer(ticket, command, worker)
    tasks = take(memory, tenant, claimer)
    if tasks or ticket == 0 or command.wait_until is None or command.wait_until <= memory.now:
        return _claimed(memory, tasks, holder)
    _park(memory, tenant, claimer, command.wait_until)
    return PARKED


def check(command: Claim) -> None:
    """Raise `Invalid` for a claim that says less than it needs; before anything has changed."""
    if command.holding is not None and command.worker is None:
        raise Invalid("`holding` needs a worker with an id", field="worker")


def take(memory: Memory, tenant: Tenant, claimer: Claimer) -> list[Task]:
    """Lease what the claimer may have, best first, up to its `max` and to what one answer may carry."""
    heads: list[tuple[Order, Lane]] = []
    for lane in _ready_lanes(tenant, claimer):
        head = _live_head(memory, tenant, lane)
        if head is not None:
            heads.append((order(head), lane))
    heapq.heapify(heads)
    taken: list[Task] = []
    worker, most, room = claimer.worker, claimer.claim.max, CLAIM_BYTES
    if len(heads) == 1 and not heads[0][1].affinity.resources:
        return _take_in_line(memory, tenant, claimer, heads[0][1])
    while heads and len(taken) < most and room > 0:
        _, lane = heads[0]
        head = _live_head(memory, tenant, lane)
        if head is None or (lane.affinity.resources and not _fits(memory, worker, lane, head)):
            heapq.heappop(heads)
            continue
        lane.pop()
        _lease(memory, tenant, head, claimer)
        taken.append(head)
        room -= head.payload_size
        successor = _live_head(memory, tenant, lane)
        if successor is None:
            heapq.heappop(heads)
        else:
            heapq.heapreplace(heads, (order(successor), lane))
    return taken


def _take_in_line(memory: Memory, tenant: Tenant, claimer: Claimer, lane: Lane) -> list[Task]:
    """Do as `take` where one lane has all that the claimer could be given, and anybody may have it."""
    taken: list[Task] = []
    most, room = claimer.claim.max, CLAIM_BYTES
    while len(taken) < most and room > 0:
        head = _live_head(memory, tenant, lane)
        if head is None:
            break
        lane.pop()
        _lease(memory, tenant, head, claimer)
        taken.append(head)
        room -= head.payload_size
    return taken


def match(memory: Memory) -> None:
    """Hand ready tasks to parked claimers, until one of the two is used up everywhere."""
    while memory.ready_lanes or memory.freed_workers:
        while memory.ready_lanes:
            lane, tenant = memory.ready_lanes.popitem()
            while lane.size and lane.claimers and not lane.queue.paused:
                if not any(_serve(memory, tenant, claimer) for claimer in list(lane.claimers.values())):
                    break
        if memory.freed_workers:
            worker, tenant = memory.freed_workers.popitem()
            for claimer in list(worker.claimers.values()):
                _serve(memory, tenant, claimer)


def dismiss(memory: Memory, tenant: Tenant, claimer: Claimer, directive: str = "continue") -> None:
    """Answer a parked claim with nothing."""
    memory.unpark(tenant, claimer)
    reply = Claimed(tasks=[], position=memory.ledger.observed, directive=directive)
    memory.deliveries.append((claimer.ticket, reply))


def release(memory: Memory, tenant: Tenant, task: Task) -> None:
    """Give a leased task back to its lane; no attempt is burned."""
    run = task.run
    assert run is not None
    give_back(memory, tenant, task, "released")
    memory.ledger.totals["released"] += 1
    if run.cancel is not None:
        memory.finish(tenant, task, State.CANCELLED, run.cancel.reason)
    else:
        memory.run_again(tenant, task, task.run_at, "released")


def give_back(memory: Memory, tenant: Tenant, task: Task, outcome: str) -> None:
    """End the lease and take the count of the attempt back, if it had begun."""
    run = task.run
    assert run is not None
    begun = task.state is State.RUNNING
    memory.end_lease(tenant, task, outcome)
    if begun:
        run.attempt -= 1
        run.started_at = None


def begin(memory: Memory, tenant: Tenant, task: Task) -> None:
    """Let a claimed task run. Counted here and not at its end: a worker that dies must use one up."""
    run = task.run
    assert run is not None
    assert run.lease is not None
    lease = run.lease
    run.lease = Lease(
        lease.fence,
        lease.ttl,
        lease.claimed_at,
        lease.expires_at,
        lease.worker_id,
        lease.incarnation,
        lease.claim_id,
        memory.now,
        lease.renewals,
    )
    _begin_at(memory, tenant, task, run, run.lease)


def _begin_at(memory: Memory, tenant: Tenant, task: Task, run: Run, lease: Lease) -> None:
    """Count the attempt that begins with what the lease says."""
    ledger = memory.ledger
    run.attempt += 1
    run.started_at = ledger.now
    memory.move(tenant, task, State.RUNNING)
    ledger.totals["started"] += 1
    if task.spec.timeout is not None:
        memory.deadlines.add(ledger.now + task.spec.timeout, Kind.TIMEOUT, task, lease.fence)


def expire(memory: Memory, tenant: Tenant, task: Task) -> None:
    """Cancel a task that did not start in time."""
    if task.lease is not None:
        memory.end_lease(tenant, task, "cancelled")
    memory.finish(tenant, task, State.CANCELLED, "expired")


# -- parking -----------------------------------------------------------------------------------------


def _park(memory: Memory, tenant: Tenant, claimer: Claimer, until: int) -> None:
    tenant.claimers[claimer.ticket] = claimer
    claimer.parked = True
    if claimer.claim.claim_id is not None:
        tenant.parked_by_claim_id[claimer.claim.claim_id] = claimer
    if claimer.worker is not None:
        claimer.worker.claimers[claimer.ticket] = claimer
    if claimer.queues is None:
        queues = list(tenant.queues.values())
    else:
        queues = [tenant.queues[name] for name in claimer.queues if name in tenant.queues]
    for queue in queues:
        for lane in queue.lanes.values():
            if claimer.serves(lane):
                claimer.wait_at(lane)
    memory.deadlines.add(until, Kind.CLAIM, claimer)


def _serve(memory: Memory, tenant: Tenant, claimer: Claimer) -> bool:
    tasks = take(memory, tenant, claimer)
    if not tasks:
        return False
    memory.unpark(tenant, claimer)
    memory.deliveries.append((claimer.ticket, _claimed(memory, tasks)))
    return True


def _take_over_parked(memory: Memory, tenant: Tenant, claim_id: str | None) -> None:
    """The requester of a parked claim that is repeated is not there any more."""
    first = None if claim_id is None else tenant.parked_by_claim_id.get(claim_id)
    if first is not None:
        dismiss(memory, tenant, first)


def _claimed(
    memory: Memory, tasks: list[Task], holder: Worker | None = None, *, directive: str = "continue"
) -> Claimed:
    return Claimed(
        tasks=[task.snapshot() for task in tasks],
        position=memory.ledger.observed,
        directive=directive,
        held=() if holder is None else tuple(lease_token(task) for task in holder.held.values()),
    )


# -- the worker --------------------------------------------------------------------------------------


def _hear(memory: Memory, tenant: Tenant, command: Claim) -> Worker | None:
    info = command.worker
    if info is None:
        return None
    fleet = tenant.fleet
    drained = fleet.draining.get(info.id)
    if drained is not None:
        incarnation = info.incarnation or ""
        if drained != incarnation or (not incarnation and fleet.of(info.id, None) is None):
            # Another life: the one that was to go has gone.
            memory.set_drain(tenant, info.id, None)
    worker = fleet.hear(info, memory.now)
    worker.queues, worker.names = command.queues, command.names
    return worker


def _held_of_claim(memory: Memory, tenant: Tenant, claim_id: str | None) -> list[Task]:
    """Return what is still held of the first answer to this claim, its leases counted from now again."""
    if claim_id is None:
        return []
    held = sorted(tenant.claims.get(claim_id, {}).values(), key=_fence)
    for task in held:
        memory.renew(task)
    return held


def _fence(task: Task) -> int:
    assert task.lease is not None
    return task.lease.fence


def _release_unknown(memory: Memory, tenant: Tenant, command: Claim, keep: list[Task]) -> None:
    """Release what this incarnation was given but does not know of: the answer was lost."""
    info = command.worker
    assert info is not None
    assert command.holding is not None
    worker = tenant.fleet.of(info.id, info.incarnation)
    assert worker is not None
    kept = {task.seq for task in keep}
    known = set(command.holding)
    for task in list(worker.held.values()):
        if task.seq not in kept and lease_token(task) not in known:
            release(memory, tenant, task)


def _remind(memory: Memory, tenant: Tenant, worker: Worker) -> None:
    """Tell a worker that has come back which of its tasks are to be cancelled; it may not have heard."""
    for task in worker.held.values():
        tell_of_cancel(memory, tenant, task)


def tell_of_cancel(memory: Memory, tenant: Tenant, task: Task) -> None:
    """Let whoever runs the task hear at once that it is to be cancelled, if it is."""
    run, lease = task.run, task.lease
    if task.state is not State.RUNNING or run is None or run.cancel is None:
        return
    if lease is not None and lease.worker_id is not None:
        memory.directives.append(
            Directive(
                tenant=tenant.name,
                worker_id=lease.worker_id,
                incarnation=lease.incarnation,
                directive="cancel",
                task_id=task.id,
                token=lease_token(task),
                reason=run.cancel.reason,
            )
        )


# -- leasing -----------------------------------------------------------------------------------------


def _ready_lanes(tenant: Tenant, claimer: Claimer) -> list[Lane]:
    if claimer.queues is None:
        queues = list(tenant.queues.values())
    else:
        queues = [tenant.queues[name] for name in claimer.queues if name in tenant.queues]
    return [
        lane
        for queue in queues
        if queue.ready and not queue.paused
        for lane in queue.ready
        if claimer.serves(lane)
    ]


def _live_head(memory: Memory, tenant: Tenant, lane: Lane) -> Task | None:
    """Return the lane's head; those past their `expires_at` end here, before anybody is given one."""
    while (head := lane.head()) is not None:
        if head.expires_at is None or head.expires_at > memory.now or head.attempt > 0:
            return head
        expire(memory, tenant, head)
    return None


def _fits(memory: Memory, worker: Worker | None, lane: Lane, head: Task) -> bool:
    """Tell whether the worker has free what the head needs; for one that starves a worker is kept free."""
    assert worker is not None
    if worker.kept_from(lane):
        return False
    if worker.has_free(lane.affinity.resources):
        if worker.reserved_for is lane:
            worker.end_reservation()
        return True
    if memory.now - max(head.run_at, head.created_at) >= RESERVE_AFTER:
        worker.reserve(lane)
    return False


def _lease(memory: Memory, tenant: Tenant, task: Task, claimer: Claimer) -> None:
    command, worker = claimer.claim, claimer.worker
    ledger = memory.ledger
    now = ledger.now
    ledger.fence = fence = ledger.fence + 1
    run = task.run
    if run is None:
        run = task.run = Run()
    ttl = task.spec.lease if command.lease is None else command.lease
    run.settled = None
    lease = run.lease = Lease(
        fence,
        ttl,
        now,
        now + ttl,
        None if worker is None else worker.info.id,
        None if worker is None else worker.info.incarnation,
        command.claim_id,
        now if command.start else None,
    )
    memory.move(tenant, task, State.CLAIMED)
    ledger.totals["claimed"] += 1
    if command.start:
        _begin_at(memory, tenant, task, run, lease)
    memory.hold(tenant, task, lease)
