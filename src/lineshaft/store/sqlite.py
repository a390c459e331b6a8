"""A store in one SQLite file: nothing to install, nothing to run, and every commit survives a power cut.

Four threads, each with its connection: one writes, one reads rows and blobs, one searches, one writes the log
back; so a long search delays neither a commit nor an enqueue that looks for its id. The file is this
process's alone for as long as the store is open (`file_lock`), so an ownership never expires. WAL with
`synchronous=FULL` syncs each commit.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TypeVar

import msgspec

from lineshaft.core.batch import Batch, Blob, Census, Snapshot
from lineshaft.core.task import State, Task
from lineshaft.errors import Invalid, Unavailable
from lineshaft.store import sqlite_read, sqlite_roster, sqlite_schema
from lineshaft.store.access import require_same_process, require_shard
from lineshaft.store.base import Log, Ownership, Page, Query, Roster, StoreUnusable
from lineshaft.store.file_lock import FileLock
from lineshaft.store.sqlite_checkpoints import Checkpoints
from lineshaft.store.sqlite_errors import translated
from lineshaft.store.sqlite_file import copy_to, gone, place_of, real_place, sync_directory
from lineshaft.store.sqlite_specs import Connection
from lineshaft.store.sqlite_thread import ConnectionThread
from lineshaft.store.sqlite_write import Writer, require_owned

TIERS = {"FULL": "power loss", "NORMAL": "process crash"}
"""What a commit survives, by the value of `synchronous`."""

CHECKPOINT_PAGES = 16_000
"""Pages in the log at which a commit writes back what the thread that does so has left."""

PAGE_CACHE = 8_000
"""KiB of pages that the writer keeps: a generation of ids (`sqlite_idents`), and where tables end."""

LOG_SIZE_KEPT = 64 * 1024 * 1024
"""Bytes that the log file keeps after it was written back; what a long search made it grow beyond goes."""

DELETED_AT_ONCE = 250
"""Tasks deleted in one transaction, between which commits go on."""

BUSY_TIMEOUT = 5.0
"""Seconds to wait for another program (a shell, a backup tool) that has locked the database."""

Result = TypeVar("Result")


class Usage(msgspec.Struct, frozen=True):
    """Sizes in bytes: of the database and its log, of unused pages within, and free on the disk."""

    database: int
    log: int
    unused: int
    disk_free: int


class SQLiteStore:
    """Keep everything in the file at `path`, which is made where there is none."""

    def __init__(self, path: str | os.PathLike[str], *, synchronous: str = "FULL") -> None:
        """`synchronous` is FULL (commits survive a power cut) or NORMAL (they survive a killed process)."""
        self._synchronous = synchronous.upper()
        if self._synchronous not in TIERS:
            raise Invalid(f"synchronous is FULL or NORMAL, not {synchronous!r}", field="synchronous")
        self.url = f"sqlite:///{os.fspath(path)}"
        self.tier = TIERS[self._synchronous]
        self.shards = 1
        self.exclusive = True
        self.largest_commit: int | None = None
        self._given = os.fspath(path)
        self._path = self._given
        self._place: tuple[int, int] | None = None
        self._opened: _Opened | None = None

    async def open(self, *, address: str) -> None:
        if self._opened is not None:
            return
        self._path = real_place(self._given)
        opened = _Opened(self._path, self, address)
        try:
            with translated(self._path, opening=True):
                await opened.start()
                self.shards = await opened.writer.run(opened.rules.begin)
                # The names of the database, its log and its lock must be as durable as what is in them.
                sync_directory(self._path)
                self._place = place_of(self._path)
        except BaseException:
            await opened.stop()
            raise
        self._opened = opened

    async def close(self) -> None:
        opened, self._opened = self._opened, None
        if opened is not None and opened.pid == os.getpid():
            await opened.stop()

    @property
    def path(self) -> str:
        """The real path of the file."""
        return os.path.realpath(self._given)

    def announce(self, address: str) -> None:
        """Tell those who find the file in use another address than that of `open`."""
        self._ready().announce(address)

    async def acquire(self, shard: int, owner: bytes) -> Ownership:
        self._check_shard(shard)
        return await self._write(lambda c, rules: rules.acquire(c, shard, owner))

    async def renew(self, ownership: Ownership) -> None:
        await self._look(lambda c: require_owned(c, ownership))

    async def release(self, ownership: Ownership) -> None:
        await self._write(lambda c, rules: rules.release(c, ownership))

    async def load(self, ownership: Ownership) -> Snapshot:
        return await self._scan(lambda c: sqlite_read.load(c, ownership))

    async def commit(self, ownership: Ownership, batch: Batch) -> None:
        await self._write(lambda c, rules: self._commit(c, rules, ownership, batch))
        if self._opened is not None:
            self._opened.checkpoints.committed(batch)

    async def continue_from(self, ownership: Ownership, position: int) -> None:
        """See `base.Continues`."""
        await self._write(lambda c, rules: rules.continue_from(c, ownership, position))

    async def get(self, shard: int, keys: Sequence[tuple[str, str]]) -> list[Task | None]:
        self._check_shard(shard)
        generations = self._ready().rules.generations
        return await self._look(lambda c: sqlite_read.get(c, generations, keys))

    async def read(self, shard: int, keys: Sequence[tuple[Blob, int]]) -> list[bytes | None]:
        self._check_shard(shard)
        return await self._look(lambda c: sqlite_read.read(c, keys))

    async def search(self, shard: int, query: Query) -> Page:
        self._check_shard(shard)
        return await self._scan(lambda c: sqlite_read.search(c, query))

    async def count(self, shard: int, query: Query) -> int:
        self._check_shard(shard)
        return await self._scan(lambda c: sqlite_read.count(c, query))

    async def log(self, shard: int, after: int, *, limit: int = 1000) -> Log:
        self._check_shard(shard)
        return await self._look(lambda c: sqlite_read.log(c, after, limit))

    async def prune(
        self, ownership: Ownership, *, before: int, log_before: int, limit: int = 10_000
    ) -> list[Census]:
        removed: Counter[tuple[str, str, State]] = Counter()
        await self._in_portions(limit, ownership, lambda c, rules, n: rules.expire_results(c, before, n))
        await self._in_portions(limit, ownership, lambda c, rules, n: rules.truncate_log(c, log_before, n))
        await self._in_portions(limit, ownership, lambda c, rules, n: rules.prune(c, before, n, removed))
        return [Census(*key, count) for key, count in sorted(removed.items())]

    async def read_roster(self) -> Roster:
        return await self._look(sqlite_roster.read)

    async def swap_roster(self, expected: int, data: bytes) -> Roster:
        return await self._write(lambda c, _: sqlite_roster.swap(c, expected, data))

    def congestion(self, shard: int) -> str | None:
        return None

    def gauges(self) -> dict[str, float]:
        return {}

    async def backup(self, path: str | os.PathLike[str]) -> int:
        """Copy the store, as of now, to a new file while work goes on; return the copy's size in bytes."""
        self._ready()
        thread = ConnectionThread("store-backup", self._connect_to_read)
        try:
            with translated(self._path):
                await thread.start()
                return await thread.run(lambda c: copy_to(c, os.fspath(path)))
        finally:
            await thread.stop()

    async def usage(self) -> Usage:
        """Measure the store, for people who wonder where their disk went."""
        return await self._look(lambda c: _measure(c, self._path))

    def _commit(self, connection: Connection, rules: Writer, ownership: Ownership, batch: Batch) -> None:
        rules.commit(connection, ownership, batch)
        # SQLite goes on writing to a file that is deleted or replaced: nobody would find what is in it.
        if place_of(self._path) != self._place:
            raise Unavailable(gone(self._path), retry_after=1)

    def _check_shard(self, shard: int) -> None:
        require_shard(shard, self.shards)

    def _ready(self) -> _Opened:
        if self._opened is None:
            raise Unavailable("the store is closed")
        require_same_process(self._path, self._opened.pid)
        return self._opened

    async def _write(self, work: Callable[[Connection, Writer], Result]) -> Result:
        opened = self._ready()
        with translated(self._path):
            return await opened.writer.run(lambda connection: work(connection, opened.rules))

    async def _look(self, work: Callable[[Connection], Result]) -> Result:
        with translated(self._path):
            return await self._ready().reader.run(work)

    async def _scan(self, work: Callable[[Connection], Result]) -> Result:
        with translated(self._path):
            return await self._ready().scanner.run(work)

    async def _in_portions(
        self, limit: int, ownership: Ownership, work: Callable[[Connection, Writer, int], int]
    ) -> None:
        """Delete at most `limit` things in small transactions, until one finds less than it might."""

        def delete(connection: Connection, rules: Writer, portion: int) -> int:
            # Nobody can acquire it in between: this thread alone writes.
            require_owned(connection, ownership)
            return work(connection, rules, portion)

        while limit > 0:
            portion = min(limit, DELETED_AT_ONCE)
            if await self._write(lambda c, rules, n=portion: delete(c, rules, n)) < portion:  # type: ignore[misc]
                return
            limit -= portion

    def _connect(self) -> Connection:
        return sqlite3.connect(
            self._path,
            timeout=BUSY_TIMEOUT,
            isolation_level=None,
            cached_statements=512,
            factory=Connection,
        )

    def _connect_to_write(self) -> Connection:
        return _prepared(self._connect(), self._prepare)

    def _connect_to_read(self) -> Connection:
        return _prepared(self._connect(), _forbid_writes)

    def _prepare(self, connection: Connection) -> None:
        (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
        if mode != "wal":
            raise StoreUnusable(f"{self._path} cannot have a write-ahead log here: use a local disk")
        connection.execute(f"PRAGMA synchronous = {self._synchronous}")
        # Without effect but on macOS, where an ordinary sync leaves the data in the disk's cache.
        connection.execute("PRAGMA fullfsync = ON")
        connection.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}")
        connection.execute(f"PRAGMA cache_size = -{PAGE_CACHE}")
        connection.execute(f"PRAGMA journal_size_limit = {LOG_SIZE_KEPT}")
        sqlite_schema.prepare(connection)


