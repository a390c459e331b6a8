"""From version 1 of the schema to 2: specs are kept once, rows without them, and ids as numbers."""

from __future__ import annotations

import sqlite3
from typing import Any

import msgspec

from lineshaft.core.stored_ids import RECORD, is_time_ordered, last_id_like
from lineshaft.core.task import FINGERPRINTS
from lineshaft.store.sqlite_idents import ident

_AT_ONCE = 1_000

_TABLES = """
    CREATE TABLE spec (
        id INTEGER PRIMARY KEY, tenant TEXT NOT NULL, queue TEXT NOT NULL, name TEXT NOT NULL,
        priority INTEGER NOT NULL, data BLOB NOT NULL, UNIQUE (tenant, data)
    );
    CREATE TABLE ident (
        at INTEGER NOT NULL, digest INTEGER NOT NULL, seq INTEGER NOT NULL, PRIMARY KEY (at, digest, seq)
    ) WITHOUT ROWID;
    ALTER TABLE task RENAME TO task_1;
    DROP INDEX task_open;
    DROP INDEX task_finished;
    DROP INDEX task_result_expiry;
    CREATE TABLE task (
        seq INTEGER PRIMARY KEY, spec INTEGER NOT NULL, state INTEGER NOT NULL, run_at INTEGER NOT NULL,
        finished_at INTEGER, prune_at INTEGER, result_expires_at INTEGER, row BLOB NOT NULL
    );
    CREATE INDEX task_open ON task (seq) WHERE state < 5;
    CREATE INDEX task_finished ON task (prune_at, seq, spec, state) WHERE state >= 5;
    CREATE INDEX task_result_expiry ON task (result_expires_at) WHERE result_expires_at IS NOT NULL
"""
_COLUMNS = "seq, state, run_at, finished_at, prune_at, result_expires_at, row"
_PRIORITY = 2
_FINGERPRINT = 7


def compact(connection: sqlite3.Connection) -> None:
    """Copy all tasks into tables of the new layout."""
    connection.execute("DROP TABLE ident")
    for statement in _TABLES.split(";"):
        connection.execute(statement)
    specs: dict[tuple[str, bytes], int] = {}
    highest: dict[str, str] = {}
    after: int | None = None
    while True:
        rows = connection.execute(
            f"SELECT {_COLUMNS} FROM task_1 WHERE ? IS NULL OR seq > ? ORDER BY seq LIMIT {_AT_ONCE}",
            (after, after),
        ).fetchall()
        if not rows:
            break
        for row in rows:
            tenant, id = _copy(connection, specs, row)
            if is_time_ordered(id) and id > highest.get(tenant, ""):
                highest[tenant] = id
        after = rows[-1][0]
    # Nobody noted in version 1 which ids were ahead of their time, so all of them count as such.
    connection.executemany(
        "INSERT INTO record VALUES (?, ?, '', ?)",
        [(RECORD, tenant, last_id_like(id).encode()) for tenant, id in highest.items()],
    )
    connection.execute("DROP TABLE task_1")
    connection.execute("DROP TABLE kind")


def _copy(
    connection: sqlite3.Connection, specs: dict[tuple[str, bytes], int], row: tuple[Any, ...]
) -> tuple[str, str]:
    """Copy one task; return its tenant and id."""
    *columns, data = row
    # What rows were in version 1, whatever they become: seq, tenant, id, spec, then what stays as it is.
    seq, tenant, id, spec, *rest = msgspec.msgpack.decode(data)
    rest[_FINGERPRINT] %= FINGERPRINTS
    key = (tenant, msgspec.msgpack.encode(spec))
    number = specs.get(key)
    if number is None:
        number = specs[key] = len(specs) + 1
        connection.execute(
            "INSERT INTO spec VALUES (?, ?, ?, ?, ?, ?)",
            (number, tenant, spec[1], spec[0], spec[_PRIORITY], key[1]),
        )
    connection.execute("INSERT INTO ident VALUES (?, ?, ?)", ident(tenant, id, seq))
    connection.execute(
        "INSERT INTO task VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (seq, number, *columns[1:], msgspec.msgpack.encode([seq, "", id, [""], *rest])),
    )
    return tenant, id
