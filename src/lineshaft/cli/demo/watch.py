"""Watching the demo's work: how much is done, that it moves, and that every process lives that should."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from lineshaft.cli.demo.work import Coordinator
from lineshaft.cli.processes import Child, Processes
from lineshaft.cli.trouble import Trouble

STALL = 60.0
"""Seconds without any movement after which something must be wrong."""
_POLL = 0.05


class Watch:
    """Follows how many of `total` tasks have ended; `show` is told whenever that changes."""

    def __init__(
        self, coordinator: Coordinator, processes: Processes, total: int, show: Callable[[int], None]
    ) -> None:
        self._coordinator = coordinator
        self._processes = processes
        self._total = total
        self._show = show
        self._done = -1
        self._moved_at = time.monotonic()

    @property
    def over(self) -> bool:
        """Whether all have ended, as of the last look."""
        return self._done >= self._total

    async def until(self, done: int) -> None:
        """Wait until so many have ended. Raises Trouble where nothing moves or a process ends."""
        while self._done < done:
            await self.look()

    async def until_at_work(self, worker: Child) -> None:
        """Wait for a moment in which this worker holds tasks, or until everything has ended."""
        while not self.over:
            seen = await self._coordinator.workers()
            if worker.pid in seen and seen[worker.pid].held:
                return
            await self.look()

    async def look(self) -> None:
        """Look once, after a short pause."""
        await asyncio.sleep(_POLL)
        counts = await self._coordinator.counts()
        ended = sum(counts.get(state, 0) for state in ("completed", "failed", "cancelled"))
        if ended != self._done:
            self._done, self._moved_at = ended, time.monotonic()
            self._show(ended)
        elif time.monotonic() - self._moved_at > STALL:
            raise Trouble(
                f"nothing has moved for {STALL:.0f} s: {ended} of {self._total} tasks have ended",
                hint="run it again; where it stands still every time, tell us what `lineshaft doctor` says",
            )
        self._processes.check()

    def expect_end_of(self, child: Child) -> None:
        """Do not take the end of this process for trouble."""
        self._processes.forget(child)
