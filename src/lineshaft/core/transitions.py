"""Every legal move of a task, in one table.

                     run_at in the future                    (retry with backoff)
       enqueue ──► scheduled ──────────► queued ◄───────────────────────────────┐
            └────► waiting ────────────►   │  claim                             │
       (dependencies, signals, timers)     ▼                                    │
                                        claimed ───── start ───────► running ───┤ fail, lease lost
                                           │                              │     │
                                           └──────────────┬───────────────┘     │
                                                          ▼                     │
                                       completed · failed · cancelled ── retry ─┘

An outcome reported of a claimed task begins it first, so `completed` is reached from `running` only.
"""

from __future__ import annotations

from lineshaft.core.task import State

LEGAL: dict[State | None, frozenset[State]] = {
    None: frozenset({State.SCHEDULED, State.WAITING, State.QUEUED}),
    State.SCHEDULED: frozenset({State.QUEUED, State.CANCELLED}),
    State.WAITING: frozenset({State.SCHEDULED, State.QUEUED, State.CANCELLED}),
    State.QUEUED: frozenset({State.CLAIMED, State.SCHEDULED, State.CANCELLED}),
    State.CLAIMED: frozenset({State.RUNNING, State.QUEUED, State.SCHEDULED, State.FAILED, State.CANCELLED}),
    State.RUNNING: frozenset({State.COMPLETED, State.FAILED, State.CANCELLED, State.QUEUED, State.SCHEDULED}),
    State.COMPLETED: frozenset({State.QUEUED}),
    State.FAILED: frozenset({State.QUEUED}),
    State.CANCELLED: frozenset({State.QUEUED}),
}
"""From a state (None: not there yet) to those that may follow; only a manual retry leaves a terminal one."""


class IllegalMove(AssertionError):
    """A rule of the shard tried a move that is not in the table: a bug, never an answer to a request."""


def check_move(before: State | None, after: State) -> None:
    """Raise `IllegalMove` unless the table has the move."""
    if after not in LEGAL[before]:
        raise IllegalMove(f"{before!r} -> {after!r}")
