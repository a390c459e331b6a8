"""Moves a stopped installation from one store to another by what every store can do: load, search, read and
commit.

Tenants go one after the other, each in order of arrival, so memory holds the open tasks of one shard at a
time (as its coordinator would) and a batch. Where the number of shards changes so that a shard of the target
would have tasks of several of the source, their numbers of arrival would meet: then all are numbered anew,
each tenant's in the same order. Fences and positions go on beyond the largest of the source, so that nothing
is handed out twice; the log begins where the copy ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence

import msgspec

from lineshaft.core.batch import Batch, Blob, Counters, Record, Snapshot
from lineshaft.core.commands import Filter
from lineshaft.core.task import State, Task
from lineshaft.errors import Conflict, Fenced, LineshaftError
from lineshaft.store.base import Continues, Inbox, Ownership, Query, Rejected, Store
from lineshaft.store.copying_digest import Digest
from lineshaft.values.partitions import shard_of

BATCH_TASKS = 500
BATCH_BYTES = 200_000
"""Of values, beyond which a batch is committed: what every store takes well."""

PAGE = 500
ROOM = 1 << 20
"""Positions left free, so that whoever has seen one of the source's never meets it again."""

TRIES = 8
_SYSTEM = "_system"
_MARK = ("copy", _SYSTEM, "unfinished")
_ENDED = tuple(state for state in State if state.terminal)


class NotEmpty(Conflict):
    """The store that is to be copied to has something in it."""


class CopyFailed(LineshaftError):
    """The copy ended early, or is not equal: what is in the target must be thrown away; the source is as it
    was.
    """

    type = "copy_failed"
    status = 500


class Copied(msgspec.Struct, frozen=True):
    """What was copied; `renumbered` tells that tasks have other numbers of arrival, so that leases end."""

    tasks: int
    values: int
    records: int
    tenants: int
    renumbered: bool
    continues: bool
    """Positions go on beyond those of the source; else followers of changes must begin anew."""


