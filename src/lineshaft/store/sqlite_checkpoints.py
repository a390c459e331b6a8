"""Writes the log back into the database beside the commits, in a thread of its own.

SQLite would do it within the commit that makes the log long enough: of commits of 200 tasks on a busy machine
the slowest then took 130 to 280 ms, beside this thread 80 to 96. The writer still does it where this falls
behind, since the log begins anew only when all of it was written back and nobody reads it.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import Callable

from lineshaft.core.batch import Batch
from lineshaft.store.sqlite_specs import Connection
from lineshaft.store.sqlite_thread import ConnectionThread

ROWS = 8_000
"""Rows written until the log is written back; where ids are random, each is about a page of its own."""

_ROWS_OF_ANY = 8

_LOG = logging.getLogger("lineshaft.store")


class Checkpoints:
    """Count what commits write, and have it written back now and then."""

    def __init__(self, connect: Callable[[], Connection]) -> None:
        self.thread = ConnectionThread("store-checkpoints", connect)
        self._rows = 0
        self._under_way: asyncio.Task[None] | None = None

    def committed(self, batch: Batch) -> None:
        """A batch was committed; nothing is awaited here."""
        self._rows += _ROWS_OF_ANY + len(batch.tasks) + len(batch.blobs)
        if self._rows >= ROWS and self._under_way is None:
            self._rows = 0
            self._under_way = asyncio.get_running_loop().create_task(self._write_back())

    async def stop(self) -> None:
        """Wait for what is under way, and end the thread."""
        if self._under_way is not None:
            await asyncio.wait([self._under_way])
        await self.thread.stop()

    async def _write_back(self) -> None:
        try:
            await self.thread.run(_write_back)
        except Exception as error:
            _LOG.warning("the write-ahead log could not be written back, commits will try: %s", error)
        finally:
            self._under_way = None


def _write_back(connection: sqlite3.Connection) -> None:
    # Passive: waits for nobody and lets nobody wait.
    connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