class _Opened:
    """What is there while the store is open: the lock and four threads."""

    def __init__(self, path: str, store: SQLiteStore, address: str) -> None:
        self.pid = os.getpid()
        self.rules = Writer()
        self.writer = ConnectionThread("store-writer", store._connect_to_write)
        self.reader = ConnectionThread("store-reader", store._connect_to_read)
        self.scanner = ConnectionThread("store-scanner", store._connect_to_read)
        self.checkpoints = Checkpoints(store._connect)
        self._started: list[ConnectionThread | Checkpoints] = []
        self._lock = FileLock(path, address=address)

    def announce(self, address: str) -> None:
        self._lock.tell(address)

    async def start(self) -> None:
        # The writer first: it makes what the others read.
        for thread in (self.writer, self.reader, self.scanner):
            self._started.append(thread)
            await thread.start()
        self._started.append(self.checkpoints)
        await self.checkpoints.thread.start()

    async def stop(self) -> None:
        # The writer last: who closes last writes the log back and removes it.
        for thread in reversed(self._started):
            await thread.stop()
        self._lock.release()


def _prepared(connection: Connection, prepare: Callable[[Connection], None]) -> Connection:
    try:
        prepare(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def _forbid_writes(connection: Connection) -> None:
    connection.execute("PRAGMA query_only = ON")
    sqlite_read.install_functions(connection)


def _measure(connection: sqlite3.Connection, path: str) -> Usage:
    (free_pages,) = connection.execute("PRAGMA freelist_count").fetchone()
    (page_size,) = connection.execute("PRAGMA page_size").fetchone()
    log = f"{path}-wal"
    return Usage(
        database=os.path.getsize(path),
        log=os.path.getsize(log) if os.path.exists(log) else 0,
        unused=free_pages * page_size,
        disk_free=shutil.disk_usage(os.path.dirname(path)).free,
    )
