"""The task and the values it is made of.

Instants are milliseconds since the epoch, durations milliseconds, fixed when the task is enqueued. A task
that has never been claimed carries no `Run`, and its `Spec` is shared with every task enqueued alike: a
million queued tasks are a million small entries. `Task` and `Run` are mutable and belong to the shard;
everything beneath them is frozen, so `snapshot` (two shallow copies) is a full one.
"""

from __future__ import annotations

import enum

import msgspec

DEFAULT_LEASE = 30_000
MIN_LEASE = 1_000
MAX_LEASE = 24 * 3_600_000
DEFAULT_RETENTION = 7 * 24 * 3_600_000
MAX_LOST_LEASES = 5
FINGERPRINTS = 1 << 60
"""Fingerprints are below: integers of two Python digits, 32 bytes of memory; more would take 48."""
KEPT_ATTEMPTS = 20
"""Attempts kept inline; older ones are only counted (`Run.dropped_attempts`)."""


class State(enum.IntEnum):
    """Where a task is in its life; the legal moves are in `transitions.py`."""

    SCHEDULED = 0
    WAITING = 1
    QUEUED = 2
    CLAIMED = 3
    RUNNING = 4
    COMPLETED = 5
    FAILED = 6
    CANCELLED = 7

    @property
    def word(self) -> str:
        """Return the name as it stands on the wire, such as `"queued"`."""
        return STATE_WORDS[self]

    @property
    def terminal(self) -> bool:
        """Tell whether nothing but a manual retry leads out of this state."""
        return self >= State.COMPLETED


STATE_WORDS = {state: state.name.lower() for state in State}
STATES_BY_WORD = {word: state for state, word in STATE_WORDS.items()}
OPEN = (State.SCHEDULED, State.WAITING, State.QUEUED, State.CLAIMED, State.RUNNING)
TERMINAL = (State.COMPLETED, State.FAILED, State.CANCELLED)


class RetryPolicy(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """How long to wait before the next attempt: `backoff` is exponential, linear or fixed."""

    backoff: str = "exponential"
    base: int = 1_000
    factor: float = 2.0
    cap: int = 3_600_000
    jitter: float = 0.1


class Affinity(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """What a worker must have: capabilities (sorted) and amounts of resources (sorted by name)."""

    capability: tuple[str, ...] = ()
    resources: tuple[tuple[str, float], ...] = ()


class Spec(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """What a task was enqueued with and shares with others like it."""

    name: str
    queue: str = "default"
    priority: int = 0
    max_retries: int = 3
    retry_policy: RetryPolicy = RetryPolicy()
    lease: int = DEFAULT_LEASE
    timeout: int | None = None
    affinity: Affinity = Affinity()
    retention: int = DEFAULT_RETENTION
    result_ttl: int | None = None


class Lease(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """The right of one worker to a task until `expires_at`; `fence` rises with every lease of the shard."""

    fence: int
    ttl: int
    claimed_at: int
    expires_at: int
    worker_id: str | None = None
    incarnation: str | None = None
    claim_id: str | None = None
    started_at: int | None = None
    renewals: int = 0
    """How many loads in a row renewed it without hearing of the worker; capped, so a dead one is noticed."""


class Attempt(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """A lease that has ended, and how: one of the words in `ATTEMPT_OUTCOMES`."""

    number: int
    generation: int
    fence: int
    worker_id: str | None
    claimed_at: int
    started_at: int | None
    ended_at: int
    outcome: str
    error: bytes | None = None


ATTEMPT_OUTCOMES = ("completed", "failed", "timeout", "lease_lost", "released", "snoozed", "cancelled")


class Settled(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """The outcome that ended the last lease, kept so that its repetition gets the same answer."""

    fence: int
    digest: bytes
    state: State
    run_at: int | None
    position: int


class Progress(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """How far the worker says it is."""

    done: float
    total: float | None = None
    message: str | None = None
    at: int = 0


class CancelRequest(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """Somebody asked for the running task to end; its worker is told by a directive."""

    at: int
    reason: str | None = None


class Ending(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """How a generation ended, and when somebody had the task run again."""

    at: int
    state: State
    reason: str | None
    retried_at: int


class Run(msgspec.Struct, gc=False, array_like=True):
    """What happened to a task since it was first claimed (or ended)."""

    attempt: int = 0
    generation: int = 1
    lost_leases: int = 0
    lease: Lease | None = None
    settled: Settled | None = None
    cancel: CancelRequest | None = None
    progress: Progress | None = None
    has_checkpoint: bool = False
    started_at: int | None = None
    finished_at: int | None = None
    error: bytes | None = None
    reason: str | None = None
    """Why it ended as it did, where somebody or a rule said so: a cancel's reason, "expired", "timeout"."""
    has_result: bool = False
    result_expires_at: int | None = None
    prune_at: int | None = None
    attempts: tuple[Attempt, ...] = ()
    dropped_attempts: int = 0
    usage: bytes | None = None
    endings: tuple[Ending, ...] = ()
    """How the last generations before this one ended."""


class Task(msgspec.Struct, gc=False, array_like=True):
    """One row: small, mutable, owned by its shard; payload and result are blobs of their own.

    `seq` is the arrival number in the shard and the key of the row and of its blobs.
    """

    seq: int
    tenant: str
    id: str
    spec: Spec
    state: State
    run_at: int
    created_at: int
    expires_at: int | None = None
    tags: tuple[str, ...] = ()
    metadata: bytes | None = None
    traceparent: str | None = None
    fingerprint: int = 0
    """Digest of the enqueue body, for `?conflict=error`; 0 where the coordinator made the id."""
    payload_size: int = 0
    """Bytes of the payload, by which one claim's answer is bounded; 0 where it is null."""
    run: Run | None = None

    @property
    def attempt(self) -> int:
        """Return the number of the attempt under way or last made in this generation; 0 before the first."""
        return 0 if self.run is None else self.run.attempt

    @property
    def lease(self) -> Lease | None:
        """Return the live lease, if any."""
        return None if self.run is None else self.run.lease

    def snapshot(self) -> Task:
        """Return a copy that later changes of the shard do not touch."""
        twin: Task = self.__copy__()  # type: ignore[attr-defined]  # what copy.copy calls, without its search
        if twin.run is not None:
            twin.run = twin.run.__copy__()  # type: ignore[attr-defined]
        return twin


def lease_token(task: Task) -> str:
    """Return the opaque token of the task's live lease; it names the row too, so no two are ever equal."""
    lease = task.lease
    assert lease is not None
    return f"{lease.fence:x}-{task.seq:x}"
