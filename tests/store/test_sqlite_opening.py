"""Opening an SQLite store: what is made, what is brought up to date, and how it can be refused."""

from __future__ import annotations

import asyncio
import logging
import os
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from lineshaft.core.batch import Blob
from lineshaft.core.task import FINGERPRINTS, Run, Spec, Task
from lineshaft.errors import Invalid, Unavailable
from lineshaft.store import sqlite, sqlite_file, sqlite_schema
from lineshaft.store.base import Query, SchemaTooNew, StoreCorrupt, StoreUnusable
from lineshaft.store.conformance.harness import SHARD, TENANT, acquire, finished, row
from lineshaft.store.conformance.rows import FULL
from lineshaft.store.sqlite import SQLiteStore


async def opened(path: Path | str, **options: str) -> SQLiteStore:
    store = SQLiteStore(path, **options)
    await store.open(address="http://127.0.0.1:7077")
    return store


async def refusal(path: Path | str) -> str:
    """Return why the store is unusable; nothing may be left open."""
    with pytest.raises(StoreUnusable) as refused:
        await opened(path)
    return refused.value.reason


def run_sql(path: Path, *statements: str) -> list[tuple[object, ...]]:
    """Use the file behind the store's back; return the rows of the last statement."""
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        for statement in statements:
            rows = connection.execute(statement).fetchall()
        return rows
    finally:
        connection.close()


# -- what is made --------------------------------------------------------------------------------------


async def test_a_new_store_knows_its_version_shards_and_birth(tmp_path: Path) -> None:
    await (await opened(tmp_path / "x.db")).close()
    meta = dict(run_sql(tmp_path / "x.db", "SELECT key, value FROM meta"))
    assert meta["schema_version"] == len(sqlite_schema.MIGRATIONS)
    assert meta["shards"] == 1
    assert isinstance(meta["created_at"], int)
    assert run_sql(tmp_path / "x.db", "PRAGMA journal_mode") == [("wal",)]


@pytest.mark.parametrize(
    ("synchronous", "value", "tier"), [("FULL", 2, "power loss"), ("normal", 1, "process crash")]
)
async def test_commits_are_synced_as_the_tier_says(
    tmp_path: Path, synchronous: str, value: int, tier: str
) -> None:
    store = await opened(tmp_path / "x.db", synchronous=synchronous)
    level = await store._write(lambda connection, _: connection.execute("PRAGMA synchronous").fetchone())
    await store.close()
    assert (level, store.tier) == ((value,), tier)


async def test_the_directory_is_synced_after_the_file_was_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced = []
    monkeypatch.setattr(
        sqlite_file.os, "fsync", lambda descriptor: synced.append(os.readlink(f"/proc/self/fd/{descriptor}"))
    )
    await (await opened(tmp_path / "x.db")).close()
    assert str(tmp_path) in synced


async def test_an_empty_file_becomes_a_store(tmp_path: Path) -> None:
    (tmp_path / "x.db").touch()
    await (await opened(tmp_path / "x.db")).close()


async def test_opening_twice_is_opening_once(tmp_path: Path) -> None:
    store = await opened(tmp_path / "x.db")
    await store.open(address="again")
    await store.close()
    with pytest.raises(Unavailable, match="closed"):
        await store.usage()


# -- versions ------------------------------------------------------------------------------------------


