"""Writes documents behind the log: the last state of each thing, many at once, until they are there.

A task that is enqueued and completed while it waits here is written once. Nothing leaves memory before the
documents have it for good. The checkpoint follows from time to time; what is behind it is written again by
whoever takes the shard over.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import TypeVar

from lineshaft.errors import Fenced, LineshaftError, Unavailable
from lineshaft.store.elastic import bulk, setup
from lineshaft.store.elastic.client import Client, encode
from lineshaft.store.elastic.documents import Documents, TaskDocument, bare_document, unpack
from lineshaft.store.elastic.finding import Finder
from lineshaft.store.elastic.history import History
from lineshaft.store.elastic.months import Months
from lineshaft.store.elastic.names import Names, month_of
from lineshaft.store.elastic.overlay import Overlay
from lineshaft.store.elastic.shard import Checkpoint, Shard

_LOG = logging.getLogger("lineshaft.store")

_Item = TypeVar("_Item")

LINGER = 3.0
"""Seconds that rows wait for others, and for later states of their own."""
AT_ONCE = 2_000
"""Documents in one request."""
FULL = 50_000
"""Rows that do not wait any longer."""
CHECKPOINT_EVERY = 10.0
CHECKPOINT_ROWS = 50_000
"""Seconds and rows after which the checkpoint follows."""
LONGEST_PAUSE = 5.0

MOST_ROWS = 200_000
MOST_BYTES = 256 * 1024 * 1024
"""What may wait in memory, over all shards; beyond it new tasks are refused."""


class Projector:
    """The projection of one shard."""

    def __init__(
        self,
        shard: Shard,
        client: Client,
        names: Names,
        *,
        months: Months,
        finder: Finder,
        history: History | None,
        confirm: Callable[[], Awaitable[None]],
        gate: asyncio.Semaphore,
    ) -> None:
        self.trouble: str | None = None
        """Why nothing is written just now."""
        self._shard = shard
        self._client = client
        self._names = names
        self._documents = Documents(names)
        self._months = months
        self._finder = finder
        self._history = history
        self._gate = gate
        self._confirm = confirm
        self._wake = asyncio.Event()
        self._hurry = asyncio.Event()
        self._written = asyncio.Condition()
        self._task: asyncio.Task[None] | None = None
        self._checkpointed = shard.projected
        self._unmarked = 0
        self._last: Checkpoint | None = None
        self._reached = Checkpoint()
        self._last_checkpoint_at = time.monotonic()

    def notice(self) -> None:
        """There may be something new."""
        if self._task is None:
            name = f"lineshaft-documents-{self._shard.number}"
            self._task = asyncio.get_running_loop().create_task(self._run(), name=name)
        self._wake.set()
        if len(self._shard.fresh) >= FULL:
            self._hurry.set()

    async def reach(self, slot: int) -> None:
        """Return once the documents have everything up to a slot. Raises `Unavailable` where that fails."""
        while self._shard.projected < slot:
            self._hurry.set()
            self.notice()
            async with self._written:
                if self._shard.projected >= slot:
                    return
                await self._written.wait()
            if not self._shard.attached:
                raise Unavailable("the shard is another's by now")
            if self._shard.projected < slot and self.trouble is not None:
                raise Unavailable(self.trouble, retry_after=1.0)

    async def checkpoint(self) -> None:
        """Let the checkpoint follow what is written."""
        last = self._last
        if last is None or last.slot == self._checkpointed:
            return
        document = setup.checkpoint_document(self._shard.number, last)
        answer = await self._client.send(
            "PUT",
            f"/{self._names.control}/_doc/{setup.checkpoint_id(self._shard.number)}"
            f"?version={last.slot}&version_type=external_gte",
            encode(document),
        )
        if not answer.ok and answer.status != 409:
            raise Unavailable(f"the checkpoint cannot be written ({answer.status})")
        self._checkpointed = last.slot
        self._unmarked = 0
        self._last_checkpoint_at = time.monotonic()

    async def stop(self) -> None:
        """Write no more."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])

    async def _run(self) -> None:
        pause = 0.1
        while self._task is not None:
            await self._wait()
            try:
                await self._write_all()
                await self._checkpoint_at_times()
                pause, self.trouble = 0.1, None
            except Fenced as error:
                # Whoever has the shard now writes what is to be written.
                _LOG.warning("documents of shard %d are another's: %s", self._shard.number, error.reason)
                self._shard.attached = False
                self._shard.reset(Checkpoint())
            except Exception as error:
                reason = error.reason if isinstance(error, LineshaftError) else repr(error)
                bug = None if isinstance(error, LineshaftError) else error
                if self.trouble is None or bug is not None:
                    _LOG.warning("documents of shard %d wait: %s", self._shard.number, reason, exc_info=bug)
                self.trouble = f"the documents cannot be written: {reason}"
                await self._tell()
                await asyncio.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE)
                continue  # whoever waits since hears of the next try
            await self._tell()

    async def _tell(self) -> None:
        async with self._written:
            self._written.notify_all()

    async def _wait(self) -> None:
        shard = self._shard
        if not shard.fresh and not shard.writing and shard.projected == shard.head:
            self._wake.clear()
            due = self._last is not None and self._last.slot != self._checkpointed
            if await self._set_within(self._wake, CHECKPOINT_EVERY if due else None):
                return
        if not shard.writing:
            await self._set_within(self._hurry, LINGER)
        self._hurry.clear()

    async def _set_within(self, event: asyncio.Event, seconds: float | None) -> bool:
        """Wait for an event; tell whether time was up. (`wait_for` may swallow a cancellation.)"""
        timer = None if seconds is None else asyncio.get_running_loop().call_later(seconds, event.set)
        try:
            await event.wait()
        finally:
            if timer is not None:
                timer.cancel()
        return timer is not None and asyncio.get_running_loop().time() >= timer.when()

    async def _checkpoint_at_times(self) -> None:
        late = time.monotonic() - self._last_checkpoint_at >= CHECKPOINT_EVERY
        if late or self._unmarked >= CHECKPOINT_ROWS:
            await self.checkpoint()

    async def _write_all(self) -> None:
        shard = self._shard
        if shard.writing:
            overlay, reached = shard.writing, self._reached  # what failed before
        else:
            reached = self._reached = shard.checkpoint()
            overlay = shard.take()
        if overlay:
            async with self._gate:
                await self._write(overlay)
        if shard.writing is not overlay:
            return  # the shard was begun anew meanwhile
        shard.written(reached.slot)
        self._unmarked += len(overlay)
        self._last = reached

    async def _write(self, overlay: Overlay) -> None:
        pairs: list[bulk.Pair] = []
        for months, some in self._pairs(overlay):
            await self._months.make(months)
            pairs += some
            await asyncio.sleep(0)  # commits come first
            while len(pairs) >= AT_ONCE:
                await self._send(pairs[:AT_ONCE])
                pairs = pairs[AT_ONCE:]
        pairs += await self._tombstones(overlay)
        if pairs:
            await self._send(pairs)
        if self._history is not None:
            batches, overlay.history = overlay.history, []  # it keeps what it could not write
            for batch, again in batches:
                self._history.add(self._shard.number, batch, again=again)
            await self._history.flush()

    def _pairs(self, overlay: Overlay) -> Iterator[tuple[set[str], list[bulk.Pair]]]:
        number, make = self._shard.number, self._documents
        for part in _portions(list(overlay.tasks.values())):
            months = {month_of(task.created_at) for _, task in part}
            yield months, [make.task(number, slot, task) for slot, task in part]
        for some in _portions(list(overlay.blobs.items())):
            months = {of if isinstance(of, str) else month_of(of.created_at) for _, (_, _, of) in some}
            yield months, [make.value(number, slot, key, data, of) for key, (slot, data, of) in some]
        yield set(), [make.record(number, slot, record) for slot, record in overlay.records.values()]

    async def _tombstones(self, overlay: Overlay) -> list[bulk.Pair]:
        """Return what says of forgotten tasks that they are no more, wherever they are or may arrive."""
        if not overlay.forgotten:
            return []
        idents = [ident for _, ident, _ in overlay.forgotten.values()]
        places: set[tuple[str, tuple[str, str], int]] = set()
        found = await self._finder.places(idents)
        for seq, (slot, ident, month) in overlay.forgotten.items():
            for where in [month] if month is not None else []:
                places.add((where, ident, slot))
            for where, present in found[ident]:
                if present == seq:
                    places.add((where, ident, slot))
        await self._months.make({month for month, _, _ in places})
        taken = {(month_of(task.created_at), ident) for ident, (_, task) in overlay.tasks.items()}
        return [
            self._documents.task_gone(month, ident, slot)
            for month, ident, slot in sorted(places)
            if (month, ident) not in taken
        ]

    async def _send(self, pairs: list[bulk.Pair]) -> None:
        pause = 0.05
        while pairs:
            try:
                pairs = await bulk.write(self._client, pairs, barely=self._barely)
            except bulk.MissingIndex:
                await self._confirm()
                await self._months.make_again()
            self._finder.stale()
            if pairs:
                await asyncio.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE)

    def _barely(self, pair: bulk.Pair) -> bulk.Pair | None:
        action, document = pair
        if not isinstance(document, TaskDocument) or document.row is None or document.tenant is None:
            return None
        return action, bare_document(self._shard.number, document.slot, unpack(document.row))


def _portions(items: list[_Item], size: int = 200) -> Iterator[list[_Item]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
