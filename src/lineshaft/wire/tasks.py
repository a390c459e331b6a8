"""Messages about tasks: enqueue, read, find, change."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from msgspec import Meta, field

from lineshaft.wire.grammar import (
    Label,
    LeaseSpan,
    Name,
    Reserved,
    Sort,
    Span,
    Tags,
    TaskId,
    Text,
    Timeout,
    Wait,
)
from lineshaft.wire.messages import (
    UNSET,
    Amount,
    Answer,
    Batch,
    Count,
    Instant,
    OptionalRaw,
    Priority,
    Raw,
    Request,
    Seconds,
    StateWord,
    UnsetType,
)

NULL = Raw(b"null")


class RetryPolicy(Request, kw_only=True):
    """How long to wait before the next attempt; all optional."""

    backoff: Literal["exponential", "linear", "fixed"] | None = None
    base: Span | None = None
    factor: Annotated[float, Meta(ge=0, le=1000)] | None = None
    cap: Span | None = None
    jitter: Annotated[float, Meta(ge=0, le=1)] | None = None


class WorkerAffinity(Request, kw_only=True):
    """What a worker must declare to be given the task."""

    capability: list[Name] | None = None
    resources: dict[str, Amount] | None = None


class Enqueue(Request, kw_only=True):
    """A task to enqueue: only its type is required. `payload` is any JSON value.

    `unique`, `group`, `limits` and `depends_on` are reserved: 422 `not_supported` where they are given.
    """

    name: Name
    payload: Raw | UnsetType = UNSET
    task_id: TaskId | None = None
    queue: Name | None = None
    priority: Priority | None = None
    run_at: Instant | None = None
    delay: Span | None = None
    expires_at: Instant | None = None
    timeout: Timeout | None = None
    lease: LeaseSpan | None = None
    max_retries: Count | None = None
    retry_policy: RetryPolicy | None = None
    worker_affinity: WorkerAffinity | None = None
    tags: Tags | None = None
    metadata: OptionalRaw = None
    retention: Span | None = None
    result_ttl: Span | None = None
    unique: Reserved = None
    group: Reserved = None
    limits: Reserved = None
    depends_on: Reserved = None


class EnqueueQuery(Request, kw_only=True):
    """`wait` until the task ends; `conflict=error` for 409 where the id exists with another body."""

    wait: Wait | None = None
    conflict: Literal["error"] | None = None


class Enqueued(Answer, kw_only=True):
    """The task's state after an enqueue; its result or error where it had ended.

    With `?wait` and the task ended in time the answer is a `ChangedTask`, which has these fields too.
    """

    task_id: str
    state: StateWord
    created: bool
    position: int
    attempt: int | None = None
    result: Raw | UnsetType = UNSET
    error: OptionalRaw = None


class BulkItem(Answer, kw_only=True):
    """What became of one task of a bulk enqueue: 201, 200 (it was there) or the status of its error."""

    status: int
    task_id: str | None = None
    state: StateWord | None = None
    created: bool | None = None
    result: Raw | UnsetType = UNSET
    error: OptionalRaw = None
    """Of a refused item an error; of a task that had failed before, what it failed with (status 200)."""


class BulkAnswer(Answer, kw_only=True):
    """One item per task, in order."""

    items: list[BulkItem]
    position: int


class TaskError(Request, kw_only=True):
    """Why an attempt failed, in the worker's words. `data` is any JSON value."""

    type: str | None = None
    message: str | None = None
    stack: str | None = None
    data: Raw | UnsetType = UNSET


class Progress(Request, kw_only=True):
    """How far the worker is; `total` None where it does not know."""

    done: int | float
    total: int | float | None = None
    message: Text | None = None


class RetryPolicyInfo(Answer, kw_only=True):
    """The retry policy in force, durations in seconds."""

    backoff: str
    base: Seconds
    factor: float
    cap: Seconds
    jitter: float


class AffinityInfo(Answer, kw_only=True):
    """What the task asks of a worker; sizes in bytes."""

    capability: list[str] | None = None
    resources: dict[str, float] | None = None


class ProgressInfo(Answer, kw_only=True):
    """How far the worker said it is, and when."""

    done: int | float
    at: Instant
    total: int | float | None = None
    message: str | None = None


