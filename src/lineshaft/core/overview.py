"""What is going on: queues, workers, counts, and why a task is not running. Reads only."""

from __future__ import annotations

from lineshaft.core.commands import Explain, Queues, Stats, Workers
from lineshaft.core.enqueue import known
from lineshaft.core.fleet import Worker
from lineshaft.core.lanes import Lane, order
from lineshaft.core.memory import Memory
from lineshaft.core.replies import Explanation, QueueState, Reason, StatsReply, WorkerState
from lineshaft.core.task import State, Task
from lineshaft.core.tenants import Queue, Tenant

_LATELY = 60_000


def queues(memory: Memory, command: Queues) -> list[QueueState]:
    """List the queues of a tenant by name, or the one that is asked for."""
    tenant = memory.tenant(command.tenant)
    if command.queue is not None:
        return [queue_state(memory, tenant, tenant.queues.get(command.queue) or Queue(command.queue))]
    return [queue_state(memory, tenant, tenant.queues[name]) for name in sorted(tenant.queues)]


def queue_state(memory: Memory, tenant: Tenant, queue: Queue) -> QueueState:
    """Describe one queue."""
    heads = [lane.head() for lane in list(queue.ready)]
    oldest = min((head.run_at for head in heads if head is not None), default=memory.now)
    return QueueState(
        queue=queue.name,
        paused=queue.paused,
        closed=queue.closed,
        counts={state: queue.counts[state] for state in State},
        oldest_age=max(0, memory.now - oldest),
        position=memory.ledger.observed,
        running=queue.counts[State.CLAIMED] + queue.counts[State.RUNNING],
        workers=sum(_asks_for(worker, queue, memory.now) for worker in tenant.fleet.workers.values()),
    )


def workers(memory: Memory, command: Workers) -> list[WorkerState]:
    """List the workers heard of lately, by id."""
    tenant = memory.tenant(command.tenant)
    tenant.fleet.forget_silent(memory.now)
    known_workers = sorted(
        (worker for worker in tenant.fleet.workers.values() if _is_live(worker, memory.now)),
        key=lambda worker: (worker.info.id, worker.info.incarnation or ""),
    )
    return [worker_state(memory, tenant, worker) for worker in known_workers]


def worker_state(memory: Memory, tenant: Tenant, worker: Worker) -> WorkerState:
    """Describe one worker."""
    info = worker.info
    return WorkerState(
        worker_id=info.id,
        incarnation=info.incarnation,
        name=info.name,
        version=info.version,
        host=info.host,
        pid=info.pid,
        capabilities=tuple(sorted(worker.capabilities)),
        resources=dict(worker.resources),
        free={name: total - worker.used.get(name, 0) for name, total in worker.resources.items()},
        held=len(worker.held),
        waiting=bool(worker.claimers),
        draining=tenant.fleet.is_draining(worker),
        seen_at=worker.seen_at,
        queues=worker.queues,
        names=worker.names,
        position=memory.ledger.observed,
    )


def stats(memory: Memory, command: Stats) -> StatsReply:
    """Count, for one tenant or ("*") for all."""
    if command.tenant == "*":
        tenants = list(memory.tenants.values())
    else:
        tenants = [memory.tenant(command.tenant)]
    all_queues = [queue for tenant in tenants for queue in tenant.queues.values()]
    counts = {state: sum(queue.counts[state] for queue in all_queues) for state in State}
    return StatsReply(
        counts=counts,
        queues=len(all_queues),
        workers=sum(
            _is_live(worker, memory.now) for tenant in tenants for worker in tenant.fleet.workers.values()
        ),
        waiting_claims=sum(len(tenant.claimers) for tenant in tenants),
        waiting_results=sum(len(waits) for tenant in tenants for waits in tenant.waits.values()),
        leases=counts[State.CLAIMED] + counts[State.RUNNING],
        counters=memory.counters,
        position=memory.ledger.observed,
        totals=dict(memory.ledger.totals),
    )


def explain(memory: Memory, command: Explain) -> Explanation:
    """Say why a task is not running."""
    tenant = memory.tenant(command.tenant)
    task = known(memory, tenant, command.id)
    reasons, ahead = _reasons(memory, tenant, task)
    return Explanation(task=task.snapshot(), reasons=reasons, ahead=ahead, position=memory.ledger.observed)


def _reasons(memory: Memory, tenant: Tenant, task: Task) -> tuple[list[Reason], int]:
    if task.state.terminal:
        return [Reason(code="finished", detail=f"the task is {task.state.word}")], 0
    if task.lease is not None:
        holder = task.lease.worker_id or "a worker without an id"
        return [Reason(code=task.state.word, detail=f"held by {holder}", until=task.lease.expires_at)], 0
    queue = tenant.queue(task.spec.queue)
    reasons = []
    if queue.paused:
        reasons.append(Reason(code="paused", detail=f"queue {queue.name!r} is paused"))
    if task.state is State.SCHEDULED:
        again = " (a retry)" if task.attempt else ""
        reasons.append(Reason(code="scheduled", detail=f"runs later{again}", until=task.run_at))
        return reasons, 0
    lane = tenant.lane(task.spec)
    reasons.extend(_worker_reasons(memory, tenant, lane))
    ahead = sum(other.ahead_of(order(task)) for other in queue.ready)
    if ahead:
        reasons.append(Reason(code="behind", detail=f"about {ahead} tasks of the queue go first"))
    return reasons or [Reason(code="no_claim", detail="ready; the next claim takes it")], ahead


def _worker_reasons(memory: Memory, tenant: Tenant, lane: Lane) -> list[Reason]:
    needs = ", ".join(
        [*sorted(lane.needs), *(f"{name}={_amount(amount)}" for name, amount in lane.affinity.resources)]
    )
    fleet = [
        w for w in tenant.fleet.workers.values() if memory.now - w.seen_at < _LATELY or w.claimers or w.held
    ]
    asking = [worker for worker in fleet if _serves(worker, lane)]
    if not asking:
        return [Reason(code="no_claim", detail="no live worker asks for its queue and name")]
    capable = [worker for worker in asking if worker.capable(lane)]
    if not capable:
        have = frozenset[str]().union(*(worker.capabilities for worker in asking))
        detail = f"no live worker has what it needs: {needs}"
        return [Reason(code="no_worker", detail=detail, missing=tuple(sorted(lane.needs - have)))]
    if lane.affinity.resources and not any(worker.has_free(lane.affinity.resources) for worker in capable):
        return [Reason(code="busy", detail=f"no capable worker has free: {needs}")]
    return []


def _amount(amount: float) -> str:
    return str(int(amount)) if amount == int(amount) else str(amount)


def _serves(worker: Worker, lane: Lane) -> bool:
    in_queue = worker.queues is None or lane.queue.name in worker.queues
    return in_queue and (worker.names is None or lane.name in worker.names)


def _asks_for(worker: Worker, queue: Queue, now: int) -> bool:
    return _is_live(worker, now) and (worker.queues is None or queue.name in worker.queues)


def _is_live(worker: Worker, now: int) -> bool:
    return bool(worker.held or worker.claimers) or now - worker.seen_at < _LATELY
