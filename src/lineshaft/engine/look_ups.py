"""Rows that commands need and that are not in memory: one read for all who ask meanwhile.

While a read is under way nothing may be evicted from memory: it might say "absent" of a task that was
enqueued, finished and evicted since it began. With that rule memory always wins over what a read brings back.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping
from typing import Protocol

from lineshaft.core.task import Task
from lineshaft.engine.answers import unreadable
from lineshaft.engine.handle import Handle
from lineshaft.engine.metrics import Metrics
from lineshaft.errors import LineshaftError
from lineshaft.store.base import Store

_KEYS_AT_ONCE = 2_000


class Applies(Protocol):
    """The part of the intake that look-ups need."""

    generation: int

    def apply(self, handle: Handle, found: Mapping[tuple[str, str], Task | None] | None = None) -> None:
        """Apply again, with what was found."""

    def put_back(self, handle: Handle) -> None:
        """Take back a command whose shard has gone."""

    def drop_unapplied(self, handle: Handle, error: LineshaftError) -> None:
        """Answer a command that was never applied."""

    def looked_up(self) -> None:
        """A read is over; the next has not begun."""


class LookUps:
    """Commands of one shard that wait for rows."""

    def __init__(self, store: Store, shard: int, metrics: Metrics) -> None:
        self._store = store
        self._shard = shard
        self._metrics = metrics
        self._waiting: deque[tuple[int, Handle]] = deque()
        self._reading: list[tuple[int, Handle]] = []
        self._task: asyncio.Task[None] | None = None

    @property
    def idle(self) -> bool:
        """Tell whether nothing waits and nothing is being read."""
        return self._task is None

    @property
    def reading(self) -> bool:
        """Tell whether a read is under way."""
        return bool(self._reading)

    @property
    def handles(self) -> list[Handle]:
        """Return who waits."""
        return [handle for _, handle in (*self._reading, *self._waiting)]

    def add(self, handle: Handle, intake: Applies) -> None:
        """Look up what the handle's `keys` name and let the intake apply its command again."""
        self._waiting.append((intake.generation, handle))
        if self._task is None:
            name = f"lineshaft-look-ups-{self._shard}"
            self._task = asyncio.get_running_loop().create_task(self._run(intake), name=name)

    async def settled(self) -> None:
        """Wait until nothing waits."""
        while self._task is not None:
            await asyncio.wait([self._task])

    async def stop(self) -> None:
        """Read no more; whoever waits was answered."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _run(self, intake: Applies) -> None:
        try:
            while self._waiting:
                self._take()
                await self._read_and_apply(intake)
        finally:
            self._task = None
        intake.looked_up()

    def _take(self) -> None:
        size = 0
        while self._waiting and (not size or size + len(self._waiting[0][1].keys) <= _KEYS_AT_ONCE):
            self._reading.append(self._waiting.popleft())
            size += len(self._reading[-1][1].keys)

    async def _read_and_apply(self, intake: Applies) -> None:
        keys = list(dict.fromkeys(key for _, handle in self._reading for key in handle.keys))
        self._metrics.look_ups += 1
        self._metrics.looked_up_keys += len(keys)
        try:
            found = dict(zip(keys, await self._store.get(self._shard, keys), strict=True))
        except Exception as error:
            reading, self._reading = self._reading, []
            for _, handle in reading:
                intake.drop_unapplied(handle, _again(error))
            return
        reading, self._reading = self._reading, []
        for generation, handle in reading:
            if generation != intake.generation:
                intake.put_back(handle)
            else:
                intake.apply(handle, found)
        intake.looked_up()


def _again(error: Exception) -> LineshaftError:
    answer = unreadable(error)
    return type(answer)(answer.reason, retry_after=answer.retry_after or 1.0)
