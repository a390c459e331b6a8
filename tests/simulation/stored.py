"""What the store has seen, commit by commit: every row's life must follow the design.

Numbers in brackets are those of the invariants in the design.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections.abc import Callable

from lineshaft.core.batch import Batch, Change
from lineshaft.core.loading import MAX_RENEWALS
from lineshaft.core.task import MAX_LOST_LEASES, Run, State, Task
from lineshaft.store.base import Ownership
from tests.simulation.hearing import Hearing

S = State
LEGAL: dict[State | None, set[State | None]] = {
    None: {S.SCHEDULED, S.QUEUED},
    S.SCHEDULED: {S.QUEUED, S.SCHEDULED, S.CANCELLED},
    S.QUEUED: {S.CLAIMED, S.SCHEDULED, S.QUEUED, S.CANCELLED},
    S.CLAIMED: {S.RUNNING, S.QUEUED, S.SCHEDULED, S.CANCELLED, S.FAILED},
    S.RUNNING: {S.COMPLETED, S.FAILED, S.CANCELLED, S.QUEUED, S.SCHEDULED},
    S.COMPLETED: {S.QUEUED, None},
    S.FAILED: {S.QUEUED, None},
    S.CANCELLED: {S.QUEUED, None},
}


class Life:
    """All that is known of one row, from its enqueue to its deletion."""

    def __init__(self, tenant: str, id: str) -> None:
        self.tenant, self.id = tenant, id
        self.state: State | None = None
        self.positions: list[int] = []
        self.versions: list[Task] = []
        self.changes: dict[int, list[Change]] = {}
        self.fence = 0
        self.deleted_at: int | None = None
        self.ended_at = 0
        self.asked_to_end = False
        """A cancel was requested in the present generation."""

    @property
    def is_there(self) -> bool:
        """Whether there is a row of it."""
        return bool(self.versions) and self.deleted_at is None

    def forget_after(self, end: int) -> bool:
        """Forget what came after a position; return whether anything is left."""
        kept = bisect_right(self.positions, end)
        del self.positions[kept:], self.versions[kept:]
        self.changes = {position: moves for position, moves in self.changes.items() if position <= end}
        if not self.changes:
            return False
        last = self.changes[max(self.changes)][-1]
        self.state = last.state
        if last.state is not None:
            self.deleted_at = None
        run = self.versions[-1].run if self.versions else None
        # That none of those lost is given again is seen by whom they were given to.
        self.fence = _last_fence(run)
        ended = self.state is None or self.state.terminal
        self.asked_to_end = run is not None and run.cancel is not None and not ended
        ends = [c.at for moves in self.changes.values() for c in moves if c.state and c.state.terminal]
        self.ended_at = max(ends, default=0)
        return True

    def version(self, position: int) -> Task | None:
        """Return the row as it was durable at a position."""
        index = bisect_right(self.positions, position)
        return self.versions[index - 1] if index else None


class Stored:
    """Follows the log and remembers every version of every row."""

    def __init__(self, note: Callable[[str], None]) -> None:
        self._note = note
        self.violations: list[str] = []
        self.lives: dict[int, Life] = {}
        self.present: dict[tuple[str, str], int] = {}
        """Which row an id names."""
        self.open: dict[int, Task] = {}
        """Rows that have not ended."""
        self.holding: dict[int, Task] = {}
        """Rows under a lease that take resources of its worker."""
        self.position = 0
        self.now = 0
        self.epoch = 0
        self.last_epoch = 0
        """Of the last commit."""
        self.log: dict[str, list[tuple[int, Change]]] = {}
        """Tenant → all changes, with their positions."""
        self.resources: dict[str, dict[str, float]] = {}
        """What each worker declares."""
        self.sent: set[tuple[str, str, str]] = set()
        """(tenant, id, verb) of everything that clients have ever asked for."""
        self.retention: dict[tuple[str, str], int] = {}
        """The shortest retention that was asked for under an id."""
        self.contacts: dict[int, float] = {}
        """Fence → when its holder sent the last request that was answered."""
        self.lost: list[tuple[int, int]] = []
        """Positions that a failover has lost: those above the first, up to the second."""
        self.pruned_before = 0
        self.hearing = Hearing()
        self.lost_leases = 0

    def violated(self, what: str) -> None:
        """Remember that a promise was broken."""
        self._note(what)
        self.violations.append(what)

    def check(self, holds: bool, what: str) -> None:
        """Remember that a promise was broken unless it holds."""
        if not holds:
            self.violated(what)

    def acquired(self, ownership: Ownership) -> None:
        """Somebody has taken the shard over."""
        self.check(ownership.epoch > self.epoch, f"epoch {ownership.epoch} after {self.epoch}")
        self.epoch = max(self.epoch, ownership.epoch)

    def fenced(self, ownership: Ownership, batch: Batch, why: str) -> None:
        """A commit was refused: its owner must have lost the shard, or it came very late."""
        late = batch.position < self.position
        usurped = ownership.epoch < self.epoch or ownership.epoch != self.last_epoch
        self.check(late or usurped, f"[20] the owner was fenced at {batch.position}: {why}")

    def released(self) -> None:
        """The owner has given the shard back; what it sent before may come too late now."""
        self.last_epoch = 0

    def is_lost(self, position: int) -> bool:
        """Tell whether a position was lost by a failover."""
        return any(end < position <= last for end, last in self.lost)

    def lost_tail(self, end: int, last: int, *, resumes: int) -> None:
        """The store has lost what came after a position; forget it as well."""
        self.lost.append((end, last))
        self.position, self.last_epoch = resumes, 0
        for seq, life in list(self.lives.items()):
            if not life.forget_after(end):
                del self.lives[seq]
        self.present = {
            (life.tenant, life.id): seq for seq, life in self.lives.items() if life.deleted_at is None
        }
        latest = {seq: life.versions[-1] for seq, life in self.lives.items() if life.is_there}
        self.open = {seq: task for seq, task in latest.items() if not task.state.terminal}
        self.holding = {seq: task for seq, task in self.open.items() if _takes_resources(task)}
        for tenant, moves in self.log.items():
            self.log[tenant] = [(position, change) for position, change in moves if position <= end]

    def pruning(self, before: int) -> None:
        """The store is asked to forget what ended long ago."""
        self.pruned_before = max(self.pruned_before, before)

    def committed(self, ownership: Ownership, batch: Batch) -> None:
        """Judge a commit by the log before it."""
        self.check(ownership.epoch >= self.epoch, f"[20] epoch {ownership.epoch} wrote after {self.epoch}")
        self.check(
            batch.position == self.position + 1, f"[16] position {batch.position} after {self.position}"
        )
        self.check(batch.counters.now >= self.now, "[12] the shard's time ran backwards")
        self.last_epoch = ownership.epoch
        self.position, self.now = batch.position, batch.counters.now
        for change in batch.changes:
            self._moved(batch.position, change)
            self.log.setdefault(change.tenant, []).append((batch.position, change))
        for task in batch.tasks:
            self._written(batch.position, task)
        for gone in batch.forgotten:
            life = self.lives.get(gone.seq)
            if life is not None and life.state is not None:
                self.violated(f"{gone.id} was deleted while {life.state.word}")
        self._workers_hold_what_they_can()

    def _moved(self, position: int, change: Change) -> None:
        life = self.lives.get(change.seq)
        key = (change.tenant, change.task_id)
        if life is None:
            life = self.lives[change.seq] = Life(*key)
            other = self.present.get(key)
            forgotten = other is None or self._is_past_retention(self.lives[other], change.at)
            self.check(forgotten, f"[3] {key} names two rows")
            self.check((*key, "enqueue") in self.sent, f"[2] nobody enqueued {key}")
            self.present[key] = change.seq
        before, after = life.state, change.state
        name = f"{change.task_id}@{position}: {before and before.word} → {after and after.word}"
        self.check(after in LEGAL[before] and (before, after) != (None, None), f"[4] {name}")
        if before is not None and before.terminal:
            verb = "delete" if after is None else "retry"
            asked = (*key, verb) in self.sent
            expired = after is None and self._is_past_retention(life, change.at)
            self.check(asked or expired, f"[7] {name} though nobody asked to {verb} it")
            life.asked_to_end = False
        if life.asked_to_end:
            self.check(after in (S.COMPLETED, S.CANCELLED, S.RUNNING, None), f"[12] {name} after cancel")
        life.state = after
        if after is not None and after.terminal:
            life.ended_at = change.at
        life.changes.setdefault(position, []).append(change)
        if after is None:
            # It may have ended in this very batch, which then has no row of it.
            self.open.pop(change.seq, None)
            self.holding.pop(change.seq, None)
            life.deleted_at = position
            if self.present.get(key) == change.seq:
                del self.present[key]

    def _is_past_retention(self, life: Life, at: int) -> bool:
        ended = life.state is not None and life.state.terminal
        return ended and at >= life.ended_at + self.retention[life.tenant, life.id]

    def _written(self, position: int, task: Task) -> None:
        life, run, name = self.lives[task.seq], task.run, f"{task.id}@{position}"
        self.check(life.state is task.state, f"[4] {name} is {task.state.word}, its log says {life.state}")
        self.check((life.tenant, life.id) == (task.tenant, task.id), f"[19] {name} changed its name")
        if run is not None:
            self._run_is_sound(task, life, name)
            self._lease_ran_out(task, life, name)
            life.asked_to_end = run.cancel is not None and not task.state.terminal
        life.positions.append(position)
        life.versions.append(task)
        if task.state.terminal:
            self.open.pop(task.seq, None)
        else:
            self.open[task.seq] = task
        if _takes_resources(task):
            self.holding[task.seq] = task
        else:
            self.holding.pop(task.seq, None)

    def _run_is_sound(self, task: Task, life: Life, name: str) -> None:
        run = task.run
        assert run is not None
        self.check(run.attempt <= task.spec.max_retries + 1, f"[10] {name}: attempt {run.attempt}")
        self.check(run.lost_leases <= MAX_LOST_LEASES, f"[11] {name}: {run.lost_leases} leases lost")
        self.check((run.lease is not None) == (task.state in (S.CLAIMED, S.RUNNING)), f"[5] {name}: lease")
        fences = _fences(run)
        self.check(fences == sorted(set(fences)), f"[6] {name}: fences {fences}")
        self.check(
            not fences or fences[-1] >= life.fence, f"[6] {name}: fence {fences[-1:]} after {life.fence}"
        )
        life.fence = fences[-1] if fences else life.fence
        lost = sum(a.outcome == "lease_lost" and a.generation == run.generation for a in run.attempts)
        self.check(
            run.dropped_attempts > 0 or lost == run.lost_leases, f"[10] {name}: {lost} != {run.lost_leases}"
        )
        if run.lease is not None:
            self.check(run.lease.claimed_at >= task.run_at, f"[12] {name}: claimed before its run_at")
        number, generation = 0, 1
        for attempt in run.attempts if not run.dropped_attempts else ():
            number = 0 if attempt.generation != generation else number
            generation = attempt.generation
            began = attempt.started_at is not None
            self.check(
                attempt.number == number + began, f"[16] {name}: attempt {attempt.number} after {number}"
            )
            number = number if attempt.outcome in ("released", "snoozed") else number + began

    def _lease_ran_out(self, task: Task, life: Life, name: str) -> None:
        """A lease is lost only after its holder was heard to be silent for all of it, whatever clocks did;
        neither a stall of the store, nor a coordinator that stood still or was away, may cost it.
        """
        lease = life.versions[-1].lease if life.versions else None
        if lease is None or task.run is None:
            return
        if not any(a.fence == lease.fence and a.outcome == "lease_lost" for a in task.run.attempts):
            return
        self.lost_leases += 1
        contact = self.contacts.get(lease.fence)
        if contact is not None:
            now = asyncio.get_running_loop().time()
            silent = self.hearing.silence(contact, now, most_loads=MAX_RENEWALS)
            self.hearing.spared += silent < now - contact - 0.01
            enough = silent >= lease.ttl / 1000 - 0.01
            self.check(enough, f"[5] {name}: lease {lease.fence} of {lease.ttl} ms lost after {silent:.3f} s")

    def _workers_hold_what_they_can(self) -> None:
        used: dict[tuple[str, str | None], dict[str, float]] = {}
        for task in self.holding.values():
            lease = task.lease
            assert lease is not None
            assert lease.worker_id is not None
            worker = used.setdefault((lease.worker_id, lease.incarnation), {})
            declared = self.resources[lease.worker_id]
            for name, amount in task.spec.affinity.resources:
                worker[name] = worker.get(name, 0) + amount
                enough = worker[name] <= declared.get(name, 0)
                self.check(enough, f"[13] {lease.worker_id} holds too much {name}")


def _fences(run: Run) -> list[int]:
    return [attempt.fence for attempt in run.attempts] + ([run.lease.fence] if run.lease else [])


def _last_fence(run: Run | None) -> int:
    return max(_fences(run), default=0) if run is not None else 0


def _takes_resources(task: Task) -> bool:
    return task.lease is not None and task.lease.worker_id is not None and bool(task.spec.affinity.resources)