class Copy:
    """One copy from a store to another, both open and served by nobody."""

    def __init__(
        self, source: Store, target: Store, *, progress: Callable[[int, int], None] = lambda done, total: None
    ) -> None:
        """`progress` is told how many tasks are copied or compared, and of how many."""
        self._source = source
        self._target = target
        self._progress = progress
        self._owner = secrets.token_bytes(16)
        self._renumbers = target.shards % source.shards != 0
        self._writers: list[_Writer] = []
        self._done = 0
        self._total = 0

    async def run(self) -> Copied:
        """Copy and compare. Raises NotEmpty (nothing was done), CopyFailed, and what the stores raise."""
        sources = [await self._source.acquire(shard, self._owner) for shard in range(self._source.shards)]
        try:
            await self._require_no_inbox(sources)
            self._writers = [
                _Writer(self._target, await self._target.acquire(shard, self._owner))
                for shard in range(self._target.shards)
            ]
            await self._require_empty()
            try:
                return await self._copy(sources)
            except (Exception, asyncio.CancelledError) as error:
                told = error.reason if isinstance(error, LineshaftError) else repr(error)
                raise CopyFailed(
                    f"{told}: what is in {self._target.url} now is a part of the whole, throw it away; "
                    f"{self._source.url} is as it was"
                ) from error
        finally:
            for ownership in sources:
                with contextlib.suppress(Exception):  # what went wrong before is what matters
                    await self._source.release(ownership)
            for writer in self._writers:
                with contextlib.suppress(Exception):
                    await self._target.release(writer.ownership)

    async def _copy(self, sources: list[Ownership]) -> Copied:
        await self._mark(data=self._source.url.encode())
        before, counters, position = Digest(), Counters(), 0
        for ownership in sources:
            snapshot = await self._source.load(ownership)
            self._total += len(snapshot.tasks) + sum(census.count for census in snapshot.finished)
            counters = counters.or_later(snapshot.counters)
            position = max(position, snapshot.position)
            await self._copy_shard(ownership.shard, snapshot, before)
        continues = isinstance(self._target, Continues)
        for writer in self._writers:
            await writer.end(counters, position=position + ROOM)
        await self._mark(data=None)
        for ownership in sources:  # nobody has begun to serve it meanwhile
            await self._source.renew(ownership)
        after = await self._digest_of_target()
        if (difference := before.difference(after)) is not None:
            raise CopyFailed(f"the copy is not equal to the original: {difference}")
        return Copied(
            tasks=before.tasks,
            values=before.values,
            records=before.records,
            tenants=len(before.tenants),
            renumbered=self._renumbers and before.tasks > 0,
            continues=continues,
        )

    async def _copy_shard(self, shard: int, snapshot: Snapshot, digest: Digest) -> None:
        for record in snapshot.records:
            digest.add_record(record)
            await self._writer(record.tenant).put_record(record)
        if not self._renumbers:
            for writer in self._writers:
                writer.keep(snapshot.counters.seq)
        async for task, values in _tasks(self._source, shard, snapshot):
            digest.add_task(task, values)
            await self._writer(task.tenant).put_task(task, values, renumber=self._renumbers)
            self._advance()

    async def _digest_of_target(self) -> Digest:
        digest = Digest()
        self._done = 0
        for writer in self._writers:
            snapshot = await self._target.load(writer.ownership)
            for record in snapshot.records:
                digest.add_record(record)
            async for task, values in _tasks(self._target, writer.ownership.shard, snapshot):
                digest.add_task(task, values)
                self._advance()
        return digest

    async def _require_empty(self) -> None:
        found = [await writer.begin() for writer in self._writers]
        if any((record.kind, record.tenant, record.key) == _MARK for it in found for record in it.records):
            raise NotEmpty(f"{self._target.url} holds a part of a copy that was not finished: empty it first")
        if any(it.tasks or it.finished or it.records for it in found):
            raise NotEmpty(f"{self._target.url} is not empty: name a store that is new")

    async def _require_no_inbox(self, sources: list[Ownership]) -> None:
        if isinstance(self._source, Inbox):
            for ownership in sources:
                if await self._source.read_inbox(ownership, limit=1):
                    raise Conflict(
                        f"the inbox of {self._source.url} holds tasks that no coordinator has taken yet: run "
                        "`lineshaft serve` on it once more, and stop it again"
                    )

    async def _mark(self, *, data: bytes | None) -> None:
        kind, tenant, key = _MARK
        writer = self._writer(tenant)
        await writer.put_record(Record(kind, tenant, key, data))
        await writer.flush()

    def _writer(self, tenant: str) -> _Writer:
        return self._writers[shard_of(tenant, len(self._writers))]

    def _advance(self) -> None:
        self._done += 1
        if self._done % 100 == 0 or self._done == self._total:
            self._progress(self._done, self._total)


