"""Forgets, once in a while, what the store need not keep any longer."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from lineshaft.core.commands import Pruned
from lineshaft.core.memory import PRUNE_MARGIN

if TYPE_CHECKING:
    from lineshaft.engine.runner import Runner

_LOG = logging.getLogger("lineshaft.engine")


class Pruning:
    """The pruning of one shard."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner
        self._loop: asyncio.Task[None] | None = None
        self._round: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Prune at every interval from now on."""
        if self._loop is None:
            self._loop = asyncio.get_running_loop().create_task(self._prune_at_intervals())

    async def stop(self) -> None:
        """Prune no more."""
        for task in (self._loop, self._round):
            if task is not None:
                task.cancel()
                await asyncio.wait([task])

    async def settled(self) -> None:
        """Wait for a round under way: counts loaded beside it could have it or not."""
        if self._round is not None:
            await asyncio.wait([self._round])

    async def _prune_at_intervals(self) -> None:
        runner = self._runner
        while True:
            await runner.clock.sleep(runner.limits.prune_every / 1000)
            if runner.state != "serving" or runner.intake.stalled:
                continue
            runner.intake.now()  # so that a jump of the wall clock is believed some day, though nobody asks
            # A shard that never held anything is left alone: most of an idle coordinator's are of that kind.
            if runner.barrier.durable:
                self._round = asyncio.get_running_loop().create_task(self.run_once())
                try:
                    await asyncio.wait([self._round])
                finally:
                    self._round = None

    async def run_once(self) -> None:
        """Prune what is due, in portions."""
        runner, intake = self._runner, self._runner.intake
        now = intake.now()
        # What was done to a finished task before its time was up may not be durable yet.
        oldest = intake.journal.oldest
        before = min(now, now if oldest is None else oldest) - PRUNE_MARGIN
        generation, ownership = intake.generation, runner.ownership
        while generation == intake.generation and ownership is not None:
            try:
                removed = await runner.store.prune(
                    ownership, before=before, log_before=now - runner.limits.log_retention
                )
            except Exception as error:
                _LOG.warning("shard %d could not be pruned: %s", runner.shard_number, error)
                return
            if not removed:
                return
            runner.metrics.pruned += sum(census.count for census in removed)
            if generation == intake.generation:
                intake.internal(Pruned(tenant="*", removed=tuple(removed)))
