"""The roster of a SQLite file, beside what else is told of the file as a whole."""

from __future__ import annotations

import sqlite3

from lineshaft.store.base import Roster


def read(connection: sqlite3.Connection) -> Roster:
    """Return what is there; version 0 where nothing was written yet."""
    found = dict(connection.execute("SELECT key, value FROM meta WHERE key IN ('roster', 'roster_version')"))
    return Roster(found.get("roster_version", 0), found.get("roster", b""))


def swap(connection: sqlite3.Connection, expected: int, data: bytes) -> Roster:
    """Replace it if its version is still `expected`; return what is there then."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        present = read(connection)
        if present.version == expected:
            present = Roster(expected + 1, data)
            connection.executemany(
                "INSERT OR REPLACE INTO meta VALUES (?, ?)",
                [("roster_version", present.version), ("roster", data)],
            )
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    return present
