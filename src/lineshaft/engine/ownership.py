"""Gives an ownership back in the end."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lineshaft.engine.runner import Runner

_LOG = logging.getLogger("lineshaft.engine")


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
