"""The judge of a run: what was committed and what was answered must keep every promise of the design.

It believes nobody. It follows the log (`stored.py`), and compares each answer that leaves a coordinator with
what was durable at that moment. Numbers in brackets are those of the invariants in the design.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from lineshaft.core import commands as c
from lineshaft.core.batch import Blob
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
from lineshaft.core.task import State, Task
from lineshaft.errors import Invalid, LineshaftError
from tests.simulation.stored import Life, Stored

S = State
ENDS = {
    c.Complete: "completed",
    c.Fail: "failed",
    c.Release: "released",
    c.Snooze: "snoozed",
    c.CancelHeld: "cancelled",
}


class Checker(Stored):
    """Judges what clients and workers are shown, and what is left in the end."""

    def __init__(self, note: Callable[[str], None]) -> None:
        super().__init__(note)
        self.shown = 0
        """The highest position that anybody was shown."""
        self.payloads: dict[tuple[str, str], set[bytes]] = {}
        self.acknowledged: set[int] = set()
        """Rows that somebody was told of."""
        self.created: dict[int, bytes] = {}
        """Rows whose creator was told so → the payload it sent."""
        self.outcomes: dict[tuple[int, int], c.Op] = {}
        """(row, fence) → the outcome that was acknowledged."""
        self.outcome_at: dict[tuple[int, int], int] = {}
        """(row, fence) → the position that acknowledged it first."""
        self.holders: dict[int, tuple[str | None, str | None, str | None]] = {}
        """Fence → to whom it was given."""
        self.pauses: list[tuple[str, str, int, int]] = []
        """(tenant, queue, from, to): positions between which the queue was paused for certain."""

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
        told = [*_positions(reply), *(position for _, position in _tasks(reply))]
        if any(self.is_lost(position) for position in told):
            return  # it was on its way when what it says was lost
        for position in _positions(reply):
            self.check(
                position <= self.position, f"[25] {type(reply).__name__} shows {position} of {self.position}"
            )
            self.shown = max(self.shown, min(position, self.position))
            if not isinstance(reply, OpReply):
                self.check(
                    position >= shown_before, f"[9] {type(reply).__name__}: {position} after {shown_before}"
                )
        for task, position in _tasks(reply):
            self.check(
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
            self.check(item.task.id == new.id, f"{new.id} was answered with {item.task.id}")
            self.check(item.task.seq not in self.created, f"[3] {new.id} was created twice")
            self.created[item.task.seq] = new.payload

    def _handed_out(self, claim: c.Claim, tasks: list[Task], sent: float | None) -> None:
        worker = claim.worker
        to = (worker.id, worker.incarnation, claim.claim_id) if worker else (None, None, claim.claim_id)
        for task in tasks:
            assert task.lease is not None
            self._in_touch(task.lease.fence, sent)
            given = self.holders.setdefault(task.lease.fence, to)
            self.check(
                given == to, f"[5] lease {task.lease.fence} of {task.id} was given to {given} and {to}"
            )
            if worker is not None:
                lacks = set(task.spec.affinity.capability) - set(worker.capabilities)
                self.check(not lacks, f"{task.id} was given to {worker.id}, which lacks {lacks}")
            self.check(
                claim.queues is None or task.spec.queue in claim.queues, f"{task.id}: queue not asked for"
            )

    def _reported(self, tenant: str, op: c.Op, item: OpReply | LineshaftError, sent: float | None) -> None:
        if isinstance(item, LineshaftError):
            return
        position = item.position
        if self.is_lost(position):
            return
        fence, seq = (int(part, 16) for part in op.token.split("-"))
        life = self.lives[seq]
        self.check(life.tenant == tenant, f"[19] {tenant} reported of a task of {life.tenant}")
        if type(op) in ENDS:
            self.outcome_at.setdefault((seq, fence), position)
            known = self.outcomes.setdefault((seq, fence), op)
            self.check(known == op, f"[7] {op.task_id}: two outcomes for lease {fence}: {known} and {op}")
            self.check(self._ended(life, position, fence), f"[25] {op} was acknowledged and is not stored")
        else:
            self._in_touch(fence, sent)
            held = [life.version(at) for at in (position - 1, position)]
            alive = any(v is not None and v.lease is not None and v.lease.fence == fence for v in held)
            self.check(alive or self._ended(life, position, fence), f"[5] {op} accepted at {position}")

    def _in_touch(self, fence: int, sent: float | None) -> None:
        if sent is not None:
            self.contacts[fence] = max(sent, self.contacts.get(fence, 0.0))

    def read_result(self, task: Task, result: bytes) -> None:
        """Somebody was shown a completed task and then read its result."""
        run = task.run
        op = None if run is None or run.settled is None else self.outcomes.get((task.seq, run.settled.fence))
        if task.seq not in self.lives:
            return  # lost meanwhile
        latest = self.lives[task.seq].versions[-1]
        if isinstance(op, c.Complete) and latest.state is S.COMPLETED and latest.run == run:
            self.check(
                result == op.result, f"[9] the result of {task.id} reads {result!r}, not {op.result!r}"
            )

    def _ended(self, life: Life, position: int, fence: int) -> bool:
        if life.deleted_at is not None and life.deleted_at <= position:
            return True
        version = life.version(position)
        run = None if version is None else version.run
        return run is not None and (run.dropped_attempts > 0 or any(a.fence == fence for a in run.attempts))

    def lost_tail(self, end: int, last: int, *, resumes: int) -> None:
        """Forget what was acknowledged and is lost; leases that were given are never given again."""
        super().lost_tail(end, last, resumes=resumes)
        self.acknowledged &= self.lives.keys()
        self.created = {seq: payload for seq, payload in self.created.items() if seq in self.lives}
        for key, position in list(self.outcome_at.items()):
            if position > end or key[0] not in self.lives:
                del self.outcomes[key], self.outcome_at[key]

    # What is left in the end.

    def ended(self, rows: dict[int, Task], blob: Callable[[Blob, int], bytes]) -> None:
        """Judge the truth after everything."""
        for seq in sorted(self.acknowledged):
            self._is_not_lost(seq, rows)
        for seq, payload in sorted(self.created.items()):
            life = self.lives[seq]
            if seq in rows and (life.tenant, life.id, "patch") not in self.sent:
                self.check(blob(Blob.PAYLOAD, seq) == payload, f"[9] the payload of {life.id} changed")
        for seq, task in sorted(rows.items()):
            known = self.payloads[task.tenant, task.id]
            self.check(blob(Blob.PAYLOAD, seq) in known, f"[19] {task.id} has a payload that nobody sent")
            self.check(self.present.get((task.tenant, task.id)) == seq, f"[3] {task.id} has two rows")
        for (seq, fence), op in sorted(self.outcomes.items(), key=lambda item: item[0]):
            self._outcome_stands(rows, seq, fence, op, blob)
        for tenant, queue, after, until in self.pauses:
            self._nothing_was_claimed(tenant, queue, after, until)

    def _is_not_lost(self, seq: int, rows: dict[int, Task]) -> None:
        life = self.lives[seq]
        if seq in rows or life.deleted_at is not None:
            return  # whether it might be deleted was judged when it was
        run = life.versions[-1].run
        pruned = (
            run is not None and run.prune_at is not None and run.prune_at <= max(self.pruned_before, self.now)
        )
        self.check(pruned, f"[1] {life.id} was acknowledged and is lost")

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
            self.check(told == [ENDS[type(op)]], f"[7] {op} was acknowledged, the row says {told}")
        else:
            self.check(run.dropped_attempts > 0, f"[1] {op} was acknowledged and is lost")
        last = run.settled is not None and run.settled.fence == fence
        if isinstance(op, c.Complete) and last and task.state is S.COMPLETED:
            stored = blob(Blob.RESULT, seq)
            expired = run.result_expires_at is not None and run.result_expires_at <= self.pruned_before
            self.check(stored == op.result or expired, f"[9] the result of {task.id} reads {stored!r}")

    def _nothing_was_claimed(self, tenant: str, queue: str, after: int, until: int) -> None:
        for life in self.lives.values():
            if life.tenant != tenant:
                continue
            for position in range(after + 1, until + 1):
                for change in life.changes.get(position, ()):
                    claimed = change.state is S.CLAIMED and change.queue == queue
                    self.check(
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