class AttemptInfo(Answer, kw_only=True):
    """One lease of a task, and the `outcome` that ended it; the lease under way has no `ended_at`.

    Outcomes: completed, failed, timeout, lease_lost, released, snoozed, cancelled.
    """

    attempt: int
    generation: int
    fence: int
    claimed_at: Instant
    worker_id: str | None = None
    started_at: Instant | None = None
    ended_at: Instant | None = None
    outcome: str | None = None
    error: OptionalRaw = None


class Task(Answer, kw_only=True, omit_defaults=False):
    """A task: what it was enqueued with, and what became of it. Lists leave out the large fields.

    What is not there yet is null; `result` stands only in a completed task.
    """

    task_id: str
    name: str
    queue: str
    state: StateWord
    priority: int
    attempt: int
    lost_leases: int
    max_retries: int
    created_at: Instant
    run_at: Instant
    generation: int = 1
    started_at: Instant | None = None
    finished_at: Instant | None = None
    expires_at: Instant | None = None
    worker_id: str | None = None
    reason: str | None = None
    """Why it ended, where somebody or a rule said so: a cancel's reason, `expired`, `timeout`."""
    cancel_requested_at: Instant | None = None
    progress: ProgressInfo | None = None
    payload: Raw | UnsetType = UNSET
    result: Raw | UnsetType = UNSET
    error: OptionalRaw = None
    timeout: Seconds | None = None
    lease: Seconds | None = None
    retry_policy: RetryPolicyInfo | None = None
    worker_affinity: AffinityInfo | None = None
    tags: list[str] = field(default_factory=list)
    metadata: OptionalRaw = None
    traceparent: str | None = None
    retention: Seconds | None = None
    result_ttl: Seconds | None = None
    checkpoint: OptionalRaw | UnsetType = UNSET
    usage: OptionalRaw = None
    attempts: list[AttemptInfo] | UnsetType = UNSET
    position: int | UnsetType = UNSET


class ChangedTask(Task, kw_only=True):
    """A task after a write; `created` where it was enqueued."""

    position: int
    created: bool | UnsetType = UNSET


class GetQuery(Request, kw_only=True):
    """`wait` until the task ends (or time is up: the task as it stands)."""

    wait: Wait | None = None
    min_position: Annotated[int, Meta(ge=0, le=2**63 - 1)] | None = None


Words: TypeAlias = str | list[str]
"""One, several in a list, or (but for tags) several with commas between."""


class Filter(Request, kw_only=True):
    """Which tasks: fields are and-ed; the values of queue, state and name or-ed, all tags must be there.

    `q` is a case-insensitive part of the id, the name, a tag or the error.
    """

    queue: Words | None = None
    state: Words | None = None
    name: Words | None = None
    tag: Words | None = None
    q: Label | None = None


class Search(Filter, kw_only=True):
    """A page of tasks. `sort`: created_at, run_at, finished_at or priority, with `-` before it descending."""

    sort: Sort | None = None
    limit: Batch | None = None
    after: str | None = None
    min_position: Annotated[int, Meta(ge=0, le=2**63 - 1)] | None = None


class TaskPage(Answer, kw_only=True):
    """Tasks, the cursor of the next page (absent on the last) and the position that they were read at."""

    tasks: list[Task]
    as_of: int
    next: str | None = None


class Patch(Request, kw_only=True):
    """What to change of a task that has not started. `null` is a payload; nothing else may be null."""

    priority: Priority | UnsetType = UNSET
    queue: Name | UnsetType = UNSET
    run_at: Instant | UnsetType = UNSET
    payload: Raw | UnsetType = UNSET
    tags: Tags | UnsetType = UNSET


class Cancel(Request, kw_only=True):
    """Cancel a task; with `lease_token` it is its holder's own outcome."""

    lease_token: str | None = None
    reason: Text | None = None


class Nothing(Request, kw_only=True):
    """A body without fields."""


class Sweep(Filter, kw_only=True):
    """A verb for many tasks: the filter's fields, or all of them inside `filter`."""

    filter: Filter | None = None
    reason: Text | None = None
    dry_run: bool | None = None


class SweepQuery(Request, kw_only=True):
    """`dry_run` only counts; the filter's scalars may stand here too."""

    dry_run: bool | None = None
    queue: str | None = None
    state: str | None = None
    name: str | None = None
    tag: str | None = None
    q: Label | None = None


class Swept(Answer, kw_only=True):
    """How many tasks matched and how many the verb changed (none with `dry_run`)."""

    matched: int
    changed: int
    position: int
