"""What is told of the course of tasks: a history, why one does not run, and the feed of changes."""

from __future__ import annotations

from lineshaft.wire.grammar import Wait
from lineshaft.wire.messages import Answer, Batch, Instant, Request, StateWord
from lineshaft.wire.tasks import AttemptInfo


class Event(Answer, kw_only=True):
    """Something that happened to a task: enqueued, claimed, started, finished, or how an attempt ended."""

    at: Instant
    event: str
    attempt: int | None = None
    worker_id: str | None = None
    reason: str | None = None


class History(Answer, kw_only=True):
    """A task's attempts (the newest 20; older ones are counted) and what happened, in order of time."""

    task_id: str
    state: StateWord
    generation: int
    attempts: list[AttemptInfo]
    events: list[Event]
    dropped_attempts: int = 0


class Reason(Answer, kw_only=True):
    """One cause that keeps a task from running: `code` for programs, `detail` for people."""

    code: str
    detail: str
    until: Instant | None = None
    missing: list[str] | None = None


class Explanation(Answer, kw_only=True):
    """Why a task is not running, and about how many stand before it."""

    task_id: str
    state: StateWord
    reasons: list[Reason]
    ahead: int


class ChangesQuery(Request, kw_only=True):
    """Follow from cursor `after`, waiting up to `wait` for the next change."""

    after: str | None = None
    wait: Wait | None = None
    limit: Batch | None = None


class TaskChange(Answer, kw_only=True):
    """One move of one task; `state` is "deleted" for one that was forgotten."""

    task_id: str
    state: str
    queue: str
    name: str
    at: Instant
    attempt: int = 0
    reason: str | None = None


class Changes(Answer, kw_only=True):
    """Changes in order, and the cursor to go on from."""

    changes: list[TaskChange]
    next: str
