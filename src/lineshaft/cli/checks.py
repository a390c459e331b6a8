"""What `lineshaft doctor` checks of the machine and of a store; each looks at one thing."""

from __future__ import annotations

import contextlib
import os
import platform
import resource
import shutil
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import msgspec

from lineshaft.cli.findings import Finding, ok, trouble, warning
from lineshaft.errors import LineshaftError
from lineshaft.store.base import Inspectable
from lineshaft.store.file_lock import Holder, file_system, is_network

if TYPE_CHECKING:
    from lineshaft.store.base import Store

FEW_FILES = 4096
LITTLE_SPACE = 1 << 30
HARDLY_ANY_SPACE = 64 << 20
MAX_SKEW = 1.0
OLDEST_SQLITE = (3, 35, 0)
"""The first with RETURNING."""
BUILT_IN_2025 = 1_735_689_600.0
"""No clock that goes right shows less."""


def machine() -> Iterator[Finding]:
    """Check the versions, the limits and the clock of this machine."""
    yield ok("python", f"{platform.python_version()} ({platform.python_implementation()})")
    yield _sqlite_version()
    yield _open_files()
    now = time.time()
    if now < BUILT_IN_2025:
        yield trouble(
            "clock", time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now)), "set the clock, or start NTP"
        )
    else:
        yield ok("clock", time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now)))


def _sqlite_version() -> Finding:
    if sqlite3.sqlite_version_info < OLDEST_SQLITE:
        needed = ".".join(map(str, OLDEST_SQLITE))
        return trouble(
            "sqlite",
            f"{sqlite3.sqlite_version}, older than {needed}",
            "use a Python that was built with a newer SQLite: this one cannot open a store in a file",
        )
    return ok("sqlite", sqlite3.sqlite_version)


def _open_files() -> Finding:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < FEW_FILES:
        can = "unlimited" if hard == resource.RLIM_INFINITY else hard
        return warning(
            "open files",
            f"{soft} at most",
            f"a connection takes one: `ulimit -n {can}` before `lineshaft serve` (LimitNOFILE= in systemd)",
        )
    return ok("open files", "unlimited" if soft == resource.RLIM_INFINITY else f"{soft} at most")


async def store(url: str) -> list[Finding]:
    """Check a store without opening it: a coordinator may be at work on it."""
    from lineshaft.store.urls import open_store

    try:
        found: Store = open_store(url)
    except LineshaftError as error:
        return [trouble("store", url, error.reason)]
    if isinstance(found, Inspectable):
        return await _inspected(found.url, found)
    if found.tier == "none":
        return [
            warning("store", found.url, "nothing survives a restart; use sqlite:///jobs.db for what matters")
        ]
    place = _sqlite_file(url)
    if place is None:
        return [ok("store", f"{found.url}, survives {found.tier}; a kind of store that is not looked into")]
    return list(_sqlite(place))


async def _inspected(url: str, found: Inspectable) -> list[Finding]:
    try:
        tier = await found.inspect()
    except LineshaftError as error:
        return [trouble("store", url, error.reason)]
    if tier == "none":
        return [warning("store", f"{url}, survives {tier}", "; ".join(found.notices()))]
    return [
        ok("store", f"{url}, survives {tier}"),
        *(warning("store", url, notice) for notice in found.notices()),
    ]


def served_at(url: str) -> str | None:
    """Return the address of the coordinator that has this store open, None where there is none."""
    place = _sqlite_file(url)
    holder = None if place is None else holder_of(place)
    return holder.address if holder is not None and holder.address.startswith("http") else None


def _sqlite_file(url: str) -> Path | None:
    from lineshaft.store.sqlite import SQLiteStore
    from lineshaft.store.urls import open_store

    with contextlib.suppress(LineshaftError):
        found = open_store(url)
        if isinstance(found, SQLiteStore):
            return Path(os.path.realpath(found.url.removeprefix("sqlite:///")))
    return None


