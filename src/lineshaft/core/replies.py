"""What a shard answers: values, safe to keep, since every task in them is a snapshot.

`position` is the commit that makes what the reply shows durable; the engine holds each reply back until then.
"""

from __future__ import annotations

import msgspec

from lineshaft.core.batch import Counters
from lineshaft.core.task import State, Task
from lineshaft.errors import LineshaftError


class EnqueuedTask(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One enqueued task, or the one that its id already named (`created` False)."""

    task: Task
    created: bool


class Enqueued(msgspec.Struct, frozen=True, kw_only=True):
    """One item per task, in order: the task or the error that refused it.

    Known to the collector, as `Reported` is: once an error is raised it holds on to the call's frames, and
    these to what the call was answered.
    """

    items: list[EnqueuedTask | LineshaftError]
    position: int


class Found(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A task as it stands; `ended` False where a wait ran out first; `created` only where it was enqueued."""

    task: Task
    position: int
    ended: bool = True
    created: bool = False


class Claimed(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The tasks leased, each with its live lease; `directive` is "drain" where the worker is to go.

    `held` are the tokens of all that the worker holds now, where its claim said `holding`.
    """

    tasks: list[Task]
    position: int
    directive: str = "continue"
    held: tuple[str, ...] = ()


class OpReply(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What became of one operation. `lease_ttl` (ms) and `directive` for start and heartbeat."""

    task_id: str
    state: State
    position: int
    run_at: int | None = None
    lease_ttl: int | None = None
    directive: str = "continue"
    reason: str | None = None


class Reported(msgspec.Struct, frozen=True, kw_only=True):
    """One reply or error per operation, in order, and what the claim brought."""

    items: list[OpReply | LineshaftError]
    tasks: list[Task]
    position: int
    directive: str = "continue"


class Swept(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """How many tasks matched the filter and how many the verb could change."""

    matched: int
    changed: int
    position: int


class QueueState(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A queue: its settings, its counts by state, and the age (ms) of the oldest task that could run."""

    queue: str
    paused: bool
    closed: bool
    counts: dict[State, int]
    oldest_age: int
    position: int
    running: int = 0
    workers: int = 0
    """Live workers that have lately claimed from this queue."""


class WorkerState(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A worker seen lately."""

    worker_id: str
    incarnation: str | None
    name: str | None
    version: str | None
    host: str | None
    pid: int | None
    capabilities: tuple[str, ...]
    resources: dict[str, float]
    free: dict[str, float]
    held: int
    waiting: bool
    draining: bool
    seen_at: int
    queues: tuple[str, ...] | None
    names: tuple[str, ...] | None
    position: int


class Reason(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One cause that keeps a task from running.

    `code` is one of finished, running, claimed, scheduled, paused, no_worker (none has what it needs), busy
    (capable workers have no resources free), no_claim (nobody has asked), behind (others go first).
    """

    code: str
    detail: str
    until: int | None = None
    missing: tuple[str, ...] = ()


class Explanation(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Why a task is not running, and how many of its queue stand before it."""

    task: Task
    reasons: list[Reason]
    ahead: int
    position: int


class StatsReply(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Counts by state and the shard's gauges."""

    counts: dict[State, int]
    queues: int
    workers: int
    waiting_claims: int
    waiting_results: int
    leases: int
    counters: Counters
    position: int
    totals: dict[str, int]
    """How often since this process loaded the shard: enqueued, claimed, started, completed, failed, retried,
    cancelled, lost, timed_out, released, snoozed."""


class Directive(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Something to tell a worker at once where it is connected; else its next heartbeat or claim brings it.

    `task_id` and `token` are None where it concerns the worker as a whole ("drain").
    """

    tenant: str
    worker_id: str
    incarnation: str | None
    directive: str
    task_id: str | None = None
    token: str | None = None
    reason: str | None = None