def write_version_1(path: Path, *tasks: Task) -> None:
    """Make a store as version 1 of the schema had it, and put tasks into it as its Lineshaft did."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("CREATE TABLE meta (key TEXT PRIMARY KEY, value) WITHOUT ROWID")
    connection.execute("INSERT INTO meta VALUES ('schema_version', 1), ('shards', 1), ('created_at', 0)")
    connection.execute(f"PRAGMA application_id = {sqlite_schema.APPLICATION_ID}")
    connection.executescript(str(sqlite_schema.MIGRATIONS[0]))
    connection.execute("BEGIN")
    for task in tasks:
        kind = (task.tenant, task.spec.queue, task.spec.name)
        connection.execute(
            "INSERT INTO kind (tenant, queue, name) VALUES (?, ?, ?) ON CONFLICT DO NOTHING", kind
        )
        [(number,)] = connection.execute(
            "SELECT id FROM kind WHERE tenant = ? AND queue = ? AND name = ?", kind
        ).fetchall()
        run = task.run or Run()
        row_of_task = msgspec.msgpack.encode(task)
        connection.execute(
            "INSERT INTO task VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                *(task.seq, number, task.state, task.spec.priority, task.run_at),
                *(run.finished_at, run.prune_at, run.result_expires_at, row_of_task),
            ),
        )
        connection.execute("INSERT INTO ident VALUES (?, ?, ?)", (task.tenant, task.id, task.seq))
        connection.execute("INSERT INTO payload VALUES (?, ?)", (task.seq, b"%d" % task.seq))
    connection.execute("COMMIT")
    connection.close()


async def test_a_file_of_version_1_is_migrated(tmp_path: Path) -> None:
    by_time = row(3, id=f"{1_767_312_245_678:012x}{5:014x}")
    full = msgspec.structs.replace(FULL, fingerprint=FINGERPRINTS + 5)
    tasks = [
        full,
        row(2, id="chosen", spec=Spec(name="b", queue="q", priority=-3)),
        by_time,
        finished(row(4)),
    ]
    tasks += [row(seq) for seq in range(5, 2_600)]
    write_version_1(tmp_path / "x.db", *tasks)
    full.fingerprint = 5
    store = await opened(tmp_path / "x.db")
    keys = [(task.tenant, task.id) for task in tasks]
    assert await store.get(SHARD, keys) == tasks
    loaded = await store.load(await store.acquire(SHARD, b"me"))
    assert loaded.tasks == [task for task in (*tasks[1:], full) if not task.state.terminal]
    assert await store.read(SHARD, [(Blob.PAYLOAD, 2_000)]) == [b"2000"]
    [first, *_] = (await store.search(SHARD, Query(tenant=TENANT, sort="priority"))).tasks
    assert first == tasks[1]
    await store.close()
    assert run_sql(tmp_path / "x.db", "SELECT value FROM meta WHERE key = 'schema_version'") == [(2,)]


async def test_later_migrations_are_scripts_or_functions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = await opened(tmp_path / "x.db")
    await (await acquire(store)).put(row(1))
    await store.close()

    def paint(connection: sqlite3.Connection) -> None:
        connection.execute("UPDATE task SET colour = 'red'")

    more = (
        *sqlite_schema.MIGRATIONS,
        "ALTER TABLE task ADD COLUMN colour TEXT; CREATE INDEX task_colour ON task (colour);",
        paint,
    )
    monkeypatch.setattr(sqlite_schema, "MIGRATIONS", more)
    await (await opened(tmp_path / "x.db")).close()
    assert run_sql(
        tmp_path / "x.db", "SELECT seq, colour FROM task INDEXED BY task_colour WHERE colour = 'red'"
    ) == [(1, "red")]
    assert run_sql(tmp_path / "x.db", "SELECT value FROM meta WHERE key = 'schema_version'") == [(4,)]


async def test_a_migration_that_fails_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await (await opened(tmp_path / "x.db")).close()
    before = run_sql(tmp_path / "x.db", "SELECT sql FROM sqlite_schema")
    version = len(sqlite_schema.MIGRATIONS)
    broken = (*sqlite_schema.MIGRATIONS, "ALTER TABLE task ADD COLUMN colour TEXT; SELECT * FROM nowhere;")
    monkeypatch.setattr(sqlite_schema, "MIGRATIONS", broken)
    with pytest.raises(Unavailable, match="nowhere"):
        await opened(tmp_path / "x.db")
    assert run_sql(tmp_path / "x.db", "SELECT sql FROM sqlite_schema") == before
    assert run_sql(tmp_path / "x.db", "SELECT value FROM meta WHERE key = 'schema_version'") == [(version,)]


async def test_a_newer_schema_is_refused_with_what_to_do(tmp_path: Path) -> None:
    await (await opened(tmp_path / "x.db")).close()
    run_sql(tmp_path / "x.db", "UPDATE meta SET value = 99 WHERE key = 'schema_version'")
    with pytest.raises(SchemaTooNew) as refused:
        await opened(tmp_path / "x.db")
    assert "schema version 99" in refused.value.reason
    assert "install the newer Lineshaft" in refused.value.reason


# -- places that cannot be -----------------------------------------------------------------------------


async def test_a_directory_that_is_not_there(tmp_path: Path) -> None:
    assert f"{tmp_path}/none is not a directory: make it" in await refusal(tmp_path / "none" / "x.db")


async def test_a_directory_in_place_of_the_file(tmp_path: Path) -> None:
    assert f"{tmp_path} is a directory: name a file in it" in await refusal(tmp_path)


async def test_something_that_is_not_a_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert "not an ordinary file" in await refusal(tmp_path / "pipe")


async def test_a_file_of_two_names_is_not_opened_by_either(tmp_path: Path) -> None:
    store = await opened(tmp_path / "x.db")
    os.link(tmp_path / "x.db", tmp_path / "y.db")  # with a lock and a log of its own
    assert "has another name, too (a hard link)" in await refusal(tmp_path / "y.db")
    await store.close()
    assert "remove that name" in await refusal(tmp_path / "x.db")
    (tmp_path / "y.db").unlink()
    await (await opened(tmp_path / "x.db")).close()


@pytest.mark.parametrize("replaced", [False, True])
async def test_a_file_that_is_moved_away_takes_nothing_until_it_is_back(
    tmp_path: Path, replaced: bool
) -> None:
    store = await opened(tmp_path / "x.db")
    owner = await acquire(store)
    (tmp_path / "x.db").rename(tmp_path / "elsewhere.db")
    if replaced:
        (tmp_path / "x.db").touch()
    batch = owner.batch(tasks=[row(1)])
    for _ in range(2):
        with pytest.raises(Unavailable, match="moved, deleted or replaced while it was open: put it back"):
            await store.commit(owner.ownership, batch)
    (tmp_path / "elsewhere.db").replace(tmp_path / "x.db")
    await store.commit(owner.ownership, batch)
    await store.close()
    store = await opened(tmp_path / "x.db")
    page = await store.search(SHARD, Query(tenant=TENANT, sort="created_at"))
    assert [task.seq for task in page.tasks] == [1]
    await store.close()


async def test_a_file_in_place_of_the_directory(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert f"{tmp_path}/file is not a directory" in await refusal(tmp_path / "file" / "x.db")


@pytest.mark.parametrize("forbidden", ["", "x.db"])
async def test_a_place_that_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, forbidden: str
) -> None:
    (tmp_path / "x.db").touch()
    place = str(tmp_path / forbidden)
    # The superuser may write everywhere, so the answer of the system is made up here.
    monkeypatch.setattr(sqlite_file.os, "access", lambda path, mode: path != place)
    reason = await refusal(tmp_path / "x.db")
    assert f"{place} cannot be written by this user (uid {os.geteuid()})" in reason


async def test_a_file_that_turns_out_to_be_read_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    await (await opened(tmp_path / "x.db")).close()
    run_sql(tmp_path / "x.db", "PRAGMA journal_mode = DELETE")
    connect = sqlite3.connect
    monkeypatch.setattr(
        sqlite.sqlite3,
        "connect",
        lambda path, **options: connect(f"file:{path}?mode=ro", uri=True, **options),
    )
    assert "can be written" in await refusal(tmp_path / "x.db")


async def test_a_network_file_system_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_file, "file_system", lambda _: "nfs4")
    reason = await refusal(tmp_path / "x.db")
    assert "network file system (nfs4)" in reason
    assert "local disk" in reason
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("kind", [None, "fuse.unheard-of"])
async def test_a_file_system_that_cannot_be_told_is_warned_about(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, kind: str | None
) -> None:
    monkeypatch.setattr(sqlite_file, "file_system", lambda _: kind)
    with caplog.at_level(logging.WARNING, logger="lineshaft.store"):
        await (await opened(tmp_path / "x.db")).close()
    [record] = caplog.records
    assert "cannot tell" in record.getMessage()


async def test_a_file_that_is_not_a_database(tmp_path: Path) -> None:
    (tmp_path / "x.db").write_bytes(b"These are my notes. " * 100)
    with pytest.raises(StoreCorrupt, match="not an SQLite database"):
        await opened(tmp_path / "x.db")
    assert (tmp_path / "x.db").read_bytes() == b"These are my notes. " * 100


async def test_a_database_of_another_program(tmp_path: Path) -> None:
    run_sql(tmp_path / "x.db", "CREATE TABLE contacts (name)")
    assert "another program" in await refusal(tmp_path / "x.db")
    assert run_sql(tmp_path / "x.db", "SELECT name FROM sqlite_schema") == [("contacts",)]


async def test_a_database_that_another_program_is_writing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "BUSY_TIMEOUT", 0.0)
    shell = sqlite3.connect(tmp_path / "x.db", isolation_level=None)
    shell.execute("BEGIN EXCLUSIVE")
    try:
        assert "Another program has the database open" in await refusal(tmp_path / "x.db")
    finally:
        shell.close()
    await (await opened(tmp_path / "x.db")).close()


async def test_a_refusal_leaves_the_file_free(tmp_path: Path) -> None:
    (tmp_path / "x.db").write_bytes(b"no database")
    for _ in range(2):
        with pytest.raises(StoreCorrupt):
            await opened(tmp_path / "x.db")
    (tmp_path / "x.db").unlink()
    await (await opened(tmp_path / "x.db")).close()


# -- copies and sizes ----------------------------------------------------------------------------------


async def test_a_backup_is_a_store_of_its_own(tmp_path: Path) -> None:
    store = await opened(tmp_path / "x.db")
    owner = await acquire(store)
    await owner.put(row(1), finished(row(2)))
    assert await store.backup(tmp_path / "copy.db") == (tmp_path / "copy.db").stat().st_size
    await owner.put(row(3))
    copy = await opened(tmp_path / "copy.db")
    page = await copy.search(SHARD, Query(tenant=TENANT, sort="created_at"))
    assert [task.seq for task in page.tasks] == [1, 2]
    await copy.close()
    await store.close()
    assert not (tmp_path / "copy.db.partial").exists()


async def test_a_backup_never_overwrites(tmp_path: Path) -> None:
    store = await opened(tmp_path / "x.db")
    (tmp_path / "notes").write_text("mine")
    for place, told in (
        ("notes", "exists already"),
        ("x.db", "exists already"),
        ("none/x", "not a directory"),
    ):
        with pytest.raises(Invalid, match=told) as refused:
            await store.backup(tmp_path / place)
        assert refused.value.field == "path"
    await store.close()
    assert (tmp_path / "notes").read_text() == "mine"


async def test_sizes_are_told(tmp_path: Path) -> None:
    store = await opened(tmp_path / "x.db")
    owner = await acquire(store)
    await owner.put(*(finished(row(seq)) for seq in range(1_000)))
    usage = await store.usage()
    assert usage.log > 100_000
    assert usage.disk_free > 0
    assert await store.prune(owner.ownership, before=2**60, log_before=0)
    assert (await store.usage()).unused > 0
    await store.close()


# -- three threads -------------------------------------------------------------------------------------


async def test_a_long_search_delays_neither_commits_nor_reads(tmp_path: Path) -> None:
    store = await opened(tmp_path / "x.db")
    owner = await acquire(store)
    begun, may_end = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    def long_search(connection: sqlite3.Connection) -> int:
        rows = connection.execute("SELECT 1 UNION ALL SELECT 2")
        rows.fetchone()
        loop.call_soon_threadsafe(begun.set)
        may_end.wait()
        return len(rows.fetchall())

    search = asyncio.create_task(store._scan(long_search))
    await begun.wait()
    await owner.put(row(1))
    assert (await store.get(SHARD, [(TENANT, "task-1")])) == [row(1)]
    assert not search.done()
    may_end.set()
    assert await search == 1
    await store.close()


async def test_a_commit_is_made_also_if_nobody_waits_for_it(tmp_path: Path) -> None:
    store = await opened(tmp_path / "x.db")
    owner = await acquire(store)
    commit = asyncio.create_task(owner.put(row(1)))
    await asyncio.sleep(0)
    commit.cancel()
    assert await store.get(SHARD, [(TENANT, "task-1")]) in ([None], [row(1)])
    await store.close()
    again = await opened(tmp_path / "x.db")
    assert await again.get(SHARD, [(TENANT, "task-1")]) == [row(1)]
    await again.close()


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    yield
    left = [thread.name for thread in threading.enumerate() if thread.name.startswith("lineshaft-store")]
    assert left == []
