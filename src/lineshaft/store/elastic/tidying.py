"""Now and then, beside everything else: drop what nobody needs any more, index by index."""

from __future__ import annotations

import asyncio
import logging
import time

from lineshaft.store.elastic.client import Client
from lineshaft.store.elastic.lifecycle import HistoryLifecycle
from lineshaft.store.elastic.months import Months
from lineshaft.store.elastic.names import Names
from lineshaft.store.elastic.spent_months import drop_spent

EVERY = 3_600.0
"""Seconds from one time to the next, and before the first."""

_log = logging.getLogger(__name__)


class Tidying:
    """Drops months of which no task is left, and old events where the cluster has no policy for that."""

    def __init__(
        self, client: Client, names: Names, months: Months, lifecycle: HistoryLifecycle | None
    ) -> None:
        self._client = client
        self._names = names
        self._months = months
        self._lifecycle = lifecycle
        self._last = time.monotonic()
        self._task: asyncio.Task[None] | None = None

    def notice(self, shards: int) -> None:
        """Begin in the background if it is time."""
        running = self._task is not None and not self._task.done()
        if not running and time.monotonic() - self._last >= EVERY:
            self._last = time.monotonic()
            self._task = asyncio.get_running_loop().create_task(self._run(shards), name="lineshaft-tidying")

    async def run_once(self, shards: int, now: int) -> list[str]:
        """Do it; return the months and the indices of the history that are gone. `now` in milliseconds."""
        gone = await drop_spent(self._client, self._names, self._months, shards=shards, now=now)
        if self._lifecycle is not None:
            gone += await self._lifecycle.sweep(now)
        return gone

    async def stop(self) -> None:
        """Begin no more, and end what runs."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])

    async def _run(self, shards: int) -> None:
        try:
            gone = await self.run_once(shards, time.time_ns() // 1_000_000)
        except Exception:
            _log.exception("what is past its time stays for now")
            return
        if gone:
            _log.info("nothing was left in %s: deleted", ", ".join(gone))
