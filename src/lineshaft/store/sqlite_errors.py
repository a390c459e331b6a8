"""What an error of SQLite means for whoever asked."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

import msgspec

from lineshaft.errors import LineshaftError, Unavailable
from lineshaft.store.base import Rejected, StoreCorrupt, StoreUnusable
from lineshaft.store.sqlite_file import gone, place_of

_RECOVERY = (
    "stop Lineshaft, keep a copy of the file with its -wal and -shm, then restore a backup "
    "or try `sqlite3 FILE .recover`"
)
_UNMAPPABLE = (sqlite3.SQLITE_TOOBIG, sqlite3.SQLITE_MISMATCH, sqlite3.SQLITE_CONSTRAINT)
_CORRUPT = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
_PLACE = (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM, sqlite3.SQLITE_AUTH)
_ABSENT = (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY)

_ADVICE = {
    sqlite3.SQLITE_FULL: "Free some space there: it goes on by itself, and nothing acknowledged is lost",
    sqlite3.SQLITE_IOERR: "Look into the system's log for what is wrong with the disk: it is tried again",
    sqlite3.SQLITE_READONLY: "Make the file and its directory writable again: it is tried again",
    sqlite3.SQLITE_CANTOPEN: "Make the file and its directory accessible again: it is tried again",
    sqlite3.SQLITE_BUSY: "Another program has locked the database: close it, it is tried again",
}


@contextmanager
def translated(path: str, *, opening: bool = False) -> Iterator[None]:
    """Raise SQLite's errors as ours; what no other fits is `Unavailable`: the outcome is unknown."""
    try:
        yield
    except sqlite3.Error as error:
        raise _translate(path, error, opening=opening) from error
    except msgspec.MsgspecError as error:
        raise StoreCorrupt(f"a row of {path} cannot be read ({error}): {_RECOVERY}") from error


def _translate(path: str, error: sqlite3.Error, *, opening: bool) -> LineshaftError:
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    name = getattr(error, "sqlite_errorname", type(error).__name__)
    what = f"{path}: {error} ({name})"
    if code in _CORRUPT:
        return StoreCorrupt(f"{what}. The file is damaged or is not an SQLite database: {_RECOVERY}")
    # The module itself finds some values too large, before SQLite sees them: those errors have no code.
    if code in _UNMAPPABLE or isinstance(error, sqlite3.DataError):
        return Rejected(what)
    if opening and code in _PLACE:
        return StoreUnusable(f"{what}. Check that the file and its directory can be written")
    if opening and code == sqlite3.SQLITE_BUSY:
        return StoreUnusable(f"{what}. Another program has the database open: close it")
    advice = _ADVICE.get(code)
    if code in _ABSENT and place_of(path) is None:
        return Unavailable(gone(path), retry_after=1)
    return Unavailable(f"{what}. {advice}" if advice else what, retry_after=1)
