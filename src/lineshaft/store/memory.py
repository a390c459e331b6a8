"""A store that remembers for as long as its process lives; the model that every other store is compared with.

Rows are copied on the way in and out, so that neither the shard nor a reader can change what is stored.
What was committed stays in the object over `close` and `open`; another object is another, empty store.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterator, Sequence

from lineshaft.core.batch import Batch, Blob, Census, Counters, Record, Snapshot
from lineshaft.core.task import Task
from lineshaft.errors import Fenced, Unavailable
from lineshaft.store.access import require_shard
from lineshaft.store.base import Log, LogRecord, Ownership, Page, Query, Roster
from lineshaft.store.paging import page_of, parse_sort, read_cursor, sort_key, visible


class MemoryStore:
    """Keep everything in this process; durable for nothing ("none"), exact in all else."""

    tier = "none"

    def __init__(self, *, shards: int = 1, exclusive: bool = True) -> None:
        """`exclusive` is False where several engines of this process share the object."""
        self.url = "memory://"
        self.shards = shards
        self.exclusive = exclusive
        self.largest_commit: int | None = None
        self._roster = Roster(0, b"")
        self._shards = [_ShardData() for _ in range(shards)]
        self._is_open = False

    async def open(self, *, address: str) -> None:
        self._is_open = True

    async def close(self) -> None:
        self._is_open = False

    async def acquire(self, shard: int, owner: bytes) -> Ownership:
        data = self._data(shard)
        data.epoch += 1
        data.owner = owner
        return Ownership(shard, data.epoch, owner)

    async def renew(self, ownership: Ownership) -> None:
        self._owned(ownership)

    async def release(self, ownership: Ownership) -> None:
        data = self._data(ownership.shard)
        if data.is_owned_by(ownership):
            data.owner = None

    async def load(self, ownership: Ownership) -> Snapshot:
        return self._owned(ownership).snapshot()

    async def commit(self, ownership: Ownership, batch: Batch) -> None:
        data = self._owned(ownership)
        if batch.position == data.position and batch.nonce == data.nonce:
            return
        if batch.position != data.position + 1:
            raise Fenced(f"the store is at position {data.position}, so {batch.position} is not the next")
        data.apply(batch)

    async def continue_from(self, ownership: Ownership, position: int) -> None:
        """See `base.Continues`."""
        data = self._owned(ownership)
        data.position, data.nonce, data.earliest = position, b"", position + 1
        data.log.clear()

    async def get(self, shard: int, keys: Sequence[tuple[str, str]]) -> list[Task | None]:
        data = self._data(shard)
        found = (data.tasks.get(data.idents.get(key, -1)) for key in keys)
        return [None if task is None else task.snapshot() for task in found]

    async def read(self, shard: int, keys: Sequence[tuple[Blob, int]]) -> list[bytes | None]:
        data = self._data(shard)
        return [data.blobs.get(key) for key in keys]

    async def search(self, shard: int, query: Query) -> Page:
        sort = parse_sort(query.sort)
        after = read_cursor(query)
        choose = heapq.nlargest if sort.descending else heapq.nsmallest
        rest = (
            task
            for task in self._data(shard).found(query)
            if after is None or _is_past(sort_key(sort, task), after, descending=sort.descending)
        )
        found = choose(query.limit + 1, rest, key=lambda task: sort_key(sort, task))
        return page_of(query, [task.snapshot() for task in found])

    async def count(self, shard: int, query: Query) -> int:
        return sum(1 for _ in self._data(shard).found(query))

    async def log(self, shard: int, after: int, *, limit: int = 1000) -> Log:
        data = self._data(shard)
        first = max(after + 1, data.earliest)
        last = min(data.position, first + limit - 1)
        return Log([data.log[position] for position in range(first, last + 1)], data.earliest)

    async def prune(
        self, ownership: Ownership, *, before: int, log_before: int, limit: int = 10_000
    ) -> list[Census]:
        data = self._owned(ownership)
        data.expire_results(before, limit)
        data.truncate_log(log_before, limit)
        return data.prune(before, limit)

    async def read_roster(self) -> Roster:
        self._require_open()
        return self._roster

    async def swap_roster(self, expected: int, data: bytes) -> Roster:
        self._require_open()
        if self._roster.version == expected:
            self._roster = Roster(expected + 1, data)
        return self._roster

    def congestion(self, shard: int) -> str | None:
        return None

    def gauges(self) -> dict[str, float]:
        return {}

    def _require_open(self) -> None:
        if not self._is_open:
            raise Unavailable("the store is closed")

    def _data(self, shard: int) -> _ShardData:
        self._require_open()
        require_shard(shard, self.shards)
        return self._shards[shard]

    def _owned(self, ownership: Ownership) -> _ShardData:
        data = self._data(ownership.shard)
        if not data.is_owned_by(ownership):
            raise Fenced(
                f"shard {ownership.shard} is at epoch {data.epoch}, not {ownership.epoch} of this owner"
            )
        return data


class _ShardData:
    """What is stored of one shard."""

    def __init__(self) -> None:
        self.epoch = 0
        self.owner: bytes | None = None
        self.position = 0
        self.nonce = b""
        self.counters = Counters()
        self.tasks: dict[int, Task] = {}
        self.idents: dict[tuple[str, str], int] = {}
        self.blobs: dict[tuple[Blob, int], bytes] = {}
        self.records: dict[tuple[str, str, str], Record] = {}
        self.log: dict[int, LogRecord] = {}
        self.earliest = 1
        # Heaps of (instant, seq); an entry that no longer tells the truth is dropped when its time comes.
        self.to_prune: list[tuple[int, int]] = []
        self.to_expire: list[tuple[int, int]] = []

    def is_owned_by(self, ownership: Ownership) -> bool:
        return self.owner is not None and (self.epoch, self.owner) == (ownership.epoch, ownership.owner)

    def snapshot(self) -> Snapshot:
        rows = sorted(self.tasks.values(), key=lambda task: task.seq)
        counts = Counter((t.tenant, t.spec.queue, t.state) for t in rows if t.state.terminal)
        return Snapshot(
            position=self.position,
            counters=self.counters,
            tasks=[task.snapshot() for task in rows if not task.state.terminal],
            records=[self.records[key] for key in sorted(self.records)],
            finished=[Census(*key, count) for key, count in sorted(counts.items())],
        )

    def apply(self, batch: Batch) -> None:
        for gone in batch.forgotten:
            self._forget(gone.seq, (gone.tenant, gone.id))
        for task in batch.tasks:
            self._put(task.snapshot())
        for kind, seq, data in batch.blobs:
            if data is None:
                self.blobs.pop((kind, seq), None)
            else:
                self.blobs[kind, seq] = data
        for record in batch.records:
            key = (record.kind, record.tenant, record.key)
            if record.data is None:
                self.records.pop(key, None)
            else:
                self.records[key] = record
        self.log[batch.position] = LogRecord(batch.position, batch.counters.now, list(batch.changes))
        self.position, self.nonce, self.counters = batch.position, batch.nonce, batch.counters

    def found(self, query: Query) -> Iterator[Task]:
        return (task for task in self.tasks.values() if visible(query, task))

    def prune(self, before: int, limit: int) -> list[Census]:
        removed: Counter[tuple[str, str, int]] = Counter()
        while self.to_prune and self.to_prune[0][0] <= before and removed.total() < limit:
            prune_at, seq = heapq.heappop(self.to_prune)
            task = self.tasks.get(seq)
            if task is not None and _prune_at(task) == prune_at:
                removed[task.tenant, task.spec.queue, task.state] += 1
                self._forget(seq, (task.tenant, task.id))
        return [Census(tenant, queue, state, n) for (tenant, queue, state), n in sorted(removed.items())]  # type: ignore[arg-type]

    def expire_results(self, before: int, limit: int) -> None:
        while self.to_expire and self.to_expire[0][0] <= before and limit:
            expires_at, seq = heapq.heappop(self.to_expire)
            task = self.tasks.get(seq)
            if task is not None and _result_expires_at(task) == expires_at:
                limit -= 1
                self.blobs.pop((Blob.RESULT, seq), None)

    def truncate_log(self, before: int, limit: int) -> None:
        end = self.earliest + limit
        while self.earliest < end and self.earliest in self.log and self.log[self.earliest].at < before:
            del self.log[self.earliest]
            self.earliest += 1

    def _put(self, task: Task) -> None:
        self.tasks[task.seq] = task
        self.idents[task.tenant, task.id] = task.seq
        if (prune_at := _prune_at(task)) is not None:
            heapq.heappush(self.to_prune, (prune_at, task.seq))
        if (expires_at := _result_expires_at(task)) is not None:
            heapq.heappush(self.to_expire, (expires_at, task.seq))

    def _forget(self, seq: int, ident: tuple[str, str]) -> None:
        self.tasks.pop(seq, None)
        if self.idents.get(ident) == seq:
            del self.idents[ident]
        for kind in Blob:
            self.blobs.pop((kind, seq), None)


def _is_past(key: tuple[int, int], after: tuple[int, int], *, descending: bool) -> bool:
    return key < after if descending else key > after


def _prune_at(task: Task) -> int | None:
    return task.run.prune_at if task.run is not None and task.state.terminal else None


def _result_expires_at(task: Task) -> int | None:
    return task.run.result_expires_at if task.run is not None and task.state.terminal else None
