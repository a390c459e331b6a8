"""Messages between workers and the coordinator: claim, report, and what a lease's holder says."""

from __future__ import annotations

from typing import Annotated, TypeAlias

from msgspec import Meta, field

from lineshaft.wire.grammar import Identifier, Label, LeaseSpan, Name, Names, Span, Text, Wait
from lineshaft.wire.messages import (
    UNSET,
    Amount,
    Answer,
    Batch,
    Directive,
    ErrorInfo,
    Instant,
    OptionalRaw,
    Raw,
    Request,
    Seconds,
    StateWord,
    UnsetType,
)
from lineshaft.wire.tasks import Progress, TaskError


class Worker(Request, kw_only=True):
    """Who claims, and what it has. `incarnation` is new with every start of the process."""

    id: Identifier
    incarnation: Identifier | None = None
    name: Label | None = None
    version: Label | None = None
    capabilities: list[Name] | None = None
    resources: dict[str, Amount] | None = None
    host: Label | None = None
    pid: Annotated[int, Meta(ge=0, le=2**63 - 1)] | None = None


class Claim(Request, kw_only=True):
    """Ask for up to `max` tasks of the queues or names (any where neither is given), waiting up to `wait`."""

    claim_id: Identifier | None = None
    worker: Worker | None = None
    queues: Names | None = None
    names: Names | None = None
    max: Batch | None = None
    wait: Wait | None = None
    lease: LeaseSpan | None = None
    start: bool | None = None
    holding: list[str] | None = None


class ClaimQuery(Request, kw_only=True):
    """The scalars of a claim; `queues` and `names` with commas between."""

    claim_id: Identifier | None = None
    queues: str | None = None
    names: str | None = None
    max: Batch | None = None
    wait: Wait | None = None
    lease: LeaseSpan | None = None
    start: bool | None = None


class ClaimedTask(Answer, kw_only=True, omit_defaults=False):
    """A task under a lease, every field said. Count the lease from when the request was sent."""

    task_id: str
    lease_token: str
    name: str
    queue: str
    attempt: int
    max_retries: int
    fence: int
    lease_ttl: Seconds
    enqueued_at: Instant
    payload: Raw
    timeout: Seconds | None = None
    metadata: OptionalRaw = None
    tags: list[str] = field(default_factory=list)
    traceparent: str | None = None
    checkpoint: OptionalRaw = None
    carry: OptionalRaw = None
    position: int | UnsetType = UNSET
    """Only where the task is the whole answer; else beside `tasks`."""


class ClaimedTasks(Answer, kw_only=True):
    """The tasks leased; `directive` is "drain" where the worker is to go."""

    tasks: list[ClaimedTask]
    position: int
    directive: Directive = "continue"
    held: list[str] | None = None
    """Tokens of all that the worker holds: told to coordinators that asked for a partition of a tenant."""


class Start(Request, kw_only=True):
    """Begin to execute a prefetched task."""

    lease_token: str


class Heartbeat(Request, kw_only=True):
    """Extend the lease. `checkpoint` comes back to the next attempt."""

    lease_token: str
    progress: Progress | None = None
    checkpoint: Raw | UnsetType = UNSET
    usage: Raw | UnsetType = UNSET


class LeaseAnswer(Answer, kw_only=True):
    """The lease goes on for `lease_ttl` seconds; do as `directive` says."""

    lease_ttl: Seconds
    directive: Directive
    position: int
    reason: str | None = None


class Complete(Request, kw_only=True):
    """End with a result. `result_ttl` overrides the task's."""

    lease_token: str
    result: Raw | UnsetType = UNSET
    carry: Raw | UnsetType = UNSET
    result_ttl: Span | None = None


class Fail(Request, kw_only=True):
    """End the attempt with an error; tried again unless `retry` is false or no retry is left."""

    lease_token: str
    error: TaskError | None = None
    retry: bool | None = None
    retry_after: Span | None = None


class Release(Request, kw_only=True):
    """Give the task back; no attempt is burned."""

    lease_token: str


class Snooze(Request, kw_only=True, rename={"for_": "for"}):
    """Run it again after `for_` (on the wire: `for`); no attempt is burned."""

    lease_token: str
    for_: Span


class OutcomeAnswer(Answer, kw_only=True):
    """What became of the task; `run_at` where it will run again."""

    task_id: str
    state: StateWord
    position: int
    run_at: Instant | None = None


class ReportItem(Request, kw_only=True):
    """Base of the items of a report: which task, under which lease."""

    task_id: str
    lease_token: str


class StartItem(ReportItem, kw_only=True, tag="start", tag_field="op"):
    """See `Start`."""


class HeartbeatItem(ReportItem, kw_only=True, tag="heartbeat", tag_field="op"):
    """See `Heartbeat`."""

    progress: Progress | None = None
    checkpoint: Raw | UnsetType = UNSET
    usage: Raw | UnsetType = UNSET


class CompleteItem(ReportItem, kw_only=True, tag="complete", tag_field="op"):
    """See `Complete`."""

    result: Raw | UnsetType = UNSET
    carry: Raw | UnsetType = UNSET
    result_ttl: Span | None = None


class FailItem(ReportItem, kw_only=True, tag="fail", tag_field="op"):
    """See `Fail`."""

    error: TaskError | None = None
    retry: bool | None = None
    retry_after: Span | None = None


class ReleaseItem(ReportItem, kw_only=True, tag="release", tag_field="op"):
    """See `Release`."""


class SnoozeItem(ReportItem, kw_only=True, tag="snooze", tag_field="op", rename={"for_": "for"}):
    """See `Snooze`."""

    for_: Span


class CancelItem(ReportItem, kw_only=True, tag="cancel", tag_field="op"):
    """The holder's own outcome: cancelled."""

    reason: Text | None = None


Item: TypeAlias = StartItem | HeartbeatItem | CompleteItem | FailItem | ReleaseItem | SnoozeItem | CancelItem


class Report(Request, kw_only=True):
    """The hot path: what became of tasks, in order, each for itself; then a claim, if any."""

    items: list[Item]
    claim: Claim | None = None


class ItemAnswer(Answer, kw_only=True):
    """What became of one item: `status` 200, or that of its error. `lease_ttl` for start and heartbeat.

    `position` only where the item was a message of its own (a session's); else beside `items`.
    """

    status: int
    position: int | None = None
    state: StateWord | None = None
    run_at: Instant | None = None
    lease_ttl: Seconds | None = None
    directive: Directive | None = None
    reason: str | None = None
    error: ErrorInfo | None = None


class Reported(Answer, kw_only=True):
    """One answer per item, in order, and the tasks that the claim brought."""

    items: list[ItemAnswer]
    tasks: list[ClaimedTask]
    position: int
    directive: Directive = "continue"
