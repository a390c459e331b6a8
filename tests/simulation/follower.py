"""Somebody who follows the feed of changes over every crash, and must see each one, in order."""

from __future__ import annotations

import asyncio
import contextlib

from lineshaft.core.batch import Change
from lineshaft.engine.engine import Engine
from lineshaft.store.base import Log
from tests.simulation.line import Line


class Follower:
    def __init__(self, line: Line, *, tenant: str) -> None:
        self._line = line
        self.tenant = tenant
        self.seen: list[tuple[int, Change]] = []
        self.cursor = 0
        self.waiting: tuple[Engine, asyncio.Future[int]] | None = None
        """Where it waits to be told of more, if it does."""

    async def run(self) -> None:
        """Read what there is, wait to be told of more, for ever."""
        while True:
            log: Log = await self._line.read(self.tenant, self._next, f"follower of {self.tenant}")
            for record in log.records:
                self.seen += [(record.position, change) for change in record.changes]
                self.cursor = record.position

    async def _next(self, engine: Engine) -> Log:
        told = engine.changed(self.tenant, self.cursor)
        self.waiting = (engine, told)
        with contextlib.suppress(TimeoutError):
            # Long, so that who is not told of a change is found out by being late.
            await asyncio.wait_for(told, 600.0)
        self.waiting = None
        return await engine.log(self.tenant, self.cursor, limit=20)
