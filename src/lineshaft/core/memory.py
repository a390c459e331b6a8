"""What a shard holds in memory, and the few moves that everything else is made of.

Open tasks are all here. Finished ones stay for a while, so that a repeated report or a waiting client finds
them; what is not here raises `Missing`, and the engine brings it from the store.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from typing import Final

import msgspec

from lineshaft.core.batch import Counters, Record
from lineshaft.core.claimers import Claimer
from lineshaft.core.deadlines import Deadlines, Kind
from lineshaft.core.fleet import Worker
from lineshaft.core.lanes import Lane
from lineshaft.core.ledger import Ledger
from lineshaft.core.replies import Directive, Found
from lineshaft.core.stored_ids import AHEAD, RECORD, is_time_ordered, last_id_like, last_id_of
from lineshaft.core.task import KEPT_ATTEMPTS as _KEPT
from lineshaft.core.task import STATE_WORDS, Attempt, Lease, Run, State, Task
from lineshaft.core.tenants import Queue, Tenant, Wait
from lineshaft.core.transitions import LEGAL, check_move

_KEPT_SIZES = 10_000

PRUNE_MARGIN = 60_000
"""How long after its retention a finished task may still lie in the store; nobody is shown it."""


class Parked:
    """The answer is not ready; it will be among `deliveries`, under the ticket of the command."""


PARKED: Final = Parked()


class Missing(Exception):
    """A command needs rows that are not in memory; nothing was changed. `keys` are (tenant, task id)."""

    def __init__(self, keys: list[tuple[str, str]]) -> None:
        super().__init__(keys)
        self.keys = keys


class Overtaken(Exception):
    """The store has an open task that memory has not: another owner has written. Memory must go."""

    def __init__(self, task_id: str) -> None:
        super().__init__(f"task {task_id} is open in the store and unknown here: another owner has written")


class Memory:
    """All state of a shard. Its methods change it; when to call them the modules of the verbs decide."""

    def __init__(self, counters: Counters, position: int, now: int) -> None:
        """Make the memory of a shard without tasks; `loading.load` makes that of one with some."""
        self.ledger = Ledger(counters, position)
        self.ledger.now = max(now, counters.now)
        self.tenants: dict[str, Tenant] = {}
        self.deadlines = Deadlines(_matters)
        self.deliveries: list[tuple[int, object]] = []
        self.directives: list[Directive] = []
        self.found: Mapping[tuple[str, str], Task | None] = {}
        self.ready_lanes: dict[Lane, Tenant] = {}
        self.freed_workers: dict[Worker, Tenant] = {}
        self.records: dict[tuple[str, str, str], bytes] = {}
        self.gone: dict[tuple[str, str], int] = {}
        """Deleted tasks → the position that deletes them; the store may show them until then."""
        self._finished: deque[tuple[int, Task]] = deque()
        self._sizes: dict[int, int] = {}
        # Of a new store nothing is; of another nothing above what could be made when it was written last.
        self._highest_stored = last_id_of(counters.now + AHEAD) if position else ""
        self._ahead = (-1, "")

    @property
    def now(self) -> int:
        """Return the shard's present; it never runs backwards."""
        return self.ledger.now

    def tenant(self, name: str) -> Tenant:
        """Return the tenant, made on first sight."""
        tenant = self.tenants.get(name)
        if tenant is None:
            tenant = self.tenants[name] = Tenant(name, self._highest_stored)
        return tenant

    def share_size(self, size: int) -> int:
        """Return the one object that stands for a size: a million integers of their own take 32 MB."""
        if len(self._sizes) >= _KEPT_SIZES:
            self._sizes.clear()
        return self._sizes.setdefault(size, size)

    # -- finding ---------------------------------------------------------------------------------

    def need(self, tenant: Tenant, ids: Iterable[str]) -> None:
        """Raise `Missing` with all ids that are neither in memory nor were looked up for this command."""
        keys: list[tuple[str, str]] = []
        tasks = tenant.tasks
        for task_id in ids:
            task = tasks.get(task_id)
            if task is not None and (task.run is None or task.run.prune_at is None):
                continue  # open
            if task is None and self.is_new(tenant, task_id):
                continue
            key = (tenant.name, task_id)
            if key in self.found or key in self.gone or not (task is None or self.may_be_pruned(task)):
                continue
            keys.append(key)
        if keys:
            raise Missing(keys)

    def find(self, tenant: Tenant, task_id: str) -> Task | None:
        """Return a task, open or finished and retained, or None; memory wins over what was looked up.

        Raises `Overtaken`.
        """
        task = tenant.tasks.get(task_id)
        if task is None:
            key = (tenant.name, task_id)
            if key in self.gone:
                return None
            if key not in self.found:
                if self.is_new(tenant, task_id):
                    return None
                raise Missing([key])
            task = self.found[key]
            if task is not None:
                if task.state < State.COMPLETED:
                    raise Overtaken(task_id)
                task = task.snapshot()
                task.spec = tenant.share(task.spec)
                self.remember_finished(tenant, task)
        if task is not None and task.run is not None and task.state >= State.COMPLETED:
            prune_at = task.run.prune_at
            if prune_at is not None and prune_at <= self.ledger.now:
                return None
        return task

    def is_new(self, tenant: Tenant, task_id: str) -> bool:
        """Tell whether an id that is not in memory cannot be in the store either; False where unsure."""
        return task_id > tenant.highest_stored and is_time_ordered(task_id)

    def note_id(self, tenant: Tenant, task_id: str) -> None:
        """See to it that after the next load a created task's id is not taken for new."""
        if (
            task_id > self._ahead_at(self.ledger.now)
            and is_time_ordered(task_id)
            and task_id > tenant.highest_ahead
        ):
            tenant.highest_ahead = last_id_like(task_id)
            self.put_record(RECORD, tenant.name, "", tenant.highest_ahead.encode())

    def _ahead_at(self, now: int) -> str:
        if self._ahead[0] != now:
            self._ahead = (now, last_id_of(now + AHEAD))
        return self._ahead[1]

    def may_be_pruned(self, task: Task) -> bool:
        """Tell whether a finished task that is in memory may be gone from the store, and off the counters."""
        run = task.run
        prune_at = None if run is None else run.prune_at
        return prune_at is not None and prune_at + PRUNE_MARGIN <= self.now

    def remember_finished(self, tenant: Tenant, task: Task) -> None:
        """Keep a finished task in memory for a while."""
        tenant.tasks[task.id] = task
        self._finished.append((self.ledger.position, task))

    def evict(self, keep: int) -> None:
        """Drop finished tasks from memory, oldest first, down to `keep`; never one that is not committed."""
        finished, rows, committed = self._finished, self.ledger.rows, self.ledger.position - 1
        for _ in range(len(finished) - keep):
            position, task = finished[0]
            if position >= committed:
                break
            finished.popleft()
            tenant = self.tenants[task.tenant]
            task_id = task.id
            if tenant.tasks.get(task_id) is task and task.state >= State.COMPLETED and task.seq not in rows:
                del tenant.tasks[task_id]
                if task_id > tenant.highest_stored and is_time_ordered(task_id):
                    tenant.highest_stored = task_id
        for key, position in list(self.gone.items()):
            if position < self.ledger.position - 1:
                del self.gone[key]

    def forget(self, tenant: Tenant, task: Task) -> None:
        """Delete a finished task; its id is free again."""
        tenant.queue(task.spec.queue).counts[task.state] -= 1
        del tenant.tasks[task.id]
        self.ledger.forget(task)
        self.gone[(tenant.name, task.id)] = self.ledger.position

    # -- moving ----------------------------------------------------------------------------------

    def move(self, tenant: Tenant, task: Task, state: State, reason: str | None = None) -> None:
        """Move a task to a state: checked, counted, told."""
        before = task.state
        if state not in LEGAL[before]:
            check_move(before, state)
        counts = tenant.queues[task.spec.queue].counts
        counts[before] -= 1
        counts[state] += 1
        task.state = state
        self.ledger.tell(task, reason)

    def stand_in_line(self, tenant: Tenant, task: Task) -> None:
        """Let a task whose state is queued or scheduled wait for its turn or its time."""
        if task.state is State.QUEUED:
            lane = tenant.lane(task.spec)
            lane.push(task)
            self.ready_lanes[lane] = tenant
        else:
            self.deadlines.add(task.run_at, Kind.RUN_AT, task, task.run_at)

    def withdraw(self, tenant: Tenant, task: Task, was: State) -> None:
        """Take a task out of its lane after it has ceased to be queued by another door than a claim."""
        if was is State.QUEUED:
            tenant.lane(task.spec).withdraw()

    def replace(self, tenant: Tenant, task: Task) -> Task:
        """Put a copy in a task's place, so that what still points at the old object finds it dead."""
        twin = task.snapshot()
        twin.spec = tenant.share(twin.spec)
        tenant.tasks[task.id] = twin
        if twin.expires_at is not None:
            self.deadlines.add(twin.expires_at, Kind.EXPIRY, twin, twin.expires_at)
        return twin

    def run_again(self, tenant: Tenant, task: Task, run_at: int, reason: str) -> None:
        """Queue a task whose lease has just ended, or schedule it where `run_at` is yet to come."""
        task.run_at = run_at
        later = run_at > self.now
        self.move(tenant, task, State.SCHEDULED if later else State.QUEUED, reason)
        self.stand_in_line(tenant, task)
        if task.expires_at is not None and task.attempt == 0:
            # Its deadline may have passed while it ran, in an attempt that is not counted now.
            self.deadlines.add(task.expires_at, Kind.EXPIRY, task, task.expires_at)

    def finish(self, tenant: Tenant, task: Task, state: State, reason: str | None = None) -> None:
        """End a task, and tell whoever waits for it."""
        run = task.run
        if run is None:
            run = task.run = Run()
        ledger = self.ledger
        now = ledger.now
        run.finished_at = now
        run.reason = reason
        run.prune_at = now + task.spec.retention
        was = task.state
        self.move(tenant, task, state, reason)
        if was is State.QUEUED:
            self.withdraw(tenant, task, was)
        self._finished.append((ledger.position, task))
        ledger.totals[STATE_WORDS[state]] += 1
        waits = tenant.waits.pop(task.id, None)
        if waits:
            reply = Found(task=task.snapshot(), position=self.ledger.position)
            for wait in waits.values():
                answer = msgspec.structs.replace(reply, created=True) if wait.created else reply
                self.deliveries.append((wait.ticket, answer))

    def end_lease(self, tenant: Tenant, task: Task, outcome: str, error: bytes | None = None) -> Lease:
        """Take the lease away and write down how it ended."""
        run = task.run
        assert run is not None
        assert run.lease is not None
        lease = run.lease
        run.lease = None
        attempt = Attempt(
            run.attempt,
            run.generation,
            lease.fence,
            lease.worker_id,
            lease.claimed_at,
            lease.started_at,
            self.ledger.now,
            outcome,
            error,
        )
        if len(run.attempts) < _KEPT:
            run.attempts = (*run.attempts, attempt)
        else:
            run.attempts = (*run.attempts[1:], attempt)
            run.dropped_attempts += 1
        self._let_go(tenant, task, lease)
        return lease

    def _let_go(self, tenant: Tenant, task: Task, lease: Lease) -> None:
        if lease.claim_id is not None:
            claimed = tenant.claims[lease.claim_id]
            del claimed[task.seq]
            if not claimed:
                del tenant.claims[lease.claim_id]
        worker = tenant.fleet.of(lease.worker_id, lease.incarnation)
        if worker is not None and worker.let_go(task) and worker.claimers:
            self.freed_workers[worker] = tenant

    def hold(self, tenant: Tenant, task: Task, lease: Lease) -> None:
        """Count a live lease in with its worker and its claim, and watch it."""
        if lease.claim_id is not None:
            tenant.claims.setdefault(lease.claim_id, {})[task.seq] = task
        worker = tenant.fleet.of(lease.worker_id, lease.incarnation)
        if worker is not None:
            worker.hold(task)
        self.deadlines.add_lease(task)

    def renew(self, task: Task) -> Lease:
        """Extend the live lease from now; in memory only, unless a load has renewed it unheard before."""
        run = task.run
        assert run is not None
        assert run.lease is not None
        lease = run.lease
        if lease.renewals:
            self.ledger.rows[task.seq] = task
        expires_at = max(lease.expires_at, self.now + lease.ttl)
        run.lease = msgspec.structs.replace(lease, expires_at=expires_at, renewals=0)
        self.deadlines.add_lease(task)
        return run.lease

    def extend(self, task: Task, duration: int) -> None:
        """Let the live lease run longer by a duration in which its worker could not report."""
        run = task.run
        assert run is not None
        assert run.lease is not None
        run.lease = msgspec.structs.replace(run.lease, expires_at=run.lease.expires_at + duration)
        self.deadlines.add_lease(task)

    def unpark(self, tenant: Tenant, claimer: Claimer) -> None:
        """Let a claimer wait no longer."""
        claimer.leave()
        tenant.claimers.pop(claimer.ticket, None)
        claim_id = claimer.claim.claim_id
        if claim_id is not None and tenant.parked_by_claim_id.get(claim_id) is claimer:
            del tenant.parked_by_claim_id[claim_id]

    # -- small rows ------------------------------------------------------------------------------

    @property
    def counters(self) -> Counters:
        """Return the counters as they stand."""
        return Counters(self.ledger.now, self.ledger.seq, self.ledger.fence)

    def set_switches(self, queue: Queue, data: bytes) -> None:
        """Read a queue's stored switches: a "p" for paused, a "c" for closed."""
        queue.paused = b"p" in data
        queue.closed = b"c" in data

    def set_drain(self, tenant: Tenant, worker_id: str, incarnation: str | None) -> None:
        """Remember which incarnation of a worker is to go ("" where it names none), or None for nobody."""
        if incarnation is None:
            tenant.fleet.draining.pop(worker_id, None)
            self.put_record("drain", tenant.name, worker_id, None)
        else:
            tenant.fleet.draining[worker_id] = incarnation
            self.put_record("drain", tenant.name, worker_id, incarnation.encode())

    def put_record(self, kind: str, tenant: str, key: str, data: bytes | None) -> None:
        """Write or delete a small row that is not a task."""
        if data is None:
            self.records.pop((kind, tenant, key), None)
        else:
            self.records[(kind, tenant, key)] = data
        self.ledger.records[(kind, tenant, key)] = Record(kind, tenant, key, data)


def _matters(kind: Kind, subject: Task | Claimer | Wait, mark: int) -> bool:
    """Tell whether the request still waits, or the attempt still runs, whose deadline it is."""
    if isinstance(subject, Task):
        return subject.lease is not None and subject.lease.fence == mark
    if isinstance(subject, Claimer):
        return subject.parked
    return subject.ticket in subject.tenant.waits.get(subject.task_id, ())
