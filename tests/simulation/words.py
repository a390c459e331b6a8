"""What happened, in plain sentences."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from lineshaft.core import commands as c
from lineshaft.core.batch import Batch
from lineshaft.core.replies import Claimed, Enqueued, EnqueuedTask, Found, OpReply, Reported, Swept
from lineshaft.core.task import Task
from lineshaft.errors import LineshaftError
from lineshaft.store.base import Ownership

GOES_WRONG = {
    "refused": "the store refuses the connection",
    "stall": "the store stalls",
    "answer_lost": "it is stored, but the store's answer is lost",
    "answered_twice": "it is sent twice on the way, and the second answer is the one that comes",
    "timed_out": "no answer comes, and the store carries it out later",
    "fence": "a stranger takes the shard over first",
    None: "",
}
REPORTED = {
    c.Start: "starts",
    c.Heartbeat: "sends a heartbeat of",
    c.Complete: "completes",
    c.Fail: "fails",
    c.Release: "releases",
    c.Snooze: "snoozes",
    c.CancelHeld: "cancels",
}


@dataclass(frozen=True)
class Event:
    """One sentence of the story."""

    at: float
    who: str
    what: str
    about: frozenset[str]
    """Ids of the tasks concerned."""
    telling: bool
    """Whether it is worth telling; a poll that brought nothing is not."""

    @property
    def line(self) -> str:
        return f"{self.at:9.3f} s  {self.who} {self.what}"


def of_commit(at: float, who: str, ownership: Ownership, batch: Batch, fault: str | None) -> Event:
    """Say what is committed."""
    moves = ", ".join(
        f"{change.task_id} {change.state.word if change.state is not None else 'deleted'}"
        for change in batch.changes
    )
    wrong = f"; {GOES_WRONG[fault]}" if fault else ""
    what = f"sends commit {batch.position} under epoch {ownership.epoch} ({moves or 'no task moves'}){wrong}"
    about = frozenset(change.task_id for change in batch.changes)
    return Event(at, who, what, about, telling=fault is not None or bool(batch.changes))


def of_answer(at: float, who: str, command: c.Command, reply: Any, *, lost: bool) -> Event:
    """Say what was asked and what was answered."""
    end = ", but the answer is lost" if lost else ""
    about = frozenset(_about(command)) | frozenset(task.id for task in _given(reply))
    telling = not (isinstance(command, c.Claim) and isinstance(reply, Claimed) and not reply.tasks)
    return Event(at, who, f"{asks(command)}: {answers(reply)}{end}", about, telling=telling)


def asks(command: c.Command) -> str:
    """Say what a command asks for."""
    match command:
        case c.Enqueue(tasks=tasks):
            waiting = " and waits for it" if command.wait_until is not None else ""
            return f"enqueues {', '.join(map(_new, tasks))}{waiting}"
        case c.Claim(worker=worker):
            life = "" if worker is None else f" as {worker.incarnation}"
            begun = "" if command.start else ", not to start at once"
            return f"claims{life} ({command.claim_id}{begun})"
        case c.Report(items=items, claim=claim):
            ops = ", ".join(f"{REPORTED[type(op)]} {op.task_id} under lease {lease_of(op)}" for op in items)
            return f"{ops or 'reports nothing'}{' and claims' if claim is not None else ''}"
        case c.Sweep(verb=verb, keys=keys):
            return f"sweeps to {verb} {', '.join(id for id, _ in keys)}"
        case c.SetQueue(queue=queue, paused=paused):
            return f"{'pauses' if paused else 'resumes'} queue {queue}"
        case c.Get(id=id):
            return f"looks at {id}"
        case _:
            about = getattr(command, "id", "")
            return f"asks to {type(command).__name__.lower()}{f' {about}' if about else ''}"


def lease_of(op: c.Op) -> int:
    """Return the fence of the lease under which something is reported."""
    return int(op.token.split("-")[0], 16)


def answers(reply: Any) -> str:
    """Say what a reply says."""
    match reply:
        case LineshaftError():
            return f"refused, {reply.type}"
        case Enqueued(items=items):
            return ", ".join(answers(item) for item in items)
        case EnqueuedTask(task=task, created=created):
            return f"{'created' if created else 'is there already'}, {state_of(task)}"
        case Found(task=task):
            return state_of(task)
        case Claimed(tasks=tasks):
            return f"gets {', '.join(map(handed, tasks))}" if tasks else "gets nothing"
        case Reported(items=items, tasks=tasks):
            got = f"; gets {', '.join(map(handed, tasks))}" if tasks else ""
            return f"{', '.join(answers(item) for item in items) or 'fine'}{got}"
        case OpReply(state=state):
            return f"accepted, it is {state.word}"
        case Swept(changed=changed):
            return f"{changed} changed"
        case _:
            return "done"


def state_of(task: Task) -> str:
    """Say how a task is."""
    lease = f" under lease {task.lease.fence}" if task.lease else ""
    return f"{task.id} is {task.state.word}{lease}, attempt {task.attempt}"


def handed(task: Task) -> str:
    """Say what a claim was given."""
    return f"{task.id} under lease {task.lease.fence if task.lease else '?'}"


def _new(task: c.NewTask) -> str:
    queue = "" if task.spec.queue == "default" else f" in queue {task.spec.queue}"
    return f"{task.id}{queue}"


def _about(command: c.Command) -> Iterator[str]:
    match command:
        case c.Enqueue(tasks=tasks):
            yield from (task.id for task in tasks)
        case c.Report(items=items):
            yield from (op.task_id for op in items)
        case c.Sweep(keys=keys):
            yield from (id for id, _ in keys)
        case _:
            id = getattr(command, "id", None)
            if id is not None:
                yield id


def _given(reply: Any) -> list[Task]:
    match reply:
        case Claimed(tasks=tasks) | Reported(tasks=tasks):
            return list(tasks)
        case Found(task=task):
            return [task]
        case _:
            return []
