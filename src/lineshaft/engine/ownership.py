"""Keeps an ownership alive that runs out, and gives it back in the end.

Where the store is exclusive to this process there is nothing to keep alive.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from lineshaft.engine.clock import Timer
from lineshaft.errors import Fenced

if TYPE_CHECKING:
    from lineshaft.engine.runner import Runner

_LOG = logging.getLogger("lineshaft.engine")


class Renewals:
    """Renews in the background before the ownership runs out, and at once where a reply waits for it."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner
        self._task: asyncio.Task[None] | None = None
        self._timer: Timer | None = None

    def start(self) -> None:
        """Begin to watch an ownership just acquired."""
        self._watch()

    def ask(self) -> None:
        """Renew now."""
        if self._task is None and self._runner.ownership is not None:
            self._task = asyncio.get_running_loop().create_task(self._renew())

    async def stop(self) -> None:
        """Renew no more."""
        if self._timer is not None:
            self._timer.cancel()
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    def _watch(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        ownership = self._runner.ownership
        if ownership is not None and ownership.valid_for is not None:
            self._timer = self._runner.clock.call_later(ownership.valid_for / 3000, self._look)

    def _look(self) -> None:
        self._timer = None
        ownership = self._runner.ownership
        if ownership is not None and ownership.valid_for is not None:
            if self._runner.barrier.valid_for < ownership.valid_for * 0.0007:
                self.ask()
            else:
                self._watch()  # a commit has confirmed it meanwhile

    async def _renew(self) -> None:
        try:
            while await self._renew_once() and self._runner.barrier.waits_for_ownership:
                pass
        finally:
            self._task = None
        self._watch()
        self._runner.wake()

    async def _renew_once(self) -> bool:
        """Return whether to go on; an unknown outcome is tried again."""
        runner, ownership = self._runner, self._runner.ownership
        attempt = 0
        while ownership is not None and ownership is runner.ownership:
            mark, sent = runner.barrier.mark, runner.clock.monotonic()
            try:
                await runner.store.renew(ownership)
            except Fenced as error:
                if ownership is runner.ownership:
                    runner.interrupt(error)
                return False
            except Exception:
                await runner.clock.sleep(runner.backoff(attempt))
                attempt += 1
                continue
            if ownership is runner.ownership:
                runner.confirm(sent, mark)
                runner.barrier.release()
                runner.intake.tidy()
                runner.wake()
            return True
        return False


async def give_back(runner: Runner) -> None:
    """Release the shard, so that whoever comes next need not wait; if the store does not answer, without."""
    if runner.ownership is None:
        return
    release = asyncio.ensure_future(runner.store.release(runner.ownership))
    impatience = runner.clock.call_later(runner.limits.close / 1000, lambda: _give_up(release))
    try:
        await release
    except (Exception, asyncio.CancelledError) as error:
        if not release.done():
            raise
        _LOG.warning("shard %d could not be given back: %r", runner.shard_number, error)
    finally:
        impatience.cancel()


def _give_up(task: asyncio.Future[None]) -> None:
    task.cancel()
