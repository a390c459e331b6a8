"""A world for one shard: rows that a store would hold, a clock that moves only when told, and verbs.

Whatever the shard changes is committed at once, as by an engine on an instant store; `w.reload()` drops the
shard and loads it again from the rows, as after a crash.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, cast

import msgspec

from lineshaft.core import commands as c
from lineshaft.core.batch import Blob
from lineshaft.core.memory import PRUNE_MARGIN
from lineshaft.core.replies import (
    Claimed,
    Directive,
    Enqueued,
    EnqueuedTask,
    Explanation,
    Found,
    OpReply,
    QueueState,
    Reported,
    StatsReply,
    Swept,
    WorkerState,
)
from lineshaft.core.shard import PARKED, Missing, Shard
from lineshaft.core.task import Affinity, Progress, RetryPolicy, Spec, State, Task, lease_token
from lineshaft.errors import LineshaftError
from tests.core.rows import Rows

SECOND = 1_000
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
DAY = 24 * HOUR
START = 1_700_000_000_000
LEASE = 30 * SECOND

NO_JITTER = RetryPolicy(jitter=0.0)
SPEC_FIELDS = set(Spec.__struct_fields__)


class Parked:
    """A command that waits in the shard; `reply` once it was answered."""

    def __init__(self, ticket: int) -> None:
        self.ticket = ticket
        self.answers: list[Any] = []

    @property
    def waiting(self) -> bool:
        return not self.answers

    @property
    def reply(self) -> Any:
        [answer] = self.answers
        if isinstance(answer, LineshaftError):
            raise answer
        return answer

    @property
    def tasks(self) -> list[Task]:
        return cast(Claimed, self.reply).tasks


class World:
    def __init__(self, *, tenant: str = "acme") -> None:
        self.tenant = tenant
        self.now = START
        self.rows = Rows()
        self.shard = Shard(self.rows.snapshot(), self.now)
        self.parked: dict[int, Parked] = {}
        self.missing: list[tuple[str, str]] = []
        """Every key that the shard has asked for."""
        self.directives: list[Directive] = []
        """What connected workers were told."""
        self._numbers = itertools.count(1)
        self._settle()

    # The machinery: apply, commit, deliver, let time pass.

    def apply(self, command: c.Command) -> Any:
        """Apply, bringing what is missing; commit; return the reply or a `Parked`."""
        ticket = next(self._numbers)
        try:
            reply = self._apply(command, ticket)
            if reply is PARKED:
                self.parked[ticket] = reply = Parked(ticket)
        finally:
            self._settle()
        return reply

    def _apply(self, command: c.Command, ticket: int) -> Any:
        found: dict[tuple[str, str], Task | None] = {}
        while True:
            try:
                return self.shard.apply(command, self.now, ticket=ticket, found=found)
            except Missing as missing:
                found |= self._look_up(missing.keys, known=set(found))

    def _look_up(
        self, keys: list[tuple[str, str]], *, known: set[tuple[str, str]]
    ) -> dict[tuple[str, str], Task | None]:
        assert not known & set(keys), "asked again for what it was given"
        self.missing += keys
        return {key: self.rows.task(*key) for key in keys}

    def _settle(self) -> None:
        while self.shard.dirty:
            self.rows.commit(self.shard.cut(str(next(self._numbers)).encode()))
        for ticket, answer in self.shard.take_deliveries():
            self.parked.pop(ticket).answers.append(answer)
        self.directives += self.shard.take_directives()
        assert not self.shard.deliveries and not self.shard.directives
        assert self.shard.position == self.rows.position + 1

    def advance(self, duration: int) -> None:
        """Let time pass, stopping at each deadline that the shard names on the way."""
        target, ticks = self.now + duration, 0
        while True:
            deadline = self.shard.next_deadline()
            if deadline is None or deadline > target:
                break
            ticks = ticks + 1 if deadline <= self.now else 0
            assert ticks < 10, "a deadline that is over stays"
            self.now = max(self.now, deadline)
            self.tick()
        self.now = target

    def tick(self, *, leases: bool = True) -> None:
        self.apply(c.Tick(tenant=self.tenant, leases=leases))

    def reload(self, *, down: int = 0) -> None:
        """Crash and load again after `down` ms; whoever was parked is gone."""
        self.now += down
        self.shard = Shard(self.rows.snapshot(), self.now)
        self.parked.clear()
        self._settle()

    # Clients.

    def new(self, name: str = "work", id: str | None = None, **fields: Any) -> c.NewTask:
        """Make a task to enqueue: fields of `Spec` and of `NewTask` alike; `affinity` parts by name."""
        capability = tuple(fields.pop("capability", ()))
        resources = tuple(sorted(fields.pop("resources", {}).items()))
        spec = {key: fields.pop(key) for key in set(fields) & SPEC_FIELDS}
        spec.setdefault("retry_policy", NO_JITTER)
        spec["affinity"] = Affinity(capability=capability, resources=resources)
        given = id is not None
        return c.NewTask(
            id=id or f"task-{next(self._numbers)}", spec=Spec(name=name, **spec), given=given, **fields
        )

    def enqueue(self, name: str = "work", id: str | None = None, **fields: Any) -> Task:
        """Enqueue one task; return it (or the one that its id names). Refusals are raised."""
        return self.enqueue_again(name, id, **fields).task

    def enqueue_again(
        self, name: str = "work", id: str | None = None, *, conflict_error: bool = False, **fields: Any
    ) -> EnqueuedTask:
        """Enqueue one task and say whether it was created."""
        [item] = self.bulk(self.new(name, id, **fields), conflict_error=conflict_error)
        if isinstance(item, LineshaftError):
            raise item
        return item

    def bulk(self, *tasks: c.NewTask, conflict_error: bool = False) -> list[EnqueuedTask | LineshaftError]:
        command = c.Enqueue(tenant=self.tenant, tasks=tasks, conflict_error=conflict_error)
        return cast(Enqueued, self.apply(command)).items

    def enqueue_and_wait(self, *, wait: int, **fields: Any) -> Any:
        return self.apply(
            c.Enqueue(tenant=self.tenant, tasks=(self.new(**fields),), wait_until=self.now + wait)
        )

    def get(self, task: Task | str) -> Task:
        return cast(Found, self.apply(c.Get(tenant=self.tenant, id=_id(task)))).task

    def wait(self, task: Task | str, duration: int) -> Any:
        return self.apply(c.Get(tenant=self.tenant, id=_id(task), wait_until=self.now + duration))

    def cancel(self, task: Task | str, reason: str | None = None) -> Task:
        return cast(Found, self.apply(c.Cancel(tenant=self.tenant, id=_id(task), reason=reason))).task

    def retry(self, task: Task | str) -> Task:
        return cast(Found, self.apply(c.Retry(tenant=self.tenant, id=_id(task)))).task

    def promote(self, task: Task | str) -> Task:
        return cast(Found, self.apply(c.Promote(tenant=self.tenant, id=_id(task)))).task

    def delete(self, task: Task | str) -> Task:
        return cast(Found, self.apply(c.Delete(tenant=self.tenant, id=_id(task)))).task

    def patch(self, task: Task | str, **fields: Any) -> Task:
        return cast(Found, self.apply(c.Patch(tenant=self.tenant, id=_id(task), **fields))).task

    def sweep(self, verb: Any, *tasks: Task, dry_run: bool = False, **fields: Any) -> tuple[int, int]:
        keys = tuple((task.id, task.seq) for task in tasks)
        filter = c.Filter(**fields)
        swept = cast(
            Swept,
            self.apply(c.Sweep(tenant=self.tenant, verb=verb, keys=keys, filter=filter, dry_run=dry_run)),
        )
        return swept.matched, swept.changed

    # Workers.

    def claim_command(self, worker: str | None = "a", *, wait: int = 0, **fields: Any) -> c.Claim:
        info = None
        if worker is not None:
            info = c.WorkerInfo(
                id=worker,
                incarnation=fields.pop("incarnation", None),
                capabilities=tuple(fields.pop("capabilities", ())),
                resources=tuple(sorted(fields.pop("resources", {}).items())),
            )
        until = self.now + wait if wait else None
        return c.Claim(tenant=self.tenant, worker=info, wait_until=until, **fields)

    def claim(self, worker: str | None = "a", **fields: Any) -> list[Task]:
        return cast(Claimed, self.apply(self.claim_command(worker, **fields))).tasks

    def park(self, worker: str | None = "a", *, wait: int = 10 * MINUTE, **fields: Any) -> Parked:
        """Claim where there is nothing to claim, and stay."""
        parked = self.apply(self.claim_command(worker, wait=wait, **fields))
        assert isinstance(parked, Parked), f"answered at once: {parked}"
        return parked

    def unpark(self, parked: Parked) -> None:
        self.apply(c.Unpark(tenant=self.tenant, ticket=parked.ticket))

    def report(self, *items: c.Op, claim: c.Claim | None = None) -> Reported:
        return cast(Reported, self.apply(c.Report(tenant=self.tenant, items=items, claim=claim)))

    def op(self, kind: type[c.Op], task: Task, **fields: Any) -> OpReply:
        [item] = self.report(kind(task_id=task.id, token=lease_token(task), **fields)).items
        if isinstance(item, LineshaftError):
            raise item
        return item

    def start(self, task: Task) -> OpReply:
        return self.op(c.Start, task)

    def heartbeat(self, task: Task, **fields: Any) -> OpReply:
        return self.op(c.Heartbeat, task, **fields)

    def progress(self, task: Task, done: float, total: float | None = None) -> OpReply:
        return self.heartbeat(task, progress=Progress(done=done, total=total))

    def complete(self, task: Task, result: bytes = b"null", **fields: Any) -> OpReply:
        return self.op(c.Complete, task, result=result, **fields)

    def fail(self, task: Task, error: bytes = b'{"type":"oops"}', **fields: Any) -> OpReply:
        return self.op(c.Fail, task, error=error, **fields)

    def release(self, task: Task) -> OpReply:
        return self.op(c.Release, task)

    def snooze(self, task: Task, delay: int) -> OpReply:
        return self.op(c.Snooze, task, delay=delay)

    def cancel_held(self, task: Task, reason: str | None = None) -> OpReply:
        return self.op(c.CancelHeld, task, reason=reason)

    # Operators.

    def set_queue(self, queue: str = "default", **fields: Any) -> QueueState:
        return cast(QueueState, self.apply(c.SetQueue(tenant=self.tenant, queue=queue, **fields)))

    def queues(self, queue: str | None = None) -> list[QueueState]:
        return cast(list[QueueState], self.apply(c.Queues(tenant=self.tenant, queue=queue)))

    def workers(self) -> list[WorkerState]:
        return cast(list[WorkerState], self.apply(c.Workers(tenant=self.tenant)))

    def drain(self, worker: str, incarnation: str | None = None) -> WorkerState:
        command = c.Drain(tenant=self.tenant, worker_id=worker, incarnation=incarnation)
        return cast(WorkerState, self.apply(command))

    def explain(self, task: Task | str) -> Explanation:
        return cast(Explanation, self.apply(c.Explain(tenant=self.tenant, id=_id(task))))

    def stats(self) -> StatsReply:
        return cast(StatsReply, self.apply(c.Stats(tenant=self.tenant)))

    def prune(self) -> int:
        """Let the store forget what is past its retention, and tell the shard."""
        removed = self.rows.prune(self.now - PRUNE_MARGIN)
        self.apply(c.Pruned(tenant=self.tenant, removed=tuple(removed)))
        return sum(census.count for census in removed)

    # What one looks at.

    def row(self, task: Task | str) -> bytes:
        """Return the row as the store holds it, byte for byte."""
        found = self.rows.task(self.tenant, _id(task))
        assert found is not None, f"no row of {_id(task)}"
        return self.rows.tasks[found.seq]

    def blob(self, kind: Blob, task: Task) -> bytes | None:
        return self.rows.blobs.get((kind, task.seq))

    def states(self, task: Task) -> list[State | None]:
        """Return the moves of a task as the log tells them."""
        return [change.state for change in self.rows.changes if change.seq == task.seq]

    def counts(self) -> dict[State, int]:
        """Recount the rows of the tenant, by state; states without tasks are left out."""
        counts: dict[State, int] = {}
        for task in self.rows.all():
            if task.tenant == self.tenant:
                counts[task.state] = counts.get(task.state, 0) + 1
        return counts


def _id(task: Task | str) -> str:
    return task if isinstance(task, str) else task.id


def ids(tasks: Sequence[Task]) -> list[str]:
    """Name tasks by their ids."""
    return [task.id for task in tasks]


def encoded(task: Task) -> bytes:
    return msgspec.msgpack.encode(task)
