"""Commands: everything that can be asked of a shard, as values.

A command is applied by `Shard.apply`; being a value it can be applied again after a missing row was
loaded or a rejected batch was bisected, and printed by the simulator. All instants and durations
are milliseconds.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from lineshaft.core.batch import Census
from lineshaft.core.task import Progress, Spec, State


class Command(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Base of all commands; the tenant decides the shard."""

    tenant: str


class NewTask(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A task to enqueue, checked and with its defaults filled in by the edge."""

    id: str
    spec: Spec
    payload: bytes = b"null"
    run_at: int | None = None
    delay: int | None = None
    expires_at: int | None = None
    expires_in: int | None = None
    tags: tuple[str, ...] = ()
    metadata: bytes | None = None
    traceparent: str | None = None
    fingerprint: int = 0
    given: bool = False
    """The client chose the id, so it may name a task that exists."""


class Enqueue(Command, frozen=True, kw_only=True):
    """Enqueue tasks, each for itself → `Enqueued`. With `wait_until` (one task only) parks until it ends.

    `accepted` where they were taken in before, by a store's inbox: a queue closed since does not refuse them.
    """

    tasks: tuple[NewTask, ...]
    conflict_error: bool = False
    accepted: bool = False
    wait_until: int | None = None


class Get(Command, frozen=True, kw_only=True):
    """Read a task → `Found`; with `wait_until` parks until it ends or time is up. Raises `NotFound`."""

    id: str
    wait_until: int | None = None


class WorkerInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker says of itself when it claims."""

    id: str
    incarnation: str | None = None
    name: str | None = None
    version: str | None = None
    capabilities: tuple[str, ...] = ()
    resources: tuple[tuple[str, float], ...] = ()
    host: str | None = None
    pid: int | None = None


class Claim(Command, frozen=True, kw_only=True):
    """Lease up to `max` tasks → `Claimed`; with `wait_until` parks until matched or time is up."""

    max: int = 1
    claim_id: str | None = None
    worker: WorkerInfo | None = None
    queues: tuple[str, ...] | None = None
    names: tuple[str, ...] | None = None
    wait_until: int | None = None
    lease: int | None = None
    start: bool = True
    holding: tuple[str, ...] | None = None


class Op(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Something the holder of a lease reports of its task."""

    task_id: str
    token: str


class Start(Op, frozen=True, kw_only=True):
    """Begin to execute a prefetched task."""


class Heartbeat(Op, frozen=True, kw_only=True):
    """Extend the lease; may bring progress, a checkpoint (JSON) and usage (JSON)."""

    progress: Progress | None = None
    checkpoint: bytes | None = None
    usage: bytes | None = None


class Complete(Op, frozen=True, kw_only=True):
    """End with a result (JSON). `result_ttl` overrides the task's."""

    result: bytes = b"null"
    carry: bytes | None = None
    result_ttl: int | None = None


class Fail(Op, frozen=True, kw_only=True):
    """End the attempt with an error (a JSON object); retried unless `retry` is False or none is left."""

    error: bytes = b"{}"
    retry: bool = True
    retry_after: int | None = None


class Release(Op, frozen=True, kw_only=True):
    """Give the task back; no attempt is burned."""


class Snooze(Op, frozen=True, kw_only=True):
    """Run it again after `delay`; no attempt is burned."""

    delay: int


class CancelHeld(Op, frozen=True, kw_only=True):
    """The holder's own outcome: cancelled."""

    reason: str | None = None


class Report(Command, frozen=True, kw_only=True):
    """Apply operations in order, each for itself, then the claim (never parked) → `Reported`."""

    items: tuple[Op, ...]
    claim: Claim | None = None


class Patch(Command, frozen=True, kw_only=True):
    """Change a task that has not started → `Found`. `UNSET` leaves a field as it is."""

    id: str
    priority: int | msgspec.UnsetType = msgspec.UNSET
    queue: str | msgspec.UnsetType = msgspec.UNSET
    run_at: int | msgspec.UnsetType = msgspec.UNSET
    payload: bytes | msgspec.UnsetType = msgspec.UNSET
    tags: tuple[str, ...] | msgspec.UnsetType = msgspec.UNSET


class Cancel(Command, frozen=True, kw_only=True):
    """End a task that is not running, ask a running one to end → `Found`. Raises `Conflict` if ended."""

    id: str
    reason: str | None = None


class Retry(Command, frozen=True, kw_only=True):
    """Run a finished task again, as a new generation under the same id → `Found`."""

    id: str


class Promote(Command, frozen=True, kw_only=True):
    """Run a scheduled task now → `Found`; a queued one stays as it is."""

    id: str


class Delete(Command, frozen=True, kw_only=True):
    """Forget a finished task → `Found` with its last state. Raises `Conflict` where it has not ended."""

    id: str


class Filter(msgspec.Struct, frozen=True, kw_only=True):
    """Which tasks: None matches all; the fields are and-ed, their values or-ed (tags: all must be there)."""

    states: frozenset[State] | None = None
    queues: frozenset[str] | None = None
    names: frozenset[str] | None = None
    tags: tuple[str, ...] = ()
    text: str | None = None
    """Case-insensitive part of the id, the name, a tag or the error."""


class Sweep(Command, frozen=True, kw_only=True):
    """Do one verb to many tasks → `Swept`; each is judged again by its true state and the filter.

    `keys` are (id, seq): a task that was deleted and enqueued anew since has another seq and is left alone.
    """

    verb: Literal["cancel", "retry", "promote", "delete"]
    keys: tuple[tuple[str, int], ...]
    filter: Filter
    reason: str | None = None
    dry_run: bool = False


class SetQueue(Command, frozen=True, kw_only=True):
    """Pause, resume, close or open a queue (None leaves as is) → `QueueState`. Naming a queue makes it."""

    queue: str
    paused: bool | None = None
    closed: bool | None = None


class Queues(Command, frozen=True, kw_only=True):
    """List the queues → `list[QueueState]`; of one name only if given (made up empty where unknown)."""

    queue: str | None = None


class Workers(Command, frozen=True, kw_only=True):
    """List the workers seen lately → `list[WorkerState]`."""


class Drain(Command, frozen=True, kw_only=True):
    """Let a worker finish what it holds and claim no more → `WorkerState`. Raises `NotFound`."""

    worker_id: str
    incarnation: str | None = None


class Explain(Command, frozen=True, kw_only=True):
    """Say why a task is not running → `Explanation`."""

    id: str


class PutRecord(Command, frozen=True, kw_only=True):
    """Write (or with None delete) a small row that is not a task → `None`."""

    kind: str
    key: str
    data: bytes | None


class Records(Command, frozen=True, kw_only=True):
    """Read all small rows of a kind → `list[Record]`."""

    kind: str


class Stats(Command, frozen=True, kw_only=True):
    """Count → `StatsReply`, of all tenants of the shard when the tenant is `"*"`."""


class Barrier(Command, frozen=True, kw_only=True):
    """Do nothing → `int`, the position: what was acknowledged before it is durable when it is answered."""


class Tick(Command, frozen=True, kw_only=True):
    """Let time pass: due tasks, lost leases, timeouts, expiries, waits that are over → `None`.

    `leases` is False while the store stalls: no worker could report, so no lease is lost.
    """

    leases: bool = True


class Unpark(Command, frozen=True, kw_only=True):
    """The requester of a parked command has gone; drop its ticket."""

    ticket: int


class Grace(Command, frozen=True, kw_only=True):
    """Extend every live lease: the store stalled for that long and no worker could report."""

    duration: int


class Pruned(Command, frozen=True, kw_only=True):
    """The store has pruned finished tasks; take them off the counters."""

    removed: tuple[Census, ...]