def _sqlite(path: Path) -> Iterator[Finding]:
    directory = path.parent
    if not directory.is_dir():
        yield trouble("store", f"{directory} is not there", f"mkdir -p {directory}, or name another file")
        return
    if path.is_dir():
        yield trouble("store", f"{path} is a directory", "name a file in it")
        return
    unwritable = [
        str(place) for place in (directory, path) if place.exists() and not os.access(place, os.W_OK)
    ]
    if unwritable:
        yield trouble(
            "store", f"{unwritable[0]} cannot be written by uid {os.geteuid()}", "change its mode or owner"
        )
    elif not path.exists() and holder_of(path) is not None:
        yield trouble(
            "store",
            f"{path} has been moved or deleted while a coordinator has it open",
            "put it back, or stop the coordinator and restore a backup",
        )
    elif not path.exists():
        yield ok("store", f"{path} is made by the first `lineshaft serve`")
    elif path.stat().st_nlink > 1:
        yield trouble(
            "store",
            f"{path} has another name, too (a hard link), and so another lock and log",
            "remove that name, or make it a copy",
        )
    else:
        log = path.with_name(f"{path.name}-wal")  # what is not in the file yet
        size = path.stat().st_size + (log.stat().st_size if log.exists() else 0)
        yield ok("store", f"{path}, {_size(size)}")
    yield _file_system(directory)
    yield _space(directory)
    yield _lock(path)
    if path.is_file() and os.access(path, os.R_OK):
        yield from _contents(path)


def _file_system(directory: Path) -> Finding:
    kind = file_system(str(directory))
    verdict = None if kind is None else is_network(kind)
    if verdict:
        return trouble("file system", f"{kind}, over a network", "keep the store on a local disk")
    if kind is None or verdict is None:
        return warning(
            "file system", kind or "unknown", "make sure that it is a local disk: SQLite needs one"
        )
    if kind in ("tmpfs", "ramfs"):
        return warning("file system", f"{kind}, in memory", "nothing survives a reboot there; use a disk")
    return ok("file system", kind)


def _space(directory: Path) -> Finding:
    free = shutil.disk_usage(directory).free
    if free < HARDLY_ANY_SPACE:
        return trouble("free space", _size(free), "make room: a full disk stops the coordinator")
    if free < LITTLE_SPACE:
        return warning("free space", _size(free), "make room before the disk is full")
    return ok("free space", _size(free))


def _lock(path: Path) -> Finding:
    holder = holder_of(path)
    if holder is None:
        return ok("lock", "no process has the store open")
    return ok("lock", f"process {holder.pid} has the store open and serves {holder.address}")


def holder_of(path: Path) -> Holder | None:
    """Return the live process that has an SQLite store open, as its lock file tells, or None."""
    with contextlib.suppress(OSError, msgspec.MsgspecError):
        holder = msgspec.json.decode(Path(f"{path}.lock").read_bytes(), type=Holder)
        if holder.host != os.uname().nodename or _lives(holder.pid):
            return holder
    return None


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _contents(path: Path) -> Iterator[Finding]:
    from lineshaft.store.sqlite_schema import APPLICATION_ID, MIGRATIONS

    try:
        with contextlib.closing(
            sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True, timeout=2)
        ) as connection:
            (tables,) = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
            (application,) = connection.execute("PRAGMA application_id").fetchone()
            if not tables:
                yield ok("schema", "an empty file; the first `lineshaft serve` makes the tables")
                return
            if application != APPLICATION_ID:
                yield trouble("schema", "a database of another program", "name another file for the store")
                return
            row = connection.execute("SELECT value FROM meta WHERE key = 'schema_version'").fetchone()
            if row is None or not str(row[0]).isdigit():
                yield trouble("schema", "its version cannot be read: the file is damaged", _RESTORE)
                return
            yield _schema(int(row[0]), len(MIGRATIONS))
            (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
            if verdict == "ok":
                yield ok("integrity", "SQLite's quick check finds nothing")
            else:
                yield trouble("integrity", str(verdict), _RESTORE)
            (latest,) = connection.execute("SELECT max(at) FROM log").fetchone()
            yield from _time_of(latest)
    except sqlite3.Error as error:
        yield trouble("schema", f"cannot be read: {error}", _RESTORE)


_RESTORE = "stop the coordinator, and restore a backup, or name another file"


def _schema(version: int, known: int) -> Finding:
    if version > known:
        return trouble(
            "schema", f"version {version}, newer than {known}", "install the newer Lineshaft that wrote it"
        )
    if version < known:
        return ok("schema", f"version {version}; the next `lineshaft serve` brings it to {known}")
    return ok("schema", f"version {version}")


def _time_of(latest: int | None) -> Iterator[Finding]:
    ahead = 0.0 if latest is None else latest / 1000 - time.time()
    if ahead > MAX_SKEW:
        yield trouble(
            "time of the store",
            f"its last commit is {ahead:.0f} s ahead of this clock",
            "set the clock: until then time stands still for the store",
        )


def _size(amount: int) -> str:
    for unit, size in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if amount >= size:
            return f"{amount / size:.1f} {unit}"
    return f"{amount} B"
