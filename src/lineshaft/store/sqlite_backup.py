"""Copies of a SQLite store: made while it is in use, by whatever process, and put in its place again.

A reader with a connection of its own sees one instant of the database, whoever writes; the lock of the
coordinator is on another file and does not keep it out.

What a coordinator acknowledged after a backup is gone when it is restored, but clients and workers remember:
positions, arrivals and fences. So those go on beyond all that can have been handed out since, and the log
begins anew: a worker that was given a task meanwhile is fenced, and whoever follows the changes is told that
some are missing.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time

import msgspec

from lineshaft.core.batch import Counters
from lineshaft.errors import Conflict, Invalid
from lineshaft.store.base import SchemaTooNew, StoreCorrupt, StoreUnusable
from lineshaft.store.file_lock import FileLock
from lineshaft.store.rows import decode_counters, encode
from lineshaft.store.sqlite_errors import translated
from lineshaft.store.sqlite_file import real_place, sync_directory
from lineshaft.store.sqlite_schema import APPLICATION_ID, MIGRATIONS

A_MILLISECOND = 100
"""Arrivals, fences or positions that no coordinator hands out within a millisecond."""

AT_LEAST = 1 << 24
"""By how much they go on in any case: clocks may be wrong."""

BUSY = 5.0


class Backup(msgspec.Struct, frozen=True):
    """What a file holds: tasks, the shard's time (ms) at which it was made, and its size in bytes."""

    tasks: int
    at: int
    size: int


class Restored(msgspec.Struct, frozen=True):
    """What was restored, and where the file is now that was there before (None: there was none)."""

    backup: Backup
    kept: str | None


def back_up(path: str, target: str, *, overwrite: bool = False) -> Backup:
    """Copy the store at `path`, as of now and compacted, to a file; it has its name once it is whole, durable
    and checked.

    Raises `Conflict` where there is a file and not `overwrite`, `Invalid` (field "file"), `StoreUnusable`,
    `StoreCorrupt`.
    """
    path, target = os.path.realpath(path), os.path.realpath(target)
    if not os.path.isfile(path):
        raise StoreUnusable(f"there is no store at {path}")
    _check_target(path, target, overwrite=overwrite)
    partial = f"{target}.partial"
    _unlink(partial)
    try:
        with translated(path), contextlib.closing(_connect(path)) as connection:
            _require_ours(connection, path)
            connection.execute("VACUUM INTO ?", (partial,))
        found = check(partial)
        _sync(partial)
        os.replace(partial, target)
    finally:
        _unlink(partial)
    sync_directory(target)
    return found


def check(path: str) -> Backup:
    """Look whether a file is a whole store that this version can open.

    Raises `StoreUnusable`, `SchemaTooNew`, `StoreCorrupt`.
    """
    if not os.path.isfile(path):
        raise StoreUnusable(f"there is no file {path}")
    with translated(path, opening=True), contextlib.closing(_connect(path, mode="ro")) as connection:
        _require_ours(connection, path)
        for (said,) in connection.execute("PRAGMA integrity_check(1)"):
            if said != "ok":
                raise StoreCorrupt(f"{path} is damaged: {said}")
        (tasks,) = connection.execute("SELECT count(*) FROM task").fetchone()
        return Backup(tasks, _counters(connection).now, os.path.getsize(path))


def restore(file: str, path: str, *, now: int | None = None) -> Restored:
    """Put a backup in the place of the store at `path`, which nobody may have open; what was there is kept
    beside it.

    `now` is in ms since the epoch. Raises `StoreInUse`, and what `check` raises; then nothing was changed.
    """
    found = check(os.path.realpath(file))
    path = real_place(path)
    if os.path.realpath(file) == path:
        raise Invalid("this is the store itself: name a backup of it", field="file")
    now = time.time_ns() // 1_000_000 if now is None else now
    lock = FileLock(path, address="a restore, no address")
    try:
        partial = f"{path}.restoring"
        _unlink(partial)
        try:
            with translated(path):
                known = _before(path)
                _copy(os.path.realpath(file), partial)
                _go_on(partial, known, now)
            check(partial)
            if os.path.exists(path):
                os.chmod(partial, os.stat(path).st_mode & 0o777)
            _sync(partial)
            kept = _keep(path, now)
            os.rename(partial, path)
        finally:
            _unlink(partial)
        sync_directory(path)
    finally:
        lock.release()
    return Restored(found, kept)


