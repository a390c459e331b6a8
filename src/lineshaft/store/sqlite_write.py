"""What the SQLite store writes: commits, acquisitions and the deletion of what is past its time."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import msgspec

from lineshaft.core.batch import Batch, Blob, Forgotten
from lineshaft.core.task import State, Task
from lineshaft.errors import Fenced
from lineshaft.store.base import Ownership, Rejected
from lineshaft.store.rows import encode, encode_row
from lineshaft.store.sqlite_idents import Generations, ident
from lineshaft.store.sqlite_rows import delete_rows, marks, read_rows, slices, write_rows
from lineshaft.store.sqlite_schema import BLOB_TABLES, shards
from lineshaft.store.sqlite_specs import Connection, SpecNumbers, forget_unused

_OPEN = "INSERT INTO task (seq, spec, state, run_at, row)"
_OPEN_AGAIN = (
    "ON CONFLICT (seq) DO UPDATE SET spec = excluded.spec, state = excluded.state, run_at = excluded.run_at,"
    " row = excluded.row, finished_at = NULL, prune_at = NULL, result_expires_at = NULL"
)
_ENDED = "INSERT INTO task (seq, spec, state, run_at, row, finished_at, prune_at, result_expires_at)"
_ENDED_AGAIN = (
    "ON CONFLICT (seq) DO UPDATE SET spec = excluded.spec, state = excluded.state, run_at = excluded.run_at,"
    " row = excluded.row, finished_at = excluded.finished_at, prune_at = excluded.prune_at,"
    " result_expires_at = excluded.result_expires_at"
)
_DENSE = 4
"""Rows in a stretch of the table for each of ours, up to which it is cheaper to count the whole stretch."""
_UNMAPPABLE = (OverflowError, UnicodeEncodeError, sqlite3.ProgrammingError, sqlite3.InterfaceError)


class Writer:
    """Apply batches over one connection, in its thread."""

    def __init__(self) -> None:
        self.generations = Generations()
        self._specs = SpecNumbers()

    def begin(self, connection: Connection) -> int:
        """Tidy up and learn what is there; return the number of shards."""
        with _transaction(connection):
            forget_unused(connection)
        self.generations.load(connection)
        return shards(connection)

    def acquire(self, connection: sqlite3.Connection, shard: int, owner: bytes) -> Ownership:
        """Take the shard under the next epoch."""
        with _transaction(connection):
            rows = connection.execute(
                "UPDATE shard SET epoch = epoch + 1, owner = ? WHERE id = ? RETURNING epoch", (owner, shard)
            ).fetchall()
        return Ownership(shard, rows[0][0], owner)

    def release(self, connection: sqlite3.Connection, ownership: Ownership) -> None:
        """Leave the shard without an owner, if it is ours."""
        with _transaction(connection):
            connection.execute(
                "UPDATE shard SET owner = NULL WHERE id = ? AND epoch = ? AND owner = ?",
                (ownership.shard, ownership.epoch, ownership.owner),
            )

    def commit(self, connection: sqlite3.Connection, ownership: Ownership, batch: Batch) -> None:
        """Apply the batch if the shard is ours and the batch is the next; succeed if it was the last."""
        try:
            counters, changes = encode(batch.counters), encode(batch.changes)
            rows = [encode_row(task, task.id) for task in batch.tasks]
        except (OverflowError, ValueError, TypeError, msgspec.MsgspecError) as error:
            raise Rejected(f"a row cannot be encoded: {error}") from error
        try:
            with _transaction(connection):
                self._advance(connection, ownership, batch, counters)
                _forget(connection, batch.forgotten)
                self._put_tasks(connection, batch.tasks, rows)
                _put_blobs(connection, batch.blobs)
                _put_records(connection, batch)
                connection.execute(
                    "INSERT INTO log VALUES (?, ?, ?)", (batch.position, batch.counters.now, changes)
                )
        except _AlreadyApplied:
            return
        except BaseException as error:
            # What was rolled back may have given numbers to specs that are remembered here.
            self._specs.clear()
            if isinstance(error, _UNMAPPABLE):
                raise Rejected(f"a value cannot be stored: {error}") from error
            raise

    def continue_from(self, connection: sqlite3.Connection, ownership: Ownership, position: int) -> None:
        """See `base.Continues`."""
        with _transaction(connection):
            require_owned(connection, ownership)
            connection.execute(
                "UPDATE shard SET position = ?, nonce = x'' WHERE id = ?", (position, ownership.shard)
            )
            connection.execute("DELETE FROM log")

    def prune(
        self,
        connection: Connection,
        before: int,
        limit: int,
        removed: Counter[tuple[str, str, State]],
    ) -> int:
        """Delete finished tasks that are due, at most `limit`; count them into `removed`, return how many."""
        with _transaction(connection):
            rows = connection.execute(
                "SELECT spec, row FROM task INDEXED BY task_finished WHERE state >= 5 AND prune_at <= ?"
                " ORDER BY prune_at, seq LIMIT ?",
                (before, limit),
            ).fetchall()
            tasks = connection.read_tasks(rows)
            _forget(connection, [Forgotten(task.seq, task.tenant, task.id) for task in tasks])
        self.generations.drop_empty(connection)
        removed.update((task.tenant, task.spec.queue, task.state) for task in tasks)
        return len(tasks)

    def expire_results(self, connection: sqlite3.Connection, before: int, limit: int) -> int:
        """Delete results past their time, at most `limit`; return how many."""
        with _transaction(connection):
            rows = connection.execute(
                "SELECT seq FROM task INDEXED BY task_result_expiry WHERE result_expires_at <= ?"
                " ORDER BY result_expires_at, seq LIMIT ?",
                (before, limit),
            ).fetchall()
            keys = [seq for (seq,) in rows]
            delete_rows(connection, BLOB_TABLES[Blob.RESULT], keys)
            for part in slices(keys):
                connection.execute(
                    f"UPDATE task SET result_expires_at = NULL WHERE seq IN {marks(len(part), 1)}", part
                )
        return len(keys)

    def truncate_log(self, connection: sqlite3.Connection, before: int, limit: int) -> int:
        """Delete the beginning of the log that is older than `before`, at most `limit` records."""
        with _transaction(connection):
            rows = connection.execute("SELECT position, at FROM log ORDER BY position LIMIT ?", (limit,))
            end = None
            for position, at in rows.fetchall():
                if at >= before:
                    break
                end = position
            if end is None:
                return 0
            return connection.execute("DELETE FROM log WHERE position <= ?", (end,)).rowcount

    def _advance(
        self, connection: sqlite3.Connection, ownership: Ownership, batch: Batch, counters: bytes
    ) -> None:
        changed = connection.execute(
            "UPDATE shard SET position = ?, nonce = ?, counters = ?"
            " WHERE id = ? AND epoch = ? AND owner = ? AND position = ?",
            (
                batch.position,
                batch.nonce,
                counters,
                ownership.shard,
                ownership.epoch,
                ownership.owner,
                batch.position - 1,
            ),
        ).rowcount
        if not changed:
            nonce, position = require_owned(connection, ownership, "nonce, position")
            if (position, nonce) == (batch.position, batch.nonce):
                raise _AlreadyApplied
            raise Fenced(f"the store is at position {position}, so {batch.position} is not the next")

    def _put_tasks(self, connection: sqlite3.Connection, tasks: list[Task], rows: list[bytes]) -> None:
        idents = [ident(task.tenant, task.id, task.seq) for task in _new_tasks(connection, tasks)]
        number = self._specs.number
        open_rows: list[tuple[Any, ...]] = []
        ended_rows: list[tuple[Any, ...]] = []
        for task, row in zip(tasks, rows, strict=True):
            run = task.run
            values = (task.seq, number(connection, task), int(task.state), task.run_at, row)
            if run is None or run.finished_at is None:
                open_rows.append(values)
            elif task.state < State.COMPLETED:
                ended_rows.append((*values, run.finished_at, None, None))
            else:
                ended_rows.append((*values, run.finished_at, run.prune_at, run.result_expires_at))
        write_rows(connection, _OPEN, open_rows, tail=_OPEN_AGAIN)
        write_rows(connection, _ENDED, ended_rows, tail=_ENDED_AGAIN)
        self.generations.add(idents)
        write_rows(connection, "INSERT OR REPLACE INTO ident", idents)


def require_owned(
    connection: sqlite3.Connection, ownership: Ownership, columns: str = "position, counters"
) -> tuple[Any, ...]:
    """Return columns of the shard. Raises `Fenced` where the ownership is void."""
    row = connection.execute(
        f"SELECT epoch, owner, {columns} FROM shard WHERE id = ?", (ownership.shard,)
    ).fetchone()
    if row[:2] != (ownership.epoch, ownership.owner):
        raise Fenced(f"shard {ownership.shard} is at epoch {row[0]}, not {ownership.epoch} of this owner")
    return tuple(row[2:])


class _AlreadyApplied(Exception):
    """The batch is the one that was applied last."""


@contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _new_tasks(connection: sqlite3.Connection, tasks: list[Task]) -> list[Task]:
    """Return the tasks that have no row yet; only they need an identity, which costs more than their row."""
    if not tasks:
        return []
    (highest,) = connection.execute("SELECT max(seq) FROM task").fetchone()
    old = [] if highest is None else [task.seq for task in tasks if task.seq <= highest]
    if not old:
        return tasks
    if _all_known(connection, old):
        return [task for task in tasks if task.seq > highest]
    known = {seq for (seq,) in read_rows(connection, "SELECT seq FROM task", old)}
    return [task for task in tasks if task.seq not in known]


def _all_known(connection: sqlite3.Connection, seqs: list[int]) -> bool:
    """Tell, where that is cheap, whether all have a row."""
    first, last = min(seqs), max(seqs)
    if last - first >= _DENSE * len(seqs):
        return False
    (count,) = connection.execute(
        "SELECT count(*) FROM task WHERE seq BETWEEN ? AND ?", (first, last)
    ).fetchone()
    return bool(count == last - first + 1)


def _forget(connection: sqlite3.Connection, gone: Iterable[Forgotten]) -> None:
    gone = list(gone)
    if not gone:
        return
    keys = [each.seq for each in gone]
    for table in ("task", *BLOB_TABLES):
        delete_rows(connection, table, keys)
    connection.executemany(
        "DELETE FROM ident WHERE at = ? AND digest = ? AND seq = ?",
        [ident(each.tenant, each.id, each.seq) for each in gone],
    )


def _put_blobs(connection: sqlite3.Connection, blobs: list[tuple[Blob, int, bytes | None]]) -> None:
    by_kind: dict[Blob, dict[int, bytes | None]] = {}
    for kind, seq, data in blobs:
        by_kind.setdefault(kind, {})[seq] = data
    for kind, values in by_kind.items():
        table = BLOB_TABLES[kind]
        kept = [(seq, data) for seq, data in values.items() if data is not None]
        write_rows(connection, f"INSERT OR REPLACE INTO {table}", kept)
        if len(kept) < len(values):
            delete_rows(connection, table, [seq for seq, data in values.items() if data is None])


def _put_records(connection: sqlite3.Connection, batch: Batch) -> None:
    for record in batch.records:
        if record.data is None:
            connection.execute(
                "DELETE FROM record WHERE kind = ? AND tenant = ? AND key = ?",
                (record.kind, record.tenant, record.key),
            )
        else:
            connection.execute(
                "INSERT OR REPLACE INTO record VALUES (?, ?, ?, ?)",
                (record.kind, record.tenant, record.key, record.data),
            )
