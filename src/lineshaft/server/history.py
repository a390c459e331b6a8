"""What happened to a task, told from its row."""

from __future__ import annotations

from lineshaft.core.task import Attempt, Lease, State, Task
from lineshaft.server import views
from lineshaft.values.instants import format_instant
from lineshaft.wire import AttemptInfo, Event, History


def history(row: Task) -> History:
    """Return a task's attempts, and what happened to it in order of time."""
    run = row.run
    attempts = views.attempts(row)
    events = [_event(row.created_at, "enqueued"), *_of_attempts(row, attempts)]
    if run is not None:
        for ending in run.endings:
            if not _told(row, ending.at, ending.state):
                events.append(_event(ending.at, ending.state.word, reason=ending.reason))
            events.append(_event(ending.retried_at, "retried"))
        if run.cancel is not None:
            events.append(_event(run.cancel.at, "cancel_requested", reason=run.cancel.reason))
        if run.finished_at is not None and not _told(row, run.finished_at, row.state):
            events.append(_event(run.finished_at, row.state.word, reason=run.reason))
    events.sort(key=lambda event: event.at)
    return History(
        task_id=row.id,
        state=views.word(row.state),
        generation=1 if run is None else run.generation,
        attempts=attempts,
        events=events,
        dropped_attempts=0 if run is None else run.dropped_attempts,
    )


def _of_attempts(row: Task, shown: list[AttemptInfo]) -> list[Event]:
    leases: list[Attempt | Lease] = [] if row.run is None else list(row.run.attempts)
    if row.lease is not None:
        leases.append(row.lease)
    events = []
    for lease, attempt in zip(leases, shown, strict=True):
        events.append(_event(lease.claimed_at, "claimed", attempt=attempt))
        if lease.started_at is not None:
            events.append(_event(lease.started_at, "started", attempt=attempt))
        if isinstance(lease, Attempt):
            events.append(_event(lease.ended_at, lease.outcome, attempt=attempt))
    return events


def _event(at: int, event: str, *, attempt: AttemptInfo | None = None, reason: str | None = None) -> Event:
    return Event(
        at=format_instant(at),
        event=event,
        attempt=None if attempt is None else attempt.attempt,
        worker_id=None if attempt is None else attempt.worker_id,
        reason=reason,
    )


def _told(row: Task, ended_at: int, state: State) -> bool:
    """Whether the end was that of an attempt; a waiting task that is cancelled, say, has none."""
    attempts = () if row.run is None else row.run.attempts
    return any(attempt.ended_at == ended_at and attempt.outcome == state.word for attempt in attempts)
