"""The store that keeps tasks in a cluster of Elasticsearch or OpenSearch."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Sequence

from lineshaft.core.batch import Batch, Blob, Census, Snapshot
from lineshaft.core.task import Task
from lineshaft.errors import Fenced, Invalid, LineshaftError, Unavailable
from lineshaft.store.base import Log, LogRecord, Ownership, Page, Query, Roster, StoreCorrupt, StoreInUse
from lineshaft.store.elastic import projector, setup
from lineshaft.store.elastic.address import DEFAULT_SHARDS, Address
from lineshaft.store.elastic.client import Client
from lineshaft.store.elastic.finding import Finder
from lineshaft.store.elastic.generations import Generations
from lineshaft.store.elastic.history import History, HistoryNames
from lineshaft.store.elastic.lifecycle import HistoryLifecycle
from lineshaft.store.elastic.months import Months
from lineshaft.store.elastic.names import Names
from lineshaft.store.elastic.projector import Projector
from lineshaft.store.elastic.pruning import what_is_due
from lineshaft.store.elastic.queries import ended_tasks, open_tasks, order, page_after, query_of
from lineshaft.store.elastic.records import Rows
from lineshaft.store.elastic.retention import drop_empty_months
from lineshaft.store.elastic.roster import Rosters
from lineshaft.store.elastic.shard import Shard
from lineshaft.store.elastic.slots import GenerationGone, Slots
from lineshaft.store.elastic.tidying import Tidying
from lineshaft.store.elastic.writer import Writer
from lineshaft.store.paging import page_of, parse_sort

BULKS = 2
"""Bulk requests in flight at most, over all shards."""

TIDY_EVERY = 60.0
"""Seconds between looks at what could be dropped."""

_LOG = logging.getLogger("lineshaft.store")

LARGEST_COMMIT = 256 * 1024


class ElasticStore:
    """Keep tasks in a cluster that others keep running; several coordinators may share it."""

    tier = "power loss"
    exclusive = False
    largest_commit = LARGEST_COMMIT

    def __init__(self, address: Address) -> None:
        self.url = address.shown
        self.shards = address.shards or DEFAULT_SHARDS
        self._address = address
        self._opened: _Opened | None = None

    async def open(self, *, address: str) -> None:
        if self._opened is None:
            opened = _Opened(self._address)
            try:
                self.shards = await opened.start()
            except BaseException:
                await opened.stop()
                raise
            self._opened = opened

    async def close(self) -> None:
        opened, self._opened = self._opened, None
        if opened is not None and opened.pid == os.getpid():
            await opened.stop()

    # -- ownership ---------------------------------------------------------------------------------

    async def acquire(self, shard: int, owner: bytes) -> Ownership:
        opened, of = self._of(shard)
        async with of.lock:
            await opened.months.look()
            for _ in range(3):
                try:
                    await opened.attach(of)
                    ownership = await opened.writer.acquire(of, owner)
                except (GenerationGone, Fenced):
                    of.attached = False
                    continue
                of.is_ours = True
                opened.notice(of)
                return ownership
        raise Unavailable(f"shard {shard} cannot be acquired: others move it on faster than it can be read")

    async def renew(self, ownership: Ownership) -> None:
        opened, of = self._of(ownership.shard)
        async with of.lock:
            await opened.attach(of)
        await opened.writer.renew(of, ownership)

    async def release(self, ownership: Ownership) -> None:
        opened, of = self._of(ownership.shard)
        async with of.lock:
            await opened.attach(of)
            try:
                await opened.writer.settle(of)
                await opened.writer.require_owned(of, ownership)
                await opened.writer.write(of, "release")
            except Fenced:
                return
            of.is_ours = False
        # Whoever comes next has less to replay.
        projecting = opened.projector(of)
        await projecting.reach(of.head)
        await projecting.checkpoint()

    async def commit(self, ownership: Ownership, batch: Batch) -> None:
        opened, of = self._of(ownership.shard)
        async with of.lock:
            if not of.attached:
                await opened.attach(of)
            try:
                await opened.writer.commit(of, ownership, batch)
                of.is_ours = True
            except Fenced:
                of.is_ours = False
                raise
        opened.notice(of)

    # -- reading -----------------------------------------------------------------------------------

    async def load(self, ownership: Ownership) -> Snapshot:
        opened, of = self._of(ownership.shard)
        async with of.lock:
            await opened.attach(of)
            await opened.writer.settle(of)
            await opened.writer.require_owned(of, ownership)
            await opened.projector(of).reach(of.head)
            await opened.finder.refresh()
            tasks: list[Task] = []
            async for page in opened.finder.all_tasks(open_tasks(of)):
                tasks += page
            return Snapshot(
                position=of.position,
                counters=of.counters,
                tasks=tasks,
                records=await opened.finder.records(of.number),
                finished=await opened.finder.census(ended_tasks(of)),
            )

    async def get(self, shard: int, keys: Sequence[tuple[str, str]]) -> list[Task | None]:
        opened, of = self._of(shard)
        await opened.catch_up(of)
        while True:
            drops = of.drops
            missing = [key for key in dict.fromkeys(keys) if of.lookup(key) is None]
            documents = await opened.finder.tasks(missing) if missing else {}
            if of.drops == drops:
                # No document changed that is not in memory still, so this is one instant.
                return [of.task(key, documents.get(key)) for key in keys]

    async def read(self, shard: int, keys: Sequence[tuple[Blob, int]]) -> list[bytes | None]:
        opened, of = self._of(shard)
        await opened.catch_up(of)
        while True:
            drops = of.drops
            missing = [key for key in dict.fromkeys(keys) if of.value(key) is None]
            documents = await opened.finder.values(shard, missing) if missing else {}
            if of.drops == drops:
                return [documents.get(key) if (found := of.value(key)) is None else found[1] for key in keys]

    async def search(self, shard: int, query: Query) -> Page:
        opened, of = self._of(shard)
        after = page_after(query)
        sort = order(parse_sort(query.sort))
        await opened.see_all(of)
        found = query_of(of, query)
        if after is not None:
            found["bool"]["filter"].append(after)
        return page_of(query, await opened.finder.search(found, sort, query.limit + 1))

    async def count(self, shard: int, query: Query) -> int:
        opened, of = self._of(shard)
        await opened.see_all(of)
        return await opened.finder.count(query_of(of, query))

    async def log(self, shard: int, after: int, *, limit: int = 1000) -> Log:
        opened, of = self._of(shard)
        await opened.catch_up(of)
        first, last = max(after + 1, of.earliest), of.position
        records: list[LogRecord] = []
        if first > last or limit < 1:
            return Log(records, of.earliest)
        slot = await opened.slot_of(of, first)
        while len(records) < limit and slot <= of.head:
            found = await opened.slots.records(of, slot, min(of.head, slot + limit - len(records) - 1))
            if not found:
                break
            for slot, document in found:
                if document.kind == "batch" and first <= document.position <= last and document.rows:
                    records.append(LogRecord(document.position, document.at, document.rows.changes))
                    of.last_read = (document.position, slot)
                    first = document.position + 1
            slot = found[-1][0] + 1
        return Log(records[:limit], of.earliest)

    async def prune(
        self, ownership: Ownership, *, before: int, log_before: int, limit: int = 10_000
    ) -> list[Census]:
        opened, of = self._of(ownership.shard)
        if of.number == 0:  # one of the coordinators does it for all
            opened.tidying.notice(self.shards)
        async with of.lock:
            await opened.attach(of)
            await opened.writer.settle(of)
            await opened.writer.require_owned(of, ownership)
            if opened.generations.next_of(of):
                await opened.writer.write(of, "move")
            await opened.projector(of).reach(of.head)
            await opened.finder.refresh()
            due = await what_is_due(
                of, opened.finder, opened.slots, before=before, log_before=log_before, limit=limit
            )
            census: list[Census] = []
            if due is not None:
                pruned, census = due
                await opened.writer.write(of, "prune", Rows(pruned=pruned))
        opened.notice(of)
        await opened.tidy(before)
        return census

    # -- what all coordinators share ---------------------------------------------------------------

    async def read_roster(self) -> Roster:
        return await self._ready().rosters.read()

    async def swap_roster(self, expected: int, data: bytes) -> Roster:
        return await self._ready().rosters.swap(expected, data)

    # -- how it fares ------------------------------------------------------------------------------

    def congestion(self, shard: int) -> str | None:
        if self._opened is None:
            return None
        rows, size = self._opened.waiting()
        if rows < projector.MOST_ROWS and size < projector.MOST_BYTES:
            return None
        trouble = self._opened.trouble() or "the cluster writes documents more slowly than tasks come"
        return f"{rows} rows wait to become documents, {size // 2**20} MiB: {trouble}"

    def gauges(self) -> dict[str, float]:
        if self._opened is None:
            return {}
        rows, size = self._opened.waiting()
        return {
            "projection_lag_rows": float(rows),
            "projection_lag_bytes": float(size),
            "projection_lag_seconds": self._opened.lag(),
        }

    def _ready(self) -> _Opened:
        if self._opened is None:
            raise Unavailable("the store is closed")
        if self._opened.pid != os.getpid():
            raise StoreInUse(
                f"{self.url} was opened by process {self._opened.pid}, of which this one is a fork: "
                "a connection does not survive a fork, open the store after it"
            )
        return self._opened

    def _of(self, shard: int) -> tuple[_Opened, Shard]:
        opened = self._ready()
        if not 0 <= shard < self.shards:
            raise Invalid(f"there is no shard {shard}, this store has {self.shards}", field="shard")
        return opened, opened.shard(shard)


class _Opened:
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
        self._tidied_at = time.monotonic()
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

    async def tidy(self, before: int) -> None:
        """Once in a while begin a new generation, and drop what nothing is left in."""
        if time.monotonic() - self._tidied_at < TIDY_EVERY:
            return
        self._tidied_at = time.monotonic()
        try:
            await self.generations.roll_where_large(list(self._shards.values()))
            await self.generations.drop_unneeded(self.shards)
            await drop_empty_months(self.client, self.names, self.months, shards=self.shards, before=before)
        except LineshaftError as error:
            _LOG.warning("old indices are not dropped yet: %s", error.reason)

    async def _confirm(self, shard: Shard) -> None:
        """Raise `Fenced` where somebody else has written behind what we know."""
        pending = shard.pending
        found = await self.slots.find(shard, shard.head + 1)
        if found is not None and pending is None and shard.pending is None:
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
