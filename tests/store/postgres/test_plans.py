"""What a commit reads does not grow with the tables, also where its plans were made when they were empty.

The planner joined a batch with the whole shard as long as it thought the tables small, which it did until the
next ANALYZE: a hundred times slower.
"""

from __future__ import annotations

from collections.abc import Callable

import psycopg
import pytest

from lineshaft.core.batch import Blob
from lineshaft.core.task import State
from lineshaft.store.conformance.harness import NOW, SHARD, TENANT, acquire, finished, forgotten, row
from lineshaft.store.postgres.connections import Connections
from lineshaft.store.postgres.store import PostgresStore
from lineshaft.store.urls import open_store

MANY, FEW = 6_000, 50
TABLES = ("task_open", "task_ended", "blob")


class Meter:
    """Counts the rows that the store's own connections have read."""

    def __init__(self, store: PostgresStore, database: str) -> None:
        assert store._opened is not None
        opened = store._opened
        self._pools: tuple[Connections, ...] = (opened.committing, opened.reading, opened.searching)
        self._schema = store.schema
        self._database = database

    async def read(self) -> int:
        for pool in self._pools:
            await pool.run("SELECT pg_stat_force_next_flush()", binary=False)
            await pool.run("SELECT 1")
        with psycopg.connect(self._database) as connection:
            rows = connection.execute(
                "SELECT sum(seq_tup_read + coalesce(idx_tup_fetch, 0))::int8 FROM pg_stat_user_tables"
                " WHERE schemaname = %s AND relname = ANY (%s)",
                (self._schema, list(TABLES)),
            ).fetchone()
        assert rows is not None
        return int(rows[0])


async def test_a_commit_reads_its_own_rows_only(store_url: Callable[..., str], database: str) -> None:
    with psycopg.connect(database, autocommit=True) as connection:
        if connection.info.server_version < 150_000:
            pytest.skip("the counters of another session are told at once from PostgreSQL 15 on")
    store = open_store(store_url(shards=1, synchronous_commit="off"))
    assert isinstance(store, PostgresStore)
    await store.open(address="a")
    owner = await acquire(store)
    for table in TABLES:  # nobody else shall learn meanwhile how large they are
        with psycopg.connect(database, autocommit=True) as connection:
            connection.execute(f"ALTER TABLE {store.schema}.{table} SET (autovacuum_enabled = off)")
    # Every plan is made while there is next to nothing.
    for seq in range(1, 4):
        task = row(seq)
        await owner.commit(tasks=[task], blobs=[(kind, seq, b"1") for kind in Blob])
        await owner.commit(tasks=[row(seq, state=State.RUNNING)], blobs=[(Blob.CHECKPOINT, seq, None)])
        await owner.put(finished(task, prune_at=NOW, result_expires_at=NOW))
        await owner.commit(forgotten=[forgotten(row(seq - 1))])
        await store.get(SHARD, [(TENANT, task.id)])
        await store.read(SHARD, [(Blob.PAYLOAD, seq)])
        await store.prune(owner.ownership, before=NOW, log_before=0)
    later = [row(seq) for seq in range(100, 100 + MANY)]
    await owner.commit(tasks=later, blobs=[(Blob.PAYLOAD, task.seq, b"1") for task in later])
    await owner.put(*(finished(task, prune_at=NOW + task.seq) for task in later[: MANY // 2]))

    few, last = later[-FEW:], FEW * 12
    meter = Meter(store, database)
    steps: dict[str, Callable[[], object]] = {
        "change": lambda: owner.put(*(row(task.seq, state=State.RUNNING) for task in few)),
        "blobs": lambda: owner.commit(blobs=[(kind, task.seq, b"2") for task in few for kind in Blob]),
        "end": lambda: owner.put(*(finished(task, prune_at=NOW) for task in few)),
        "get": lambda: store.get(SHARD, [(TENANT, task.id) for task in few]),
        "read": lambda: store.read(SHARD, [(Blob.RESULT, task.seq) for task in few]),
        "run again": lambda: owner.put(*few),
        "end again": lambda: owner.put(*(finished(task, prune_at=NOW) for task in few)),
        "lose blobs": lambda: owner.commit(blobs=[(Blob.CARRY, task.seq, None) for task in few]),
        "forget": lambda: owner.commit(forgotten=[forgotten(task) for task in few[: FEW // 2]]),
        "prune": lambda: store.prune(owner.ownership, before=NOW, log_before=0),
    }
    for name, step in steps.items():
        before = await meter.read()
        await step()  # type: ignore[misc]
        assert await meter.read() - before <= last, name
    await store.close()
