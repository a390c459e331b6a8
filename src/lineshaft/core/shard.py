"""The shard: a pure, single-writer state machine.

It takes one command at a time with the time passed in, and yields a reply and the changes to commit. It knows
no clock, no chance, no I/O. Whoever runs it (the engine, a test, the simulator) does this:

    reply = shard.apply(command, now, ticket=7)  # PARKED: the answer comes later, under the ticket
    position = shard.observed()                  # the reply may be shown once this is durable
    replies = shard.take_deliveries()            # answers to parked commands, under the same condition
    batch = shard.cut(nonce)                     # when it is time to commit
    shard.apply(Tick(tenant="*"), now)           # at shard.next_deadline()
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from lineshaft.core import claims, control, enqueue, outcomes, overview
from lineshaft.core.batch import Batch, Record, Snapshot
from lineshaft.core.commands import (
    Barrier,
    Cancel,
    Claim,
    Command,
    Delete,
    Drain,
    Enqueue,
    Explain,
    Get,
    Grace,
    Patch,
    Promote,
    Pruned,
    PutRecord,
    Queues,
    Records,
    Report,
    Retry,
    SetQueue,
    Stats,
    Sweep,
    Tick,
    Unpark,
    Workers,
)
from lineshaft.core.deadlines import Kind
from lineshaft.core.loading import load
from lineshaft.core.memory import PARKED, Missing, Overtaken, Parked
from lineshaft.core.replies import Directive, QueueState, WorkerState
from lineshaft.core.task import State, Task
from lineshaft.errors import NotFound

__all__ = ["PARKED", "Missing", "Overtaken", "Parked", "Shard"]

_TICK_WORK = 2_000
"""Deadlines handled by one tick; the rest wait for the next, at once, so that nobody else waits long."""


class Shard:
    """The open work of some tenants, and every rule about it."""

    def __init__(self, snapshot: Snapshot, now: int, *, new_outage: bool = True) -> None:
        """Load the shard; about `new_outage` see `loading.load`."""
        self._memory = load(snapshot, now, new_outage=new_outage)
        self._handlers: dict[type[Command], Callable[[Any, int], Any]] = {
            Enqueue: lambda command, ticket: enqueue.enqueue(self._memory, command, ticket),
            Claim: lambda command, ticket: claims.claim(self._memory, command, ticket),
            Report: lambda command, ticket: outcomes.report(self._memory, command),
            Get: lambda command, ticket: enqueue.get(self._memory, command, ticket),
            Patch: lambda command, ticket: control.patch(self._memory, command),
            Cancel: lambda command, ticket: control.cancel(self._memory, command),
            Retry: lambda command, ticket: control.retry(self._memory, command),
            Promote: lambda command, ticket: control.promote(self._memory, command),
            Delete: lambda command, ticket: control.delete(self._memory, command),
            Sweep: lambda command, ticket: control.sweep(self._memory, command),
            Queues: lambda command, ticket: overview.queues(self._memory, command),
            Workers: lambda command, ticket: overview.workers(self._memory, command),
            Explain: lambda command, ticket: overview.explain(self._memory, command),
            Stats: lambda command, ticket: overview.stats(self._memory, command),
            SetQueue: lambda command, ticket: self._set_queue(command),
            Drain: lambda command, ticket: self._drain(command),
            PutRecord: lambda command, ticket: self._put_record(command),
            Records: lambda command, ticket: self._records(command),
            Barrier: lambda command, ticket: self.observed(),
            Tick: lambda command, ticket: self._tick(command),
            Unpark: lambda command, ticket: self._unpark(command),
            Grace: lambda command, ticket: self._grace(command),
            Pruned: lambda command, ticket: self._pruned(command),
        }

    @property
    def position(self) -> int:
        """The position that the batch being gathered will get."""
        return self._memory.ledger.position

    @property
    def dirty(self) -> bool:
        """Whether there are changes to commit."""
        return self._memory.ledger.dirty

    @property
    def deliveries(self) -> list[tuple[int, Any]]:
        """Answers to parked commands, as (ticket, reply), until they are taken."""
        return self._memory.deliveries

    @property
    def directives(self) -> list[Directive]:
        """What connected workers should be told at once, until it is taken."""
        return self._memory.directives

    def apply(
        self,
        command: Command,
        now: int,
        *,
        ticket: int = 0,
        found: Mapping[tuple[str, str], Task | None] | None = None,
    ) -> Any:
        """Apply one command and return its reply, or `PARKED`.

        `ticket` (not 0) allows the command to park. `found` are rows that were looked up because the command
        raised `Missing` before; None says that the store has no such row. Raises `LineshaftError` as a
        refusal and `Missing`, both before anything has changed; `Overtaken` where the shard is to be dropped.
        """
        memory = self._memory
        memory.ledger.now = max(memory.ledger.now, now)
        memory.found = found or {}
        try:
            return self._handlers[type(command)](command, ticket)
        finally:
            memory.found = {}
            if memory.ready_lanes or memory.freed_workers:
                claims.match(memory)

    def take_deliveries(self) -> list[tuple[int, Any]]:
        """Return and clear `deliveries`."""
        taken, self._memory.deliveries = self._memory.deliveries, []
        return taken

    def take_directives(self) -> list[Directive]:
        """Return and clear `directives`."""
        taken, self._memory.directives = self._memory.directives, []
        return taken

    def observed(self) -> int:
        """Return the position that must be durable before a reply computed now may be shown."""
        return self._memory.ledger.observed

    def cut(self, nonce: bytes) -> Batch:
        """Take the pending changes as one batch."""
        return self._memory.ledger.cut(nonce)

    def next_deadline(self, *, leases: bool = True) -> int | None:
        """Return the instant at which a `Tick` is due, or None."""
        return self._memory.deadlines.next(leases=leases)

    def evict(self, keep: int) -> None:
        """Drop finished tasks from memory, oldest first, down to `keep`.

        The engine calls this after a commit, and never while a look-up for `found` is under way.
        """
        self._memory.evict(keep)

    def open_leases(self) -> int:
        """Return how many leases are live."""
        queues = [queue for tenant in self._memory.tenants.values() for queue in tenant.queues.values()]
        return sum(queue.counts[State.CLAIMED] + queue.counts[State.RUNNING] for queue in queues)

    # -- time ------------------------------------------------------------------------------------

    def _tick(self, command: Tick) -> None:
        memory = self._memory
        now = memory.now
        for _ in range(_TICK_WORK):
            due = memory.deadlines.pop_due(now)
            if due is None:
                break
            self._pass_deadline(*due)
        if command.leases:
            for _ in range(_TICK_WORK):
                lost = memory.deadlines.pop_lost_lease(now)
                if lost is None:
                    break
                outcomes.lose_lease(memory, memory.tenant(lost.tenant), lost)

    def _pass_deadline(self, kind: Kind, subject: Any, mark: int) -> None:
        memory = self._memory
        if kind is Kind.CLAIM:
            if subject.parked:
                claims.dismiss(memory, memory.tenant(subject.claim.tenant), subject)
        elif kind is Kind.WAIT:
            enqueue.wait_over(memory, subject)
        else:
            self._pass_task_deadline(kind, subject, mark)

    def _pass_task_deadline(self, kind: Kind, task: Task, mark: int) -> None:
        memory = self._memory
        tenant = memory.tenant(task.tenant)
        if tenant.tasks.get(task.id) is not task:
            return  # a copy has taken its place
        if kind is Kind.RUN_AT:
            if task.state is State.SCHEDULED and task.run_at == mark:
                memory.move(tenant, task, State.QUEUED)
                memory.stand_in_line(tenant, task)
        elif kind is Kind.EXPIRY:
            if task.state < State.RUNNING and task.expires_at == mark and task.attempt == 0:
                claims.expire(memory, tenant, task)
        elif task.lease is not None and task.lease.fence == mark:
            outcomes.time_out(memory, tenant, task)

    def _grace(self, command: Grace) -> None:
        for tenant in self._memory.tenants.values():
            for task in tenant.tasks.values():
                if task.lease is not None:
                    self._memory.extend(task, command.duration)

    # -- parked requests -------------------------------------------------------------------------

    def _unpark(self, command: Unpark) -> None:
        tenant = self._memory.tenant(command.tenant)
        claimer = tenant.claimers.get(command.ticket)
        if claimer is not None:
            self._memory.unpark(tenant, claimer)
            return
        for task_id, waits in list(tenant.waits.items()):
            if waits.pop(command.ticket, None) is not None:
                if not waits:
                    del tenant.waits[task_id]
                return

    # -- switches and small rows -----------------------------------------------------------------

    def _set_queue(self, command: SetQueue) -> QueueState:
        memory = self._memory
        tenant = memory.tenant(command.tenant)
        queue = tenant.queue(command.queue)
        if command.paused is not None:
            queue.paused = command.paused
        if command.closed is not None:
            queue.closed = command.closed
        switches = (b"p" if queue.paused else b"") + (b"c" if queue.closed else b"")
        if memory.records.get(("queue", tenant.name, queue.name)) != switches:
            memory.put_record("queue", tenant.name, queue.name, switches)
        for lane in queue.ready:
            if queue.paused and lane.reserved_by is not None:
                lane.reserved_by.end_reservation()
            memory.ready_lanes[lane] = tenant
        return overview.queue_state(memory, tenant, queue)

    def _drain(self, command: Drain) -> WorkerState:
        memory = self._memory
        tenant = memory.tenant(command.tenant)
        named = [
            worker
            for (worker_id, incarnation), worker in tenant.fleet.workers.items()
            if worker_id == command.worker_id and command.incarnation in (None, incarnation)
        ]
        if not named:
            raise NotFound(f"no worker {command.worker_id!r} was heard of lately", field="id")
        worker = max(named, key=lambda worker: worker.seen_at)
        memory.set_drain(tenant, worker.info.id, worker.info.incarnation or "")
        for claimer in list(worker.claimers.values()):
            claims.dismiss(memory, tenant, claimer, "drain")
        memory.directives.append(
            Directive(
                tenant=tenant.name,
                worker_id=worker.info.id,
                incarnation=worker.info.incarnation,
                directive="drain",
            )
        )
        return overview.worker_state(memory, tenant, worker)

    def _put_record(self, command: PutRecord) -> None:
        self._memory.put_record(command.kind, command.tenant, command.key, command.data)

    def _records(self, command: Records) -> list[Record]:
        return [
            Record(kind, tenant, key, data)
            for (kind, tenant, key), data in sorted(self._memory.records.items())
            if kind == command.kind and tenant == command.tenant
        ]

    def _pruned(self, command: Pruned) -> None:
        for census in command.removed:
            counts = self._memory.tenant(census.tenant).queue(census.queue).counts
            counts[census.state] = max(0, counts[census.state] - census.count)
