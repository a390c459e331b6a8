"""What a runner looks after beside its commits: deadlines, the beat, those who wait for long."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

from lineshaft.core.commands import Tick
from lineshaft.engine.timers import Beat, Deadline, Patience

if TYPE_CHECKING:
    from lineshaft.engine.runner import Runner


class Housekeeping:
    """The timers of a shard, looked at once for all commands of one iteration of the event loop."""

    def __init__(self, runner: Runner, *, confirm: Callable[[], None]) -> None:
        """`confirm` is called where a reply waits for the ownership to be confirmed."""
        self.planned = False
        """Whether it will look in this iteration; `plan` need not be called again."""
        self._runner = runner
        self._confirm = confirm
        self._deadline = Deadline(runner.clock, self._tick)
        self._patience = Patience(runner.clock, runner.intake, runner.limits.reply)
        self._beat = Beat(runner.clock, runner.intake)

    def plan(self) -> None:
        """Look at everything before this iteration is over."""
        self.planned = True
        asyncio.get_running_loop().call_soon(self._keep_house)

    def watch_over_request(self) -> None:
        """See to it that a request that was not answered at once is answered one day."""
        self._patience.begin()

    def stop(self) -> None:
        """Cancel all timers."""
        self._deadline.cancel()
        self._patience.cancel()
        self._beat.cancel()

    def _keep_house(self) -> None:
        self.planned = False
        runner = self._runner
        intake, shard = runner.intake, runner.intake.shard
        if runner.barrier.waits_for_ownership:
            self._confirm()
        if shard is not None and not intake.exclusive:
            due = shard.next_deadline(leases=not intake.stalled)
            self._deadline.set(due, now=intake.now, jumps=0 if runner.time is None else runner.time.jumps)
            self._beat.keep()

    def _tick(self) -> None:
        intake = self._runner.intake
        if not intake.exclusive:
            intake.internal(Tick(tenant="*", leases=not intake.stalled))
            self._runner.wake()
