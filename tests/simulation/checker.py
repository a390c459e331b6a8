"""The judge of a run: what was committed and what was answered must keep every promise of the design.

It believes nobody. It follows the log commit by commit, remembers every version of every row, and compares
each answer that leaves a coordinator with what was durable at that moment. Numbers in brackets are those of
the invariants in the design.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections.abc import Callable, Iterator
from typing import Any

from lineshaft.core import commands as c
from lineshaft.core.batch import Batch, Blob, Change
from lineshaft.core.replies import (
    Claimed,
    Enqueued,
    EnqueuedTask,
    Explanation,
    Found,
    OpReply,
    QueueState,
    Reported,
)
from lineshaft.core.task import MAX_LOST_LEASES, State, Task
from lineshaft.errors import Invalid, LineshaftError
from lineshaft.store.base import Ownership

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
ENDS = {
    c.Complete: "completed",
    c.Fail: "failed",
    c.Release: "released",
    c.Snooze: "snoozed",
    c.CancelHeld: "cancelled",
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

    def version(self, position: int) -> Task | None:
        """Return the row as it was durable at a position."""
        index = bisect_right(self.positions, position)
        return self.versions[index - 1] if index else None


class Checker:
    def __init__(self, note: Callable[[str], None]) -> None:
        self._note = note
        self.violations: list[str] = []
        self.lives: dict[int, Life] = {}
        self.present: dict[tuple[str, str], int] = {}
        """Which row an id names."""
        self.position = 0
        self.now = 0
        self.epoch = 0
        self.last_epoch = 0
        """Of the last commit."""
        self.shown = 0
        """The highest position that anybody was shown."""
        self.resources: dict[str, dict[str, float]] = {}
        """What each worker declares."""
        self.sent: set[tuple[str, str, str]] = set()
        """(tenant, id, verb) of everything that clients have ever asked for."""
        self.payloads: dict[tuple[str, str], set[bytes]] = {}
        self.retention: dict[tuple[str, str], int] = {}
        """The shortest retention that was asked for under an id."""
        self.acknowledged: set[int] = set()
        """Rows that somebody was told of."""
        self.created: dict[int, bytes] = {}
        """Rows whose creator was told so → the payload it sent."""
        self.outcomes: dict[tuple[int, int], c.Op] = {}
        """(row, fence) → the outcome that was acknowledged."""
        self.holders: dict[int, tuple[str | None, str | None, str | None]] = {}
        """Fence → to whom it was given."""
        self.contacts: dict[int, float] = {}
        """Fence → when its holder sent the last request that was answered."""
        self.log: dict[str, list[tuple[int, Change]]] = {}
        """Tenant → all changes, with their positions."""
        self.pauses: list[tuple[str, str, int, int]] = []
        """(tenant, queue, from, to): positions between which the queue was paused for certain."""
        self.pruned_before = 0

    def violated(self, what: str) -> None:
        """Remember that a promise was broken."""
        self._note(f"VIOLATED: {what}")
        self.violations.append(what)

    def _check(self, holds: bool, what: str) -> None:
        if not holds:
            self.violated(what)

    # What the store sees.

    def acquired(self, ownership: Ownership) -> None:
        """Somebody has taken the shard over."""
        self._check(ownership.epoch > self.epoch, f"epoch {ownership.epoch} after {self.epoch}")
        self.epoch = max(self.epoch, ownership.epoch)

    def fenced(self, ownership: Ownership, batch: Batch, why: str) -> None:
        """A commit was refused: its owner must have lost the shard, or it came very late."""
        late = batch.position < self.position
        usurped = ownership.epoch < self.epoch or ownership.epoch != self.last_epoch
        self._check(late or usurped, f"[20] the owner was fenced at {batch.position}: {why}")

    def released(self) -> None:
        """The owner has given the shard back; what it sent before may come too late now."""
        self.last_epoch = 0

    def pruning(self, before: int) -> None:
        """The store is asked to forget what ended long ago."""
        self.pruned_before = max(self.pruned_before, before)

    def committed(self, ownership: Ownership, batch: Batch) -> None:
        """Judge a commit by the log before it."""
        self._check(ownership.epoch >= self.epoch, f"[20] epoch {ownership.epoch} wrote after {self.epoch}")
        self._check(
            batch.position == self.position + 1, f"[16] position {batch.position} after {self.position}"
        )
        self._check(batch.counters.now >= self.now, "the shard's time ran backwards")
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
        self._workers_hold_what_they_can(batch)

    def _moved(self, position: int, change: Change) -> None:
        life = self.lives.get(change.seq)
        key = (change.tenant, change.task_id)
        if life is None:
            life = self.lives[change.seq] = Life(*key)
            other = self.present.get(key)
            forgotten = other is None or self._is_past_retention(self.lives[other], change.at)
            self._check(forgotten, f"[3] {key} names two rows")
            self._check((*key, "enqueue") in self.sent, f"[2] nobody enqueued {key}")
            self.present[key] = change.seq
        before, after = life.state, change.state
        name = f"{change.task_id}@{position}: {before and before.word} → {after and after.word}"
        self._check(after in LEGAL[before] and (before, after) != (None, None), f"[4] {name}")
        if before is not None and before.terminal:
            verb = "delete" if after is None else "retry"
            asked = (*key, verb) in self.sent
            expired = after is None and self._is_past_retention(life, change.at)
            self._check(asked or expired, f"[7] {name} though nobody asked to {verb} it")
            life.asked_to_end = False
        if life.asked_to_end:
            self._check(after in (S.COMPLETED, S.CANCELLED, S.RUNNING, None), f"[12] {name} after cancel")
        life.state = after
        if after is not None and after.terminal:
            life.ended_at = change.at
        life.changes.setdefault(position, []).append(change)
        if after is None:
            life.deleted_at = position
            if self.present.get(key) == change.seq:
                del self.present[key]

    def _is_past_retention(self, life: Life, at: int) -> bool:
        ended = life.state is not None and life.state.terminal
        return ended and at >= life.ended_at + self.retention[life.tenant, life.id]

    def _written(self, position: int, task: Task) -> None:
        life, run, name = self.lives[task.seq], task.run, f"{task.id}@{position}"
        self._check(life.state is task.state, f"[4] {name} is {task.state.word}, its log says {life.state}")
        self._check((life.tenant, life.id) == (task.tenant, task.id), f"[19] {name} changed its name")
        if run is not None:
            self._run_is_sound(task, life, name)
            self._lease_ran_out(task, life, name)
            life.asked_to_end = run.cancel is not None and not task.state.terminal
        life.positions.append(position)
        life.versions.append(task)

    def _run_is_sound(self, task: Task, life: Life, name: str) -> None:
        run = task.run
        assert run is not None
        self._check(run.attempt <= task.spec.max_retries + 1, f"[10] {name}: attempt {run.attempt}")
        self._check(run.lost_leases <= MAX_LOST_LEASES, f"[11] {name}: {run.lost_leases} leases lost")
        self._check((run.lease is not None) == (task.state in (S.CLAIMED, S.RUNNING)), f"[5] {name}: lease")
        fences = [attempt.fence for attempt in run.attempts] + ([run.lease.fence] if run.lease else [])
        self._check(fences == sorted(set(fences)), f"[6] {name}: fences {fences}")
        self._check(
            not fences or fences[-1] >= life.fence, f"[6] {name}: fence {fences[-1:]} after {life.fence}"
        )
        life.fence = fences[-1] if fences else life.fence
        lost = sum(a.outcome == "lease_lost" and a.generation == run.generation for a in run.attempts)
        self._check(
            run.dropped_attempts > 0 or lost == run.lost_leases, f"[10] {name}: {lost} != {run.lost_leases}"
        )
        if run.lease is not None:
            self._check(run.lease.claimed_at >= task.run_at, f"[12] {name}: claimed before its run_at")
        number, generation = 0, 1
        for attempt in run.attempts if not run.dropped_attempts else ():
            number = 0 if attempt.generation != generation else number
            generation = attempt.generation
            began = attempt.started_at is not None
            self._check(
                attempt.number == number + began, f"[16] {name}: attempt {attempt.number} after {number}"
            )
            number = number if attempt.outcome in ("released", "snoozed") else number + began

    def _lease_ran_out(self, task: Task, life: Life, name: str) -> None:
        """A lease is lost only after its holder was out of touch for all of it, whatever the clocks did."""
        lease = life.versions[-1].lease if life.versions else None
        if lease is None or task.run is None:
            return
        lost = any(a.fence == lease.fence and a.outcome == "lease_lost" for a in task.run.attempts)
        contact = self.contacts.get(lease.fence)
        if lost and contact is not None:
            silent = asyncio.get_running_loop().time() - contact
            enough = silent >= lease.ttl / 1000 - 0.01
            self._check(enough, f"{name}: lease {lease.fence} of {lease.ttl} ms lost after {silent:.3f} s")

    def _workers_hold_what_they_can(self, batch: Batch) -> None:
        used: dict[tuple[str, str | None], dict[str, float]] = {}
        for key, seq in self.present.items():
            task = self.lives[seq].versions[-1] if self.lives[seq].versions else None
            if (
                task is None
                or task.lease is None
                or task.lease.worker_id is None
                or not task.spec.affinity.resources
            ):
                continue
            worker = used.setdefault((key[0] + task.lease.worker_id, task.lease.incarnation), {})
            declared = self.resources[task.lease.worker_id]
            for name, amount in task.spec.affinity.resources:
                worker[name] = worker.get(name, 0) + amount
                self._check(
                    worker[name] <= declared.get(name, 0), f"{task.lease.worker_id} holds too much {name}"
                )

    # What clients and workers see.

    def asked(self, command: c.Command) -> None:
        """A request is on its way."""
        tenant = command.tenant
        match command:
            case c.Enqueue(tasks=tasks):
                for task in tasks:
                    self.sent.add((tenant, task.id, "enqueue"))
                    self.payloads.setdefault((tenant, task.id), set()).add(task.payload)
                    shortest = self.retention.get((tenant, task.id), task.spec.retention)
                    self.retention[tenant, task.id] = min(shortest, task.spec.retention)
            case c.Sweep(verb=verb, keys=keys):
                self.sent.update((tenant, id, verb) for id, _ in keys)
            case c.Retry(id=id) | c.Delete(id=id) | c.Patch(id=id) | c.Promote(id=id) | c.Cancel(id=id):
                self.sent.add((tenant, id, type(command).__name__.lower()))
                if isinstance(command, c.Patch) and isinstance(command.payload, bytes):
                    self.payloads.setdefault((tenant, id), set()).add(command.payload)

    def answered(self, command: c.Command, reply: Any, *, shown_before: int, sent: float | None) -> None:
        """Judge an answer as it leaves.

        `shown_before` is the position that had been shown to anybody when its request arrived; `sent` is when
        that was sent (seconds of the loop), None where its sender will not see the answer.
        """
        for position in _positions(reply):
            self._check(
                position <= self.position, f"[25] {type(reply).__name__} shows {position} of {self.position}"
            )
            self.shown = max(self.shown, min(position, self.position))
            if not isinstance(reply, OpReply):
                self._check(
                    position >= shown_before, f"[9] {type(reply).__name__}: {position} after {shown_before}"
                )
        for task, position in _tasks(reply):
            self._check(
                task.tenant == command.tenant, f"[19] {task.id} of {task.tenant} shown to {command.tenant}"
            )
            # A bulk of which the store rejects a part is stored in parts, each answered as it was then.
            self._shows_what_was(task, position, shown_before if _was_split(reply) else position)
            self.acknowledged.add(task.seq)
        match command, reply:
            case c.Enqueue(), Enqueued(items=items):
                self._enqueued(command, items)
            case c.Claim(), Claimed(tasks=tasks):
                self._handed_out(command, tasks, sent)
            case c.Report(), Reported(items=items, tasks=tasks):
                for op, item in zip(command.items, items, strict=True):
                    self._reported(command.tenant, op, item, sent)
                if command.claim is not None:
                    self._handed_out(command.claim, tasks, sent)

    def _shows_what_was(self, task: Task, position: int, floor: int) -> None:
        life = self.lives.get(task.seq)
        if life is None:
            self.violated(f"[25] {task.id} was shown and never stored")
            return
        seen = _visible(task)
        for at in range(position, floor - 1, -1):
            versions = [
                version for version in (life.version(at - 1), life.version(at)) if version is not None
            ]
            moves = [(change.state, change.attempt) for change in life.changes.get(at, ())]
            if any(_visible(version) == seen for version in versions) or (task.state, task.attempt) in moves:
                return
        self.violated(f"[25] {task.id} was shown as {seen} at {position}")

    def _enqueued(self, command: c.Enqueue, items: list[EnqueuedTask | LineshaftError]) -> None:
        for new, item in zip(command.tasks, items, strict=True):
            if isinstance(item, LineshaftError) or not item.created:
                continue
            self._check(item.task.id == new.id, f"{new.id} was answered with {item.task.id}")
            self._check(item.task.seq not in self.created, f"[3] {new.id} was created twice")
            self.created[item.task.seq] = new.payload

    def _handed_out(self, claim: c.Claim, tasks: list[Task], sent: float | None) -> None:
        worker = claim.worker
        to = (worker.id, worker.incarnation, claim.claim_id) if worker else (None, None, claim.claim_id)
        for task in tasks:
            assert task.lease is not None
            self._in_touch(task.lease.fence, sent)
            given = self.holders.setdefault(task.lease.fence, to)
            self._check(
                given == to, f"[5] lease {task.lease.fence} of {task.id} was given to {given} and {to}"
            )
            if worker is not None:
                lacks = set(task.spec.affinity.capability) - set(worker.capabilities)
                self._check(not lacks, f"{task.id} was given to {worker.id}, which lacks {lacks}")
            self._check(
                claim.queues is None or task.spec.queue in claim.queues, f"{task.id}: queue not asked for"
            )

    def _reported(self, tenant: str, op: c.Op, item: OpReply | LineshaftError, sent: float | None) -> None:
        if isinstance(item, LineshaftError):
            return
        position = item.position
        fence, seq = (int(part, 16) for part in op.token.split("-"))
        life = self.lives[seq]
        self._check(life.tenant == tenant, f"[19] {tenant} reported of a task of {life.tenant}")
        if type(op) in ENDS:
            known = self.outcomes.setdefault((seq, fence), op)
            self._check(known == op, f"[7] {op.task_id}: two outcomes for lease {fence}: {known} and {op}")
            self._check(self._ended(life, position, fence), f"[25] {op} was acknowledged and is not stored")
        else:
            self._in_touch(fence, sent)
            held = [life.version(at) for at in (position - 1, position)]
            alive = any(v is not None and v.lease is not None and v.lease.fence == fence for v in held)
            self._check(alive or self._ended(life, position, fence), f"[5] {op} accepted at {position}")

    def _in_touch(self, fence: int, sent: float | None) -> None:
        if sent is not None:
            self.contacts[fence] = max(sent, self.contacts.get(fence, 0.0))

    def read_result(self, task: Task, result: bytes) -> None:
        """Somebody was shown a completed task and then read its result."""
        run = task.run
        op = None if run is None or run.settled is None else self.outcomes.get((task.seq, run.settled.fence))
        latest = self.lives[task.seq].versions[-1]
        if isinstance(op, c.Complete) and latest.state is S.COMPLETED and latest.run == run:
            self._check(
                result == op.result, f"[9] the result of {task.id} reads {result!r}, not {op.result!r}"
            )

    def _ended(self, life: Life, position: int, fence: int) -> bool:
        version = life.version(position)
        run = None if version is None else version.run
        return run is not None and (run.dropped_attempts > 0 or any(a.fence == fence for a in run.attempts))

    # What is left in the end.

    def ended(self, rows: dict[int, Task], blob: Callable[[Blob, int], bytes]) -> None:
        """Judge the truth after everything."""
        for seq in sorted(self.acknowledged):
            self._is_not_lost(seq, rows)
        for seq, payload in sorted(self.created.items()):
            life = self.lives[seq]
            if seq in rows and (life.tenant, life.id, "patch") not in self.sent:
                self._check(blob(Blob.PAYLOAD, seq) == payload, f"[9] the payload of {life.id} changed")
        for seq, task in sorted(rows.items()):
            known = self.payloads[task.tenant, task.id]
            self._check(blob(Blob.PAYLOAD, seq) in known, f"[19] {task.id} has a payload that nobody sent")
            self._check(self.present.get((task.tenant, task.id)) == seq, f"[3] {task.id} has two rows")
        for (seq, fence), op in sorted(self.outcomes.items(), key=lambda item: item[0]):
            self._outcome_stands(rows, seq, fence, op, blob)
        for tenant, queue, after, until in self.pauses:
            self._nothing_was_claimed(tenant, queue, after, until)

    def _is_not_lost(self, seq: int, rows: dict[int, Task]) -> None:
        life = self.lives[seq]
        if seq in rows or (life.tenant, life.id, "delete") in self.sent:
            return
        run = life.versions[-1].run
        pruned = (
            run is not None and run.prune_at is not None and run.prune_at <= max(self.pruned_before, self.now)
        )
        self._check(pruned, f"[1] {life.id} was acknowledged and is lost")

    def _outcome_stands(
        self, rows: dict[int, Task], seq: int, fence: int, op: c.Op, blob: Callable[[Blob, int], bytes]
    ) -> None:
        task = rows.get(seq)
        if task is None:
            return
        run = task.run
        assert run is not None
        told = [a.outcome for a in run.attempts if a.fence == fence]
        if told:
            self._check(told == [ENDS[type(op)]], f"[7] {op} was acknowledged, the row says {told}")
        else:
            self._check(run.dropped_attempts > 0, f"[1] {op} was acknowledged and is lost")
        last = run.settled is not None and run.settled.fence == fence
        if isinstance(op, c.Complete) and last and task.state is S.COMPLETED:
            stored = blob(Blob.RESULT, seq)
            expired = run.result_expires_at is not None and run.result_expires_at <= self.pruned_before
            self._check(stored == op.result or expired, f"[9] the result of {task.id} reads {stored!r}")

    def _nothing_was_claimed(self, tenant: str, queue: str, after: int, until: int) -> None:
        for life in self.lives.values():
            if life.tenant != tenant:
                continue
            for position in range(after + 1, until + 1):
                for change in life.changes.get(position, ()):
                    claimed = change.state is S.CLAIMED and change.queue == queue
                    self._check(
                        not claimed, f"[12] {life.id} was claimed at {position} while {queue} was paused"
                    )


def _visible(task: Task) -> tuple[object, ...]:
    run = task.run
    if run is None:
        return (task.state, 0, 1, 0, None, task.run_at, task.spec.queue)
    fence = run.lease.fence if run.lease else None
    return (task.state, run.attempt, run.generation, run.lost_leases, fence, task.run_at, task.spec.queue)


def _was_split(reply: Any) -> bool:
    return isinstance(reply, Enqueued) and any(isinstance(item, Invalid) for item in reply.items)


def _tasks(reply: Any) -> Iterator[tuple[Task, int]]:
    match reply:
        case Found(task=task, position=position) | Explanation(task=task, position=position):
            yield task, position
        case Claimed(tasks=tasks, position=position) | Reported(tasks=tasks, position=position):
            for task in tasks:
                yield task, position
        case Enqueued(items=items, position=position):
            for item in items:
                if isinstance(item, EnqueuedTask):
                    yield item.task, position


def _positions(reply: Any) -> list[int]:
    if isinstance(reply, list):
        return [item.position for item in reply if isinstance(item, QueueState)]
    position = getattr(reply, "position", None)
    return [] if position is None else [position]
