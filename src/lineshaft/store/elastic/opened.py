"""What is there of a store on a cluster while it is open: its connections, its shards and who writes them."""

from __future__ import annotations

import asyncio
import logging
import os
import time

from lineshaft.errors import Fenced, LineshaftError
from lineshaft.store.base import StoreCorrupt
from lineshaft.store.elastic import setup
from lineshaft.store.elastic.address import Address
from lineshaft.store.elastic.client import Client
from lineshaft.store.elastic.finding import Finder
from lineshaft.store.elastic.generations import Generations
from lineshaft.store.elastic.history import History, HistoryNames
from lineshaft.store.elastic.lifecycle import HistoryLifecycle
from lineshaft.store.elastic.months import Months
from lineshaft.store.elastic.names import Names
from lineshaft.store.elastic.projector import Projector
from lineshaft.store.elastic.roster import Rosters
from lineshaft.store.elastic.shard import Shard
from lineshaft.store.elastic.slots import GenerationGone, Slots
from lineshaft.store.elastic.tidying import Tidying
from lineshaft.store.elastic.writer import Writer

BULKS = 2
"""Bulk requests in flight at most, over all shards."""

TEND_EVERY = 60.0
"""Seconds between looks at how large the log has become."""

_LOG = logging.getLogger("lineshaft.store")


class Opened:
    """What is there while the store is open."""

    def __init__(self, address: Address) -> None:
        self.pid = os.getpid()
        self.address = address
        self.names = Names(address.prefix)
        self.client = Client(address)
        self.slots = Slots(self.client, self.names)
        self.writer = Writer(self.slots)
        self.months = Months(self.client, self.names)
        self.finder = Finder(self.client, self.names, self.months)
        self.generations = Generations(self.client, self.names)
        self.writer.next_generation = self.generations.next_of
        self.rosters = Rosters(self.client, self.names)
        self.history = History(self.client, address.prefix) if address.history else None
        self.lifecycle = (
            HistoryLifecycle(self.client, HistoryNames(address.prefix)) if address.history else None
        )
        self.tidying = Tidying(self.client, self.names, self.months, self.lifecycle)
        self.shards = 0
        self._tended_at = time.monotonic()
        self._gate = asyncio.Semaphore(BULKS)
        self._shards: dict[int, Shard] = {}
        self._projectors: dict[int, Projector] = {}

    async def start(self) -> int:
        """Find or make the store; return the number of its shards."""
        await setup.identify(self.client, self.address)
        meta = await setup.prepare(self.client, self.names, self.address)
        if self.history is not None and self.lifecycle is not None:
            await self.history.prepare(settings=await self.lifecycle.prepare())
        await self.months.look()
        await self.generations.look()
        self.shards = meta.shards
        return meta.shards

    async def stop(self) -> None:
        await self.tidying.stop()
        for each in self._projectors.values():
            await each.stop()
        await self.client.close()

    def shard(self, number: int) -> Shard:
        found = self._shards.get(number)
        if found is None:
            found = self._shards[number] = Shard(number, keep_history=self.history is not None)
        return found

    def projector(self, shard: Shard) -> Projector:
        found = self._projectors.get(shard.number)
        if found is None:
            found = self._projectors[shard.number] = Projector(
                shard,
                self.client,
                self.names,
                months=self.months,
                finder=self.finder,
                history=self.history,
                confirm=lambda: self._confirm(shard),
                gate=self._gate,
            )
        return found

    def notice(self, shard: Shard) -> None:
        """There may be something to be written."""
        self.projector(shard).notice()

    async def attach(self, shard: Shard) -> None:
        """Know the shard: from its checkpoint, and what stands in the log behind it. With the lock held."""
        if shard.attached:
            return
        self.finder.stale()
        shard.pending = None
        for _ in range(3):
            checkpoint = await setup.read_checkpoint(self.client, self.names, shard.number)
            if checkpoint is None:
                raise StoreCorrupt(
                    f"{self.names.control} has no checkpoint of shard {shard.number}: was it deleted? "
                    "Restore the indices of this store from a snapshot"
                )
            shard.reset(checkpoint)
            try:
                await self.slots.follow(shard)
            except GenerationGone:
                continue  # the checkpoint went on while we read
            shard.attached = True
            return
        raise StoreCorrupt(
            f"{self.names.log(shard.generation)} is gone, but shard {shard.number} has not moved on from it: "
            "restore the indices of this store from a snapshot"
        )

    async def catch_up(self, shard: Shard) -> None:
        """Know what others, who own the shard, have written until now."""
        if shard.attached and shard.is_ours:
            return
        async with shard.lock:
            if not shard.attached:
                await self.attach(shard)
            elif shard.pending is None:
                try:
                    await self.slots.follow(shard)
                except GenerationGone:
                    shard.attached = False
                    await self.attach(shard)
            await self.months.look()
            self.finder.stale()

    async def see_all(self, shard: Shard) -> None:
        """Let a search find all that is committed."""
        await self.catch_up(shard)
        await self.projector(shard).reach(shard.head)
        await self.finder.refresh()

    async def slot_of(self, shard: Shard, position: int) -> int:
        """Return the slot of a position that the log has."""
        if shard.last_read is not None and shard.last_read[0] == position - 1:
            first = guess = shard.last_read[1] + 1
        else:
            first, guess = shard.first_slot, shard.head - (shard.position - position)
        return await self.slots.first_where(
            shard, lambda place: place.position >= position, first=first, guess=guess
        )

    async def tend_generations(self) -> None:
        """Once in a while begin a new generation of the log, and drop those that nothing needs any more."""
        if time.monotonic() - self._tended_at < TEND_EVERY:
            return
        self._tended_at = time.monotonic()
        try:
            await self.generations.roll_where_large(list(self._shards.values()))
            await self.generations.drop_unneeded(self.shards)
        except LineshaftError as error:
            _LOG.warning("the log stays in its old indices for now: %s", error.reason)

    async def _confirm(self, shard: Shard) -> None:
        """Raise `Fenced` where somebody else has written behind what we know."""
        head, pending = shard.head, shard.pending
        found = await self.slots.find(shard, head + 1)
        if found is not None and pending is None and shard.pending is None and shard.head == head:
            raise Fenced(f"another writes to shard {shard.number}")

    def waiting(self) -> tuple[int, int]:
        """Return rows and bytes that are in memory only."""
        rows = size = 0
        for shard in self._shards.values():
            if shard.projected != shard.head:  # asked with every command: most shards have nothing
                rows += len(shard.fresh) + len(shard.writing)
                size += shard.fresh.bytes + shard.writing.bytes
        return rows, size

    def lag(self) -> float:
        """Return for how many seconds the oldest of them has been waiting."""
        since = [s.fresh_since for s in self._shards.values() if s.fresh_since is not None]
        return time.monotonic() - min(since) if since else 0.0

    def trouble(self) -> str | None:
        """Return why documents are not written, where that is so."""
        return next((p.trouble for p in self._projectors.values() if p.trouble is not None), None)