class _Writer:
    """Writes one shard of the target in batches."""

    def __init__(self, store: Store, ownership: Ownership) -> None:
        self._store = store
        self.ownership = ownership
        self._position = 0
        self._counters = Counters()
        self._tasks: list[Task] = []
        self._blobs: list[tuple[Blob, int, bytes | None]] = []
        self._records: list[Record] = []
        self._size = 0

    async def begin(self) -> Snapshot:
        """Return what is in the shard."""
        snapshot = await self._store.load(self.ownership)
        self._position = snapshot.position
        self._counters = snapshot.counters
        return snapshot

    def keep(self, seq: int) -> None:
        """Number what arrives later beyond `seq`."""
        self._counters = self._counters.or_later(Counters(seq=seq))

    async def put_task(self, task: Task, values: Sequence[tuple[Blob, bytes]], *, renumber: bool) -> None:
        """Write a row and its values."""
        task = task.snapshot()
        if renumber:
            task.seq = self._counters.seq
            self._counters = msgspec.structs.replace(self._counters, seq=task.seq + 1)
        self._tasks.append(task)
        self._blobs += [(kind, task.seq, data) for kind, data in values]
        self._size += sum(len(data) for _, data in values)
        if len(self._tasks) >= BATCH_TASKS or self._size >= BATCH_BYTES:
            await self.flush()

    async def put_record(self, record: Record) -> None:
        """Write a record."""
        self._records.append(record)
        if len(self._records) >= BATCH_TASKS:
            await self.flush()

    async def end(self, counters: Counters, *, position: int) -> None:
        """Write what is left, and go on from what the source has reached."""
        await self.flush()
        store = self._store
        if isinstance(store, Continues):
            self._position = position = max(position, self._position)
            await _patiently(lambda: store.continue_from(self.ownership, position))
        self._counters = self._counters.or_later(msgspec.structs.replace(counters, seq=0))
        kind, tenant, key = _MARK
        self._records.append(Record(kind, tenant, f"{key}-{self.ownership.shard}", None))
        await self.flush()

    async def flush(self) -> None:
        """Commit what has gathered."""
        if not (self._tasks or self._records):
            return
        while self._store.congestion(self.ownership.shard) is not None:  # noqa: ASYNC110 (it tells nobody)
            await asyncio.sleep(0.05)
        batch = Batch(
            position=self._position + 1,
            nonce=secrets.token_bytes(16),
            counters=self._counters,
            tasks=sorted(self._tasks, key=lambda task: task.seq),
            blobs=self._blobs,
            records=self._records,
        )
        await _patiently(lambda: self._store.commit(self.ownership, batch))
        self._position += 1
        self._tasks, self._blobs, self._records, self._size = [], [], [], 0


async def _patiently(work: Callable[[], Awaitable[None]]) -> None:
    """Do what may be done again until its outcome is known, for a while."""
    for attempt in range(TRIES):
        try:
            await work()
            return
        except (Rejected, Fenced):
            raise
        except Exception:
            if attempt == TRIES - 1:
                raise
            await asyncio.sleep(min(0.1 * 2**attempt, 2.0))


async def _tasks(
    store: Store, shard: int, snapshot: Snapshot
) -> AsyncIterator[tuple[Task, list[tuple[Blob, bytes]]]]:
    """Give every task of a shard with its values, tenant by tenant, in order of arrival."""
    opened: dict[str, list[Task]] = {}
    for task in snapshot.tasks:
        opened.setdefault(task.tenant, []).append(task)
    ended = {census.tenant for census in snapshot.finished}
    snapshot.tasks = []
    for tenant in sorted(opened.keys() | ended):
        waiting = opened.pop(tenant, [])
        waiting.reverse()
        if tenant in ended:
            async for page in _ended(store, shard, tenant):
                both: list[Task] = []
                for task in page:
                    while waiting and waiting[-1].seq < task.seq:
                        both.append(waiting.pop())
                    both.append(task)
                async for each in _with_values(store, shard, both):
                    yield each
        waiting.reverse()
        async for each in _with_values(store, shard, waiting):
            yield each


async def _ended(store: Store, shard: int, tenant: str) -> AsyncIterator[list[Task]]:
    query = Query(tenant=tenant, filter=Filter(states=frozenset(_ENDED)), sort="created_at", limit=PAGE)
    while True:
        page = await store.search(shard, query)
        yield page.tasks
        if page.next is None:
            return
        query = msgspec.structs.replace(query, after=page.next)


async def _with_values(
    store: Store, shard: int, tasks: list[Task]
) -> AsyncIterator[tuple[Task, list[tuple[Blob, bytes]]]]:
    for part in _parts(tasks):
        keys = [(kind, task.seq) for task in part for kind in Blob]
        found = iter(await store.read(shard, keys))
        for task in part:
            values = [(kind, data) for kind, data in zip(Blob, found, strict=False) if data is not None]
            yield task, values


def _parts(tasks: list[Task]) -> Iterator[list[Task]]:
    """Cut tasks so that the values of a part are not too large together."""
    part: list[Task] = []
    size = 0
    for task in tasks:
        part.append(task)
        size += 1_000 + task.payload_size
        if len(part) == 100 or size > 8 * 1024 * 1024:
            yield part
            part, size = [], 0
    if part:
        yield part
