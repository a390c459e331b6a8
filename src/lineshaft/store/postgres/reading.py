"""What the PostgreSQL store reads: rows by identity, blobs, the log, and all for a load."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from lineshaft.core.batch import Blob, Census, Record, Snapshot
from lineshaft.core.task import State, Task
from lineshaft.store.base import Log, LogRecord, Ownership
from lineshaft.store.postgres.arrays import integers
from lineshaft.store.postgres.connections import Connection, Connections, Row
from lineshaft.store.postgres.history import History
from lineshaft.store.postgres.keys import key_of
from lineshaft.store.postgres.specs import MANY, ReadSpecs
from lineshaft.store.rows import decode_changes, decode_counters, decode_row, encode, share_numbers

AT_ONCE = 4_000
"""Rows of a load in one answer."""

_decode_rows = msgspec.msgpack.Decoder(list[Task]).decode


def decode_many(count: int, rows: bytes) -> list[Task]:
    """Decode rows that were put behind each other; a list of them but for its head is just that."""
    return _decode_rows(b"\xdd" + count.to_bytes(4, "big") + rows)


class Reader:
    """Reads one shard."""

    def __init__(self, schema: str, shard: int, connections: Connections) -> None:
        self.schema = schema
        self.shard = shard
        self.specs = ReadSpecs()
        self._connections = connections

    async def get(self, keys: Sequence[tuple[str, str]]) -> list[Task | None]:
        """Read rows by (tenant, id), in order of `keys`."""
        wanted = integers(list({key_of(*key) for key in keys}))
        if wanted is None:
            return []
        rows = await self._connections.run(
            f"SELECT spec, id, data FROM {self.schema}.find_tasks($1, $2)", (self.shard, wanted)
        )
        found: dict[tuple[str, str], Task] = {}
        for task in await self.tasks(rows):
            key = (task.tenant, task.id)
            if key not in found or found[key].seq < task.seq:
                found[key] = task
        return [found[key].snapshot() if key in found else None for key in keys]

    async def read(self, keys: Sequence[tuple[Blob, int]]) -> list[bytes | None]:
        """Read blobs by (kind, seq), in order of `keys`."""
        asked = list(dict.fromkeys(keys))
        if not asked:
            return []
        rows = await self._connections.run(
            f"SELECT kind, seq, data FROM {self.schema}.read_blobs($1, $2, $3)",
            (self.shard, integers([kind for kind, _ in asked]), integers([seq for _, seq in asked])),
        )
        found = {(kind, seq): bytes(data) for kind, seq, data in rows}
        return [found.get(key) for key in keys]

    async def log(self, after: int, limit: int) -> Log:
        """Read the log after a position, and where it begins."""
        rows = await self._connections.run(
            f"SELECT earliest, position, at, data FROM {self.schema}.read_log($1, $2, $3)",
            (self.shard, after, limit),
        )
        records = [
            LogRecord(position, at, decode_changes(data))
            for _, position, at, data in rows
            if position is not None
        ]
        return Log(records, rows[0][0])

    async def tasks(self, rows: Sequence[Row]) -> list[Task]:
        """Decode rows of (spec, id, data)."""
        numbers = [row[0] for row in rows]
        unknown = self.specs.unknown(numbers)
        if unknown:
            self.specs.learn(
                await self._connections.run(
                    f"SELECT id, tenant, data FROM {self.schema}.spec WHERE shard = $1 AND id = ANY ($2)",
                    (self.shard, integers(unknown)),
                )
            )
        tasks = [decode_row(row[2]) for row in rows]
        self.specs.put_into(tasks, numbers, [row[1] for row in rows])
        return share_numbers(tasks)

    async def load(self, ownership: Ownership, history: History, synchronous: str) -> Snapshot:
        """Read what the shard holds in memory, as of one instant."""

        async def load(connection: Connection) -> Snapshot:
            async with connection.transaction():
                await history.settle(connection, self.schema, ownership, synchronous)
                await _forget_unused_specs(connection, self.schema, ownership)
            async with connection.transaction():
                await connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
                # What was written since the last ANALYZE would be read whole for each portion.
                await connection.execute(
                    "SELECT set_config(name, 'off', true)"
                    " FROM unnest('{enable_seqscan,enable_bitmapscan,jit}'::text[]) AS name"
                )
                return await self._load(connection, ownership)

        return await self._connections.use(load)

    async def _load(self, connection: Connection, ownership: Ownership) -> Snapshot:
        async def rows(sql: str, *values: Any) -> list[Row]:
            cursor = connection.cursor(binary=True)
            await cursor.execute(sql.replace("@", self.schema), (self.shard, *values))
            return await cursor.fetchall()

        await rows("SELECT @.require_owned($1, $2, $3)", ownership.epoch, ownership.owner)
        [(position, counters)] = await rows("SELECT position, counters FROM @.shard WHERE id = $1")
        specs = await rows("SELECT id, tenant, data FROM @.spec WHERE shard = $1")
        self.specs.known.clear()
        self.specs.learn(specs)
        tasks: list[Task] = []
        after = -(2**63)
        while True:
            [(count, last, numbers, ids, data)] = await rows(
                "SELECT count(*), max(t.seq), array_agg(t.spec), array_agg(t.id),"
                " string_agg(t.data, ''::bytea)"
                " FROM (SELECT seq, spec, id, data FROM @.task_open WHERE shard = $1 AND seq > $2"
                " ORDER BY seq LIMIT $3) AS t",
                after,
                AT_ONCE,
            )
            if count:
                part = decode_many(count, data)
                self.specs.put_into(part, numbers, ids)
                tasks += share_numbers(part)
                after = last
            if count < AT_ONCE:
                break
        records = await rows(
            "SELECT kind, tenant, key, data FROM @.record WHERE shard = $1"
            ' ORDER BY kind COLLATE "C", tenant COLLATE "C", key COLLATE "C"'
        )
        finished = await rows(
            "SELECT s.tenant, s.queue, c.state, sum(c.tasks)::int8 FROM @.census AS c"
            " JOIN @.spec AS s ON s.shard = c.shard AND s.id = c.spec WHERE c.shard = $1 AND c.tasks > 0"
            " GROUP BY s.tenant, s.queue, c.state"
            ' ORDER BY s.tenant COLLATE "C", s.queue COLLATE "C", c.state'
        )
        return Snapshot(
            position=position,
            counters=decode_counters(counters or encode(())),
            tasks=tasks,
            records=[Record(kind, tenant, key, bytes(data)) for kind, tenant, key, data in records],
            finished=[Census(tenant, queue, State(state), n) for tenant, queue, state, n in finished],
        )


async def _forget_unused_specs(connection: Connection, schema: str, ownership: Ownership) -> None:
    """Where tasks were so various that specs are many, delete those that no task has any more."""
    cursor = await connection.execute(
        f"SELECT count(*) FROM (SELECT FROM {schema}.spec WHERE shard = $1 LIMIT {MANY}) AS s",
        (ownership.shard,),
    )
    row = await cursor.fetchone()
    if row is None or row[0] < MANY:
        return
    # Not the last one: its number shall not come again with another meaning.
    await connection.execute(f"SELECT FROM {schema}.shard WHERE id = $1 FOR SHARE", (ownership.shard,))
    await connection.execute(
        f"SELECT {schema}.require_owned($1, $2, $3)", (ownership.shard, ownership.epoch, ownership.owner)
    )
    for condition in ("spec", "census"):
        await connection.execute(
            f"DELETE FROM {schema}.{condition} AS s WHERE s.shard = $1 AND NOT EXISTS ("
            f"SELECT FROM {schema}.task_open AS t WHERE t.shard = $1 AND t.spec = s.{_number(condition)})"
            f" AND NOT EXISTS (SELECT FROM {schema}.task_ended AS t"
            f" WHERE t.shard = $1 AND t.spec = s.{_number(condition)})"
            f" AND s.{_number(condition)} < (SELECT max(id) FROM {schema}.spec WHERE shard = $1)",
            (ownership.shard,),
        )


def _number(table: str) -> str:
    return "id" if table == "spec" else "spec"
