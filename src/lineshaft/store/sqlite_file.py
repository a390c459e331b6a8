"""The place of a database file: whether it can hold one, how its name is made durable, and copies of it."""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3

from lineshaft.errors import Invalid
from lineshaft.store.base import StoreUnusable
from lineshaft.store.file_lock import file_system, is_network

logger = logging.getLogger("lineshaft.store")


def real_place(given: str) -> str:
    """Return the real path of a database, checked before anything is made. Raises `StoreUnusable`."""
    path = os.path.realpath(given)
    directory = os.path.dirname(path)
    if os.path.isdir(path):
        raise StoreUnusable(
            f"{path} is a directory: name a file in it, such as {os.path.join(path, 'jobs.db')}"
        )
    if not os.path.isdir(directory):
        raise StoreUnusable(f"{directory} is not a directory: make it, or name another file")
    if os.path.exists(path) and not os.path.isfile(path):
        raise StoreUnusable(f"{path} is not an ordinary file: name another")
    if os.path.exists(path) and os.stat(path).st_nlink > 1:
        # Each name has a lock and a log of its own: two coordinators would destroy the file.
        raise StoreUnusable(
            f"{path} has another name, too (a hard link), by which somebody else could open it: remove that "
            "name, or use a copy"
        )
    # SQLite makes the -wal and -shm beside the file, so both must be writable.
    for place in (directory, path):
        if os.path.exists(place) and not os.access(place, os.R_OK | os.W_OK):
            raise StoreUnusable(
                f"{place} cannot be written by this user (uid {os.geteuid()}): change its mode or owner"
            )
    _check_file_system(directory)
    return path


def _check_file_system(directory: str) -> None:
    kind = file_system(directory)
    if kind is None:
        logger.warning("cannot tell what file system holds %s: SQLite needs a local disk", directory)
        return
    verdict = is_network(kind)
    if verdict:
        raise StoreUnusable(
            f"{directory} is on a network file system ({kind}), whose locks and syncs SQLite cannot rely on: "
            "keep the store on a local disk"
        )
    if verdict is None:
        logger.warning("cannot tell whether %s (%s) is a local disk, which SQLite needs", directory, kind)


def place_of(path: str) -> tuple[int, int] | None:
    """Return device and inode of what a path names, None where there is nothing."""
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


def gone(path: str) -> str:
    """Say that the file that is open is not at its place, and what to do."""
    return (
        f"{path} has been moved, deleted or replaced while it was open: put it back, or stop Lineshaft and "
        "restore a backup"
    )


def sync_directory(path: str) -> None:
    """Make the name of a new file durable."""
    descriptor = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def copy_to(connection: sqlite3.Connection, target: str) -> int:
    """Copy the database, as of now and compacted, to a new file; return its size in bytes.

    The copy has its name only once it is whole and durable. Raises `Invalid` (field "path").
    """
    target = os.path.realpath(target)
    if os.path.lexists(target):
        raise Invalid(f"{target} exists already: a backup never overwrites, name another file", field="path")
    if not os.path.isdir(os.path.dirname(target)):
        raise Invalid(f"{os.path.dirname(target)} is not a directory", field="path")
    partial = f"{target}.partial"
    with contextlib.suppress(FileNotFoundError):
        os.unlink(partial)
    try:
        connection.execute("PRAGMA query_only = OFF")  # SQLite takes even this for a write
        connection.execute("VACUUM INTO ?", (partial,))
        descriptor = os.open(partial, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
            size = os.fstat(descriptor).st_size
        finally:
            os.close(descriptor)
        os.rename(partial, target)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(partial)
        raise
    sync_directory(target)
    return size
