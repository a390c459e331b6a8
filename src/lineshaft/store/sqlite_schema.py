"""The tables of the SQLite store, as numbered migrations: version n is what the first n of them make.

Rows are MessagePack with the few columns beside them that are filtered, sorted or pruned by; tenant and
spec (queue, name, settings) are kept once for all tasks alike, in `spec`. Two partial indexes earn their cost
(0.5 and 0.3 µs a task life): open tasks, so that a load does not read a week of finished ones, and finished
tasks by the time they are pruned, which also covers counting them. Payloads and results have tables of their
own, so that a change of state never rewrites them.

Version 1 kept tenant and spec in every row, and the texts of ids in the index.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable

from lineshaft.store.base import SchemaTooNew, StoreUnusable
from lineshaft.store.sqlite_compaction import compact

APPLICATION_ID = 0x4C696E65  # "Line" in the file's header, so that `file` and we know whose database this is.

BLOB_TABLES = ("payload", "result", "checkpoint", "carry")
"""The table of each kind of blob, in the order of `core.batch.Blob`."""

_BLOBS = "".join(
    f"CREATE TABLE {table} (seq INTEGER PRIMARY KEY, data BLOB NOT NULL);\n" for table in BLOB_TABLES
)

Migration = str | Callable[[sqlite3.Connection], None]
"""A script of statements, each of which ends with a semicolon and holds no other; or a function."""

MIGRATIONS: tuple[Migration, ...] = (
    f"""
    CREATE TABLE kind (
        id INTEGER PRIMARY KEY, tenant TEXT NOT NULL, queue TEXT NOT NULL, name TEXT NOT NULL,
        UNIQUE (tenant, queue, name)
    );
    CREATE TABLE task (
        seq INTEGER PRIMARY KEY, kind INTEGER NOT NULL, state INTEGER NOT NULL, priority INTEGER NOT NULL,
        run_at INTEGER NOT NULL, finished_at INTEGER, prune_at INTEGER, result_expires_at INTEGER,
        row BLOB NOT NULL
    );
    CREATE INDEX task_open ON task (seq) WHERE state < 5;
    CREATE INDEX task_finished ON task (prune_at, kind, state) WHERE state >= 5;
    CREATE INDEX task_result_expiry ON task (result_expires_at) WHERE result_expires_at IS NOT NULL;
    CREATE TABLE ident (
        tenant TEXT NOT NULL, id TEXT NOT NULL, seq INTEGER NOT NULL, PRIMARY KEY (tenant, id)
    ) WITHOUT ROWID;
    {_BLOBS}
    CREATE TABLE record (
        kind TEXT NOT NULL, tenant TEXT NOT NULL, key TEXT NOT NULL, data BLOB NOT NULL,
        PRIMARY KEY (kind, tenant, key)
    ) WITHOUT ROWID;
    CREATE TABLE log (position INTEGER PRIMARY KEY, at INTEGER NOT NULL, data BLOB NOT NULL);
    CREATE TABLE shard (
        id INTEGER PRIMARY KEY, epoch INTEGER NOT NULL, owner BLOB, position INTEGER NOT NULL,
        nonce BLOB NOT NULL, counters BLOB NOT NULL
    );
    INSERT INTO shard VALUES (0, 0, NULL, 0, x'', x'');
    """,
    compact,
)


def prepare(connection: sqlite3.Connection) -> None:
    """Make the tables, or bring those of an older version up to date; each migration is one transaction.

    Raises `SchemaTooNew`, and `StoreUnusable` for another program's database.
    """
    version = _version(connection)
    if version > len(MIGRATIONS):
        raise SchemaTooNew(
            f"the store has schema version {version}, this Lineshaft knows up to {len(MIGRATIONS)}: "
            "install the newer Lineshaft that wrote it, or restore a backup from before the upgrade"
        )
    for number, migration in enumerate(MIGRATIONS[version:], start=version + 1):
        _migrate(connection, number, migration)


def shards(connection: sqlite3.Connection) -> int:
    """Return the number of shards that was fixed when the store was made."""
    (value,) = connection.execute("SELECT value FROM meta WHERE key = 'shards'").fetchone()
    return int(value)


def _version(connection: sqlite3.Connection) -> int:
    """Return the schema version; 0 for an empty file."""
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    if not tables:
        return 0
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    if application != APPLICATION_ID:
        raise StoreUnusable("this is a database of another program: name another file for the store")
    (value,) = connection.execute("SELECT value FROM meta WHERE key = 'schema_version'").fetchone()
    return int(value)


def _migrate(connection: sqlite3.Connection, number: int, migration: Migration) -> None:
    connection.execute("BEGIN IMMEDIATE")
    try:
        if number == 1:
            _make_meta(connection)
        if isinstance(migration, str):
            for statement in migration.split(";"):
                connection.execute(statement)
        else:
            migration(connection)
        connection.execute("UPDATE meta SET value = ? WHERE key = 'schema_version'", (number,))
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _make_meta(connection: sqlite3.Connection) -> None:
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute("CREATE TABLE meta (key TEXT PRIMARY KEY, value) WITHOUT ROWID")
    created_at = time.time_ns() // 1_000_000
    connection.executemany(
        "INSERT INTO meta VALUES (?, ?)", [("schema_version", 0), ("shards", 1), ("created_at", created_at)]
    )
