"""How a shard's memory is made from what its store remembers.

Plain heartbeats are not stored, and workers could not be heard while nobody owned the shard. So every lease
is renewed whole, and those whose workers are dead run out a lease later. Lest a shard that is lost again and
again keep them for ever, each such outage is counted against the lease.
"""

from __future__ import annotations

import msgspec

from lineshaft.core.batch import Record, Snapshot
from lineshaft.core.commands import WorkerInfo
from lineshaft.core.deadlines import Kind
from lineshaft.core.memory import Memory
from lineshaft.core.stored_ids import RECORD
from lineshaft.core.task import Lease, Spec, State, Task
from lineshaft.core.tenants import Tenant

MAX_RENEWALS = 20
"""Outages in a row that renew a lease although nothing was heard of its worker; then it runs out."""


def load(snapshot: Snapshot, now: int, *, new_outage: bool = True) -> Memory:
    """Make a shard's memory from what its store holds, at `now` (ms).

    `new_outage` is False where the engine loads once more because of what it has just loaded for: then no
    lease is charged for it again.
    """
    memory = Memory(snapshot.counters, snapshot.position, now)
    for record in snapshot.records:
        _load_record(memory, record)
    for census in snapshot.finished:
        memory.tenant(census.tenant).queue(census.queue).counts[census.state] += census.count
    alike: dict[int, tuple[Spec, Tenant, Spec, list[int]]] = {}
    for task in snapshot.tasks:
        # Specs that are one object need not be compared; it is kept for as long as its id is asked for.
        known = alike.get(id(task.spec))
        if known is None or known[1].name != task.tenant:
            known = alike[id(task.spec)] = _place(memory, task)
        _, tenant, task.spec, counts = known
        tenant.tasks[task.id] = task
        counts[task.state] += 1
        if task.expires_at is not None:
            memory.deadlines.add(task.expires_at, Kind.EXPIRY, task, task.expires_at)
        if task.state is State.QUEUED:
            tenant.lane(task.spec).push(task)  # nobody is parked yet who could want it
        elif task.lease is None:
            memory.stand_in_line(tenant, task)
        else:
            _load_lease(memory, tenant, task, task.lease, charge=int(new_outage))
    return memory


def _place(memory: Memory, task: Task) -> tuple[Spec, Tenant, Spec, list[int]]:
    tenant = memory.tenant(task.tenant)
    return task.spec, tenant, tenant.share(task.spec), tenant.queue(task.spec.queue).counts


def _load_record(memory: Memory, record: Record) -> None:
    tenant = memory.tenant(record.tenant)
    data = record.data or b""
    if record.kind == "queue":
        memory.set_switches(tenant.queue(record.key), data)
    elif record.kind == "drain":
        tenant.fleet.draining[record.key] = data.decode()
    elif record.kind == RECORD:
        tenant.highest_ahead = data.decode()
        tenant.highest_stored = max(tenant.highest_stored, tenant.highest_ahead)
    memory.records[(record.kind, record.tenant, record.key)] = data


def _load_lease(memory: Memory, tenant: Tenant, task: Task, lease: Lease, *, charge: int) -> None:
    run = task.run
    assert run is not None
    if lease.renewals < MAX_RENEWALS:
        lease = msgspec.structs.replace(
            lease,
            expires_at=max(lease.expires_at, memory.now + lease.ttl),
            renewals=lease.renewals + charge,
        )
        run.lease = lease
        memory.ledger.rows[task.seq] = task
    if lease.worker_id is not None:
        _know_worker(memory, tenant, task, WorkerInfo(id=lease.worker_id, incarnation=lease.incarnation))
    memory.hold(tenant, task, lease)
    if task.state is State.RUNNING and task.spec.timeout is not None and lease.started_at is not None:
        # Its worker may have finished in time and found nobody to report to.
        at = max(lease.started_at + task.spec.timeout, memory.now + lease.ttl)
        memory.deadlines.add(at, Kind.TIMEOUT, task, lease.fence)


def _know_worker(memory: Memory, tenant: Tenant, task: Task, info: WorkerInfo) -> None:
    """Note who holds a task. Until it claims again, it is only known to serve the queues of what it holds."""
    worker = tenant.fleet.of(info.id, info.incarnation) or tenant.fleet.hear(info, memory.now)
    queues = worker.queues or ()
    if task.spec.queue not in queues:
        worker.queues = (*queues, task.spec.queue)
