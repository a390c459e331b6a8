"""The store that keeps tasks in a cluster of Elasticsearch or OpenSearch."""

from __future__ import annotations

import os
from collections.abc import Sequence

from lineshaft.core.batch import Batch, Blob, Census, Snapshot
from lineshaft.core.task import Task
from lineshaft.errors import Fenced, Unavailable
from lineshaft.store.access import require_same_process, require_shard
from lineshaft.store.base import Log, LogRecord, Ownership, Page, Query, Roster
from lineshaft.store.elastic import projector
from lineshaft.store.elastic.address import DEFAULT_SHARDS, Address
from lineshaft.store.elastic.opened import Opened
from lineshaft.store.elastic.pruning import what_is_due
from lineshaft.store.elastic.queries import ended_tasks, open_tasks, order, page_after, query_of
from lineshaft.store.elastic.records import Rows
from lineshaft.store.elastic.shard import Shard
from lineshaft.store.elastic.slots import GenerationGone
from lineshaft.store.paging import page_of, parse_sort

LARGEST_COMMIT = 256 * 1024
"""Bytes of a batch beyond which a commit becomes slow; larger ones are taken too."""


class ElasticStore:
    """Keep tasks in a cluster that others keep running; several coordinators may share it."""

    tier = "power loss"
    exclusive = False
    largest_commit: int | None = LARGEST_COMMIT

    def __init__(self, address: Address) -> None:
        self.url = address.shown
        self.shards = address.shards or DEFAULT_SHARDS
        self._address = address
        self._opened: Opened | None = None

    async def open(self, *, address: str) -> None:
        if self._opened is None:
            opened = Opened(self._address)
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

    async def continue_from(self, ownership: Ownership, position: int) -> None:
        """See `base.Continues`."""
        opened, of = self._of(ownership.shard)
        async with of.lock:
            if not of.attached:
                await opened.attach(of)
            await opened.writer.leap(of, ownership, position)

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
        await opened.tend_generations()
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
        measured = {
            "projection_lag_rows": float(rows),
            "projection_lag_bytes": float(size),
            "projection_lag_seconds": self._opened.lag(),
        }
        if (history := self._opened.history) is not None:
            measured["history_waiting"] = float(history.waiting)
            measured["history_dropped"] = float(history.dropped)
        return measured

    def _ready(self) -> Opened:
        if self._opened is None:
            raise Unavailable("the store is closed")
        require_same_process(self.url, self._opened.pid)
        return self._opened

    def _of(self, shard: int) -> tuple[Opened, Shard]:
        opened = self._ready()
        require_shard(shard, self.shards)
        return opened, opened.shard(shard)
