"""A task in the hands of this worker, from the claim until its outcome is acknowledged."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from lineshaft.sdk.context import Context
from lineshaft.sdk.outcomes import Outcome

if TYPE_CHECKING:
    from lineshaft.sdk.pool import Pool
    from lineshaft.wire.workers import ClaimedTask


class Held:
    """One lease and what is being done under it."""

    __slots__ = (
        "acknowledged",
        "beat_at",
        "context",
        "interruptible",
        "interval",
        "job",
        "lost",
        "pool",
        "reported",
        "running",
        "slot",
        "task",
        "timer",
        "verdict",
    )

    def __init__(self, task: ClaimedTask, context: Context, pool: Pool) -> None:
        self.task = task
        self.context = context
        self.pool = pool
        self.job: asyncio.Task[None] | None = None
        """The handler at work, once it is."""
        self.running = False
        self.interruptible = True
        """Coroutines can be interrupted; threads only see `ctx.cancelled`."""
        self.verdict: Outcome | None = None
        """The outcome if the handler is interrupted; None where nobody would take one (the lease is lost)."""
        self.reported = False
        """An outcome is on its way: what the handler may still say comes too late."""
        self.acknowledged = False
        """The coordinator has taken the outcome, or somebody else has the task."""
        self.lost = False
        self.slot = -1
        self.timer: asyncio.TimerHandle | None = None
        self.interval = max(float(task.lease_ttl) / 3, 0.1)
        """Seconds between heartbeats."""
        self.beat_at = 0.0
        """When the next heartbeat is due, on the monotonic clock."""

    def interrupt(self, verdict: Outcome | None, reason: str | None) -> None:
        """Make the handler end early, with `verdict` unless it comes to an end of its own."""
        self.verdict = verdict
        self.context._stop(reason)
        if self.interruptible and self.job is not None:
            self.job.cancel()