def _check_target(path: str, target: str, *, overwrite: bool) -> None:
    if not os.path.isdir(os.path.dirname(target)):
        raise Invalid(f"{os.path.dirname(target)} is not a directory", field="file")
    if target in (path, f"{path}-wal", f"{path}-shm", f"{path}.lock"):
        raise Invalid(f"{target} belongs to the store itself: name another file", field="file")
    if os.path.lexists(target) and not (overwrite and os.path.isfile(target)):
        raise Conflict(f"{target} exists already: name another file, or say --force", field="file")


def _connect(path: str, *, mode: str = "rw") -> sqlite3.Connection:
    # By a URI, so that a file which is not there is not made.
    name = path.replace("%", "%25").replace("?", "%3f").replace("#", "%23")
    return sqlite3.connect(f"file:{name}?mode={mode}", uri=True, timeout=BUSY, isolation_level=None)


def _require_ours(connection: sqlite3.Connection, path: str) -> None:
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    if application != APPLICATION_ID:
        raise StoreUnusable(f"{path} is not a store of Lineshaft")
    (version,) = connection.execute("SELECT value FROM meta WHERE key = 'schema_version'").fetchone()
    if int(version) > len(MIGRATIONS):
        raise SchemaTooNew(
            f"{path} has schema version {version}, this Lineshaft knows up to {len(MIGRATIONS)}: install the "
            "newer Lineshaft that wrote it"
        )


def _counters(connection: sqlite3.Connection) -> Counters:
    (data,) = connection.execute("SELECT counters FROM shard WHERE id = 0").fetchone()
    return decode_counters(data) if data else Counters()


def _before(path: str) -> tuple[int, int, Counters]:
    """Return epoch, position and counters of what is there; read only, for it may be damaged."""
    nothing = 0, 0, Counters()
    if not os.path.exists(path):
        return nothing
    try:
        with contextlib.closing(_connect(path, mode="ro")) as connection:
            _require_ours(connection, path)
            epoch, position = connection.execute("SELECT epoch, position FROM shard WHERE id = 0").fetchone()
            return epoch, position, _counters(connection)
    except (sqlite3.Error, msgspec.MsgspecError, StoreUnusable, SchemaTooNew):
        return nothing


def _copy(file: str, target: str) -> None:
    source, copy = _connect(file, mode="ro"), _connect(target, mode="rwc")
    with contextlib.closing(source), contextlib.closing(copy):
        source.backup(copy)


def _go_on(path: str, before: tuple[int, int, Counters], now: int) -> None:
    """Let nothing be handed out twice that may have been since the backup was made."""
    with contextlib.closing(_connect(path)) as connection:
        epoch, position = connection.execute("SELECT epoch, position FROM shard WHERE id = 0").fetchone()
        counters = _counters(connection)
        known_epoch, known_position, known = before
        leap = AT_LEAST + max(0, now - counters.now) * A_MILLISECOND
        beyond = known.or_later(Counters(counters.now, counters.seq + leap, counters.fence + leap))
        connection.execute("BEGIN IMMEDIATE")
        connection.execute(
            "UPDATE shard SET epoch = ?, owner = NULL, position = ?, nonce = x'', counters = ? WHERE id = 0",
            (max(epoch, known_epoch) + 1, max(position + leap, known_position), encode(beyond)),
        )
        connection.execute("DELETE FROM log")
        connection.execute("COMMIT")


def _keep(path: str, now: int) -> str | None:
    """Give what is there another name, too, and its log only that: it must not be taken for another's.

    Should all end in between, the file has two names, and is not opened before somebody has looked at it.
    """
    if not os.path.exists(path):
        return None
    moment = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now / 1000))
    kept = f"{path}.before-{moment}"
    number = 1
    while os.path.lexists(kept):
        number += 1
        kept = f"{path}.before-{moment}-{number}"
    os.link(path, kept)
    for rest in ("-wal", "-shm"):
        with contextlib.suppress(FileNotFoundError):
            os.rename(f"{path}{rest}", f"{kept}{rest}")
    return kept


def _sync(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _unlink(path: str) -> None:
    for rest in ("", "-journal", "-wal", "-shm"):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(f"{path}{rest}")
