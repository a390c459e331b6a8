"""A store in a PostgreSQL database, shared by as many coordinators as one likes.

A commit is one statement: a function of the database checks that the shard is ours and the batch the next,
and applies it, in one transaction and one round trip (`sql/001_functions.sql`). What a 2xx survives is what
`synchronous_commit` says; each commit sets it to what `open` has found, so that the promise made at the start
is kept.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import psycopg

from lineshaft.core.batch import Batch, Blob, Census, Snapshot
from lineshaft.core.task import State, Task
from lineshaft.errors import Fenced, Unavailable
from lineshaft.store.access import require_same_process, require_shard
from lineshaft.store.base import InboxItem, Log, Ownership, Page, Query, Roster
from lineshaft.store.postgres import schema as schemas
from lineshaft.store.postgres import searching
from lineshaft.store.postgres.address import Address
from lineshaft.store.postgres.batches import prepare
from lineshaft.store.postgres.connections import Connection, connect
from lineshaft.store.postgres.errors import translated
from lineshaft.store.postgres.history import History
from lineshaft.store.postgres.opened import Opened
from lineshaft.store.postgres.server import Facts, look, require_fit, tier_of

PRUNED_AT_ONCE = 500
"""Tasks deleted in one transaction, between which commits go on."""


class PostgresStore:
    """Keep everything in the tables of one schema."""

    exclusive = False
    largest_commit: int | None = None

    def __init__(self, address: Address) -> None:
        self.url = address.url
        self.tier = "power loss" if address.synchronous_commit != "off" else "process crash"
        self.shards = address.shards or 0
        self.schema = address.schema
        self._address = address
        self._opened: Opened | None = None
        self._notices: list[str] = []
        self.history = History()

    async def open(self, *, address: str) -> None:
        if self._opened is not None:
            return
        with translated(self.url, opening=True):
            connection = await connect(self._address.conninfo)
            try:
                facts = await self._look(connection)
                if facts.version < schemas.VERSION:
                    try:
                        await schemas.migrate(connection, self.schema, self._address.shards)
                    except psycopg.errors.InsufficientPrivilege as error:
                        raise schemas.may_not(self.schema, error) from error
                    facts = await self._look(connection)
                schemas.require_shards(facts.shards, self._address.shards)
            finally:
                await connection.close()
        self.shards = facts.shards
        synchronous = self._address.synchronous_commit or facts.synchronous_commit
        self._opened = Opened(self._address, self.shards, synchronous)

    async def inspect(self) -> str:
        """Look at the server without opening or changing anything; return the tier."""
        with translated(self.url, opening=True):
            connection = await connect(self._address.conninfo)
            try:
                facts = await self._look(connection)
                if facts.version:
                    schemas.require_shards(facts.shards, self._address.shards)
            finally:
                await connection.close()
        return self.tier

    async def migrate(self) -> int:
        """Make the tables, or bring those of an older version up to date; return the version there was."""
        with translated(self.url, opening=True):
            connection = await connect(self._address.conninfo)
            try:
                await self._look(connection)
                return await schemas.migrate(connection, self.schema, self._address.shards)
            finally:
                await connection.close()

    async def close(self) -> None:
        opened, self._opened = self._opened, None
        if opened is not None and opened.pid == os.getpid():
            await opened.close()

    async def acquire(self, shard: int, owner: bytes) -> Ownership:
        opened = self._of(shard)
        with translated(self.url):
            rows = await opened.committing.run(f"SELECT {self.schema}.acquire($1, $2)", (shard, owner))
        return Ownership(shard, rows[0][0], owner)

    async def renew(self, ownership: Ownership) -> None:
        opened = self._of(ownership.shard)
        with translated(self.url):
            await opened.committing.run(
                f"SELECT {self.schema}.require_owned($1, $2, $3)", _named(ownership), binary=False
            )

    async def release(self, ownership: Ownership) -> None:
        opened = self._of(ownership.shard)
        with translated(self.url):
            await opened.committing.run(
                f"UPDATE {self.schema}.shard SET owner = NULL WHERE id = $1 AND epoch = $2 AND owner = $3",
                _named(ownership),
            )

    async def load(self, ownership: Ownership) -> Snapshot:
        opened = self._of(ownership.shard)
        with translated(self.url):
            snapshot = await opened.loader(ownership.shard).load(ownership, self.history, opened.synchronous)
        self.history.of(ownership.shard).reached(snapshot.position, snapshot.counters)
        return snapshot

    async def commit(self, ownership: Ownership, batch: Batch) -> None:
        opened = self._of(ownership.shard)
        with translated(self.url, writing=True):
            numbers = await opened.numbers_of(ownership)
            taken = opened.inboxes.taken(ownership.shard, batch)
            prepared = prepare(ownership, batch, numbers, synchronous=opened.synchronous, taken=taken)
            try:
                await opened.committing.run(
                    opened.commit_statement(tuple(prepared.values)),
                    list(prepared.values.values()),
                    binary=False,
                )
            except psycopg.errors.UniqueViolation as error:
                opened.numbers.pop(ownership.shard, None)
                raise Unavailable(
                    f"{self.url}: rows were not as expected ({error}), they are looked at again"
                ) from error
        numbers.committed(prepared.new_specs, prepared.highest_seq)
        opened.inboxes.settled(ownership.shard, taken)
        self.history.of(ownership.shard).reached(batch.position, batch.counters)

    async def continue_from(self, ownership: Ownership, position: int) -> None:
        """See `base.Continues`."""
        opened = self._of(ownership.shard)
        with translated(self.url, writing=True):
            rows = await opened.committing.run(
                f"UPDATE {self.schema}.shard SET position = $4::int8, nonce = '', earliest = $4::int8 + 1"
                " WHERE id = $1 AND epoch = $2 AND owner = $3 RETURNING id",
                (*_named(ownership), position),
            )
        if not rows:
            raise Fenced(f"shard {ownership.shard} is not at epoch {ownership.epoch} of this owner")

    async def get(self, shard: int, keys: Sequence[tuple[str, str]]) -> list[Task | None]:
        opened = self._of(shard)
        with translated(self.url):
            return await opened.reader(shard).get(keys)

    async def read(self, shard: int, keys: Sequence[tuple[Blob, int]]) -> list[bytes | None]:
        opened = self._of(shard)
        with translated(self.url):
            return await opened.reader(shard).read(keys)

    async def search(self, shard: int, query: Query) -> Page:
        opened = self._of(shard)
        with translated(self.url):
            return await searching.search(opened.reader(shard), opened.searching, query)

    async def count(self, shard: int, query: Query) -> int:
        opened = self._of(shard)
        with translated(self.url):
            return await searching.count(opened.reader(shard), opened.searching, query)

    async def log(self, shard: int, after: int, *, limit: int = 1000) -> Log:
        opened = self._of(shard)
        with translated(self.url):
            return await opened.reader(shard).log(after, limit)

    async def prune(
        self, ownership: Ownership, *, before: int, log_before: int, limit: int = 10_000
    ) -> list[Census]:
        opened = self._of(ownership.shard)
        removed: Counter[tuple[str, str, State]] = Counter()
        with translated(self.url):
            await self._prune(opened, ownership, before, log_before, limit, removed)
        return [Census(*key, count) for key, count in sorted(removed.items())]

    async def read_roster(self) -> Roster:
        opened = self._ready()
        with translated(self.url):
            [(version, data)] = await opened.committing.run(f"SELECT version, data FROM {self.schema}.roster")
        return Roster(version, bytes(data))

    async def swap_roster(self, expected: int, data: bytes) -> Roster:
        opened = self._ready()
        with translated(self.url):
            [(version, found)] = await opened.committing.run(
                f"SELECT version, data FROM {self.schema}.swap_roster($1, $2)", (expected, data)
            )
        return Roster(version, bytes(found))

    def watch_inbox(self, shard: int, wake: Callable[[], None]) -> Callable[[], None]:
        return self._of(shard).listener.watch(shard, wake)

    async def read_inbox(self, ownership: Ownership, *, limit: int) -> list[InboxItem]:
        opened = self._of(ownership.shard)
        with translated(self.url):
            return await opened.inboxes.read(ownership, limit)

    async def clear_inbox(self, ownership: Ownership, numbers: Sequence[int]) -> None:
        opened = self._of(ownership.shard)
        with translated(self.url):
            await opened.inboxes.clear(ownership.shard, numbers)

    def congestion(self, shard: int) -> str | None:
        return None

    def gauges(self) -> dict[str, float]:
        return {}

    def notices(self) -> list[str]:
        """Return what people should know: how the server is set up, and what was found to be lost."""
        heard = None if self._opened is None else self._opened.listener.notice
        return [*self._notices, *self.history.notices, *([heard] if heard else [])]

    async def _look(self, connection: Connection) -> Facts:
        facts = await look(connection, self.schema)
        require_fit(self.url, facts)
        schemas.require_known(facts.version)
        synchronous = self._address.synchronous_commit or facts.synchronous_commit
        self.tier, self._notices = tier_of(facts, synchronous)
        return facts

    async def _prune(
        self,
        opened: Opened,
        ownership: Ownership,
        before: int,
        log_before: int,
        limit: int,
        removed: Counter[tuple[str, str, State]],
    ) -> None:
        run, owned = opened.searching.run, _named(ownership)
        await run(f"SELECT {self.schema}.expire_results($1, $2, $3, $4, $5)", (*owned, before, limit))
        await run(
            f"SELECT {self.schema}.truncate_log($1, $2, $3, $4, $5)",
            (*owned, log_before, limit),
            binary=False,
        )
        with contextlib.suppress(psycopg.errors.LockNotAvailable):  # somebody reads it for long; next time
            await run(f"SELECT {self.schema}.turn_log()", binary=False)
        while limit > 0:
            portion = min(limit, PRUNED_AT_ONCE)
            # Asked for with the same nonce until it is answered, so that everything removed is told once.
            nonce = opened.pruning.setdefault((ownership.shard, ownership.epoch), secrets.token_bytes(16))
            try:
                rows = await run(
                    f"SELECT * FROM {self.schema}.prune_tasks($1, $2, $3, $4, $5, $6)",
                    (*owned, before, portion, nonce),
                )
            except psycopg.OperationalError:
                if removed:
                    return
                raise
            del opened.pruning[ownership.shard, ownership.epoch]
            for tenant, queue, state, tasks in rows:
                removed[tenant, queue, State(state)] += tasks
            limit -= sum(row[3] for row in rows)
            if not rows:
                return

    def _of(self, shard: int) -> Opened:
        opened = self._ready()
        require_shard(shard, self.shards)
        return opened

    def _ready(self) -> Opened:
        if self._opened is None:
            raise Unavailable("the store is closed")
        require_same_process(self.url, self._opened.pid)
        return self._opened


def _named(ownership: Ownership) -> tuple[Any, ...]:
    return ownership.shard, ownership.epoch, ownership.owner
