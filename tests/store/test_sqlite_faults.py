"""What fails beneath a store: a full disk, a lock held too long, a damaged file, an impossible row."""

from __future__ import annotations

import logging
import shutil
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from lineshaft.core.batch import Batch, Blob
from lineshaft.core.task import Task
from lineshaft.errors import Unavailable
from lineshaft.store import sqlite, sqlite_checkpoints
from lineshaft.store.base import Query, Rejected, Store, StoreCorrupt
from lineshaft.store.conformance.harness import SHARD, TENANT, Owner, acquire, alike, row, setting
from lineshaft.store.sqlite import SQLiteStore


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SQLiteStore]:
    store = SQLiteStore(tmp_path / "x.db")
    await store.open(address="a")
    yield store
    await store.close()


async def in_writer(store: SQLiteStore, sql: str) -> object:
    return await store._write(lambda connection, _: connection.execute(sql).fetchone())


async def test_a_full_disk_is_unavailable_and_the_same_batch_fits_later(store: SQLiteStore) -> None:
    owner = await acquire(store)
    await owner.put(row(1))
    await in_writer(store, "PRAGMA wal_checkpoint(TRUNCATE)")
    (pages,) = await in_writer(store, "PRAGMA page_count")  # type: ignore[misc]  # a row of one number
    await in_writer(store, f"PRAGMA max_page_count = {pages}")
    batch = owner.batch(tasks=[row(2)], blobs=[(Blob.PAYLOAD, 2, b"x" * 100_000)])
    for _ in range(2):
        with pytest.raises(Unavailable, match="full") as failed:
            await store.commit(owner.ownership, batch)
        assert failed.value.retry_after == 1
    assert [task.seq for task in (await owner.load()).tasks] == [1]
    await in_writer(store, "PRAGMA max_page_count = 1000000")
    await store.commit(owner.ownership, batch)
    assert [task.seq for task in (await owner.load()).tasks] == [1, 2]


async def test_a_kind_that_was_rolled_back_is_made_again(store: SQLiteStore) -> None:
    owner = await acquire(store)
    await in_writer(store, "CREATE TRIGGER fault BEFORE INSERT ON log BEGIN SELECT RAISE(FAIL, 'fault'); END")
    batch = owner.batch(tasks=[row(1, queue="new")])
    with pytest.raises(Rejected, match="fault"):
        await store.commit(owner.ownership, batch)
    await in_writer(store, "DROP TRIGGER fault")
    await store.commit(owner.ownership, batch)
    assert (await store.search(SHARD, Query(tenant=TENANT))).tasks == [row(1, queue="new")]


async def test_another_program_that_holds_the_lock_makes_it_unavailable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "BUSY_TIMEOUT", 0.0)
    store = SQLiteStore(tmp_path / "busy.db")
    await store.open(address="a")
    owner = await acquire(store)
    shell = sqlite3.connect(tmp_path / "busy.db", isolation_level=None)
    shell.execute("BEGIN IMMEDIATE")
    batch = owner.batch(tasks=[row(1)])
    with pytest.raises(Unavailable, match="locked"):
        await store.commit(owner.ownership, batch)
    assert await store.get(SHARD, [(TENANT, "task-1")]) == [None]
    shell.execute("ROLLBACK")
    shell.close()
    await store.commit(owner.ownership, batch)
    await store.close()


async def test_a_row_that_is_too_large_is_rejected_and_nothing_else_is_stored(store: SQLiteStore) -> None:
    owner = await acquire(store)
    await store._write(lambda connection, _: connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, 100_000))
    batch = owner.batch(tasks=[row(1), row(2)], blobs=[(Blob.PAYLOAD, 2, b"x" * 100_001)])
    with pytest.raises(Rejected):
        await store.commit(owner.ownership, batch)
    assert (await owner.load()).tasks == []
    await owner.put(row(1))


@pytest.mark.parametrize(
    "content",
    [
        {"tasks": [row(1), row(2, "\ud800")]},
        {"tasks": [row(1), row(2, tags=("\udfff",))]},
        {"tasks": [row(1), row(2, run_at=2**63)]},
        {"tasks": [row(1), row(2, run_at=2**200)]},
        {"tasks": [row(1), row(2, queue="\ud800")]},
        {"tasks": [row(1), row(2, priority=-(2**64))]},
        {"tasks": [row(1)], "records": [setting("\ud800", b"")]},
        {"tasks": [row(1)], "blobs": [(Blob.RESULT, 1, object())]},
    ],
)
async def test_a_value_that_cannot_be_stored_is_rejected_and_nothing_else_is_stored(
    store: SQLiteStore, content: dict[str, object]
) -> None:
    owner = await acquire(store)
    with pytest.raises(Rejected):
        await owner.commit(**content)
    snapshot = await owner.load()
    assert (snapshot.position, snapshot.tasks, snapshot.records) == (0, [], [])
    await owner.put(row(1))


async def test_bisecting_a_rejected_batch_leaves_only_the_culprit_out(store: SQLiteStore) -> None:
    owner = await acquire(store)
    tasks = [row(seq, "\ud800" if seq == 7 else None) for seq in range(20)]
    # The later half first: a row that arrived earlier than some that are stored still gets its identity.
    refused = await bisect(owner, tasks)
    assert [task.seq for task in refused] == [7]
    kept = [task for task in tasks if task.seq != 7]
    assert alike((await owner.load()).tasks, kept)
    assert alike(await store.get(SHARD, [(TENANT, task.id) for task in kept]), kept)


async def bisect(owner: Owner, tasks: list[Task]) -> list[Task]:
    try:
        await owner.put(*tasks)
    except Rejected:
        if len(tasks) == 1:
            return tasks
        half = len(tasks) // 2
        return await bisect(owner, tasks[half:]) + await bisect(owner, tasks[:half])
    return []


async def test_a_damaged_page_is_told_with_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    store = SQLiteStore(path)
    await store.open(address="a")
    await (await acquire(store)).put(*(row(seq) for seq in range(1_000)))
    await store.close()
    damage(path)
    again = SQLiteStore(path)
    with pytest.raises(StoreCorrupt, match=r"damaged.*restore a backup"):
        await again.open(address="a")
        await acquire(again)
        await again.search(SHARD, Query(tenant=TENANT))
    await again.close()


def damage(path: Path) -> None:
    """Overwrite the head of every page but the first."""
    with path.open("r+b") as file:
        for page in range(1, path.stat().st_size // 4096):
            file.seek(page * 4096)
            file.write(b"\xff" * 64)


async def test_a_row_that_cannot_be_read_is_told(store: SQLiteStore) -> None:
    owner = await acquire(store)
    await owner.put(row(1))
    await in_writer(store, "UPDATE task SET row = x'93'")
    with pytest.raises(StoreCorrupt, match="row of"):
        await store.get(SHARD, [(TENANT, "task-1")])
    with pytest.raises(StoreCorrupt, match="row of"):
        await owner.load()


async def test_a_lost_outcome_is_settled_by_the_same_batch(store: SQLiteStore) -> None:
    """The commit is applied and its answer lost: the engine sends the same batch again."""
    owner = await acquire(store)
    batch = await apply_and_lose(store, owner)
    await store.commit(owner.ownership, batch)
    assert len((await store.log(SHARD, 0)).records) == 1


async def apply_and_lose(store: Store, owner: Owner) -> Batch:
    batch = owner.batch(tasks=[row(1)])
    await store.commit(owner.ownership, batch)
    return batch


# -- the log is written back beside the commits ----------------------------------------------------------


async def written_back(store: SQLiteStore) -> None:
    """Wait until the log, or what was in it when that began, has been written back."""
    assert store._opened is not None
    under_way = store._opened.checkpoints._under_way
    assert under_way is not None
    await under_way


async def test_the_log_is_written_back_beside_the_commits(
    store: SQLiteStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_checkpoints, "ROWS", 20)
    owner = await acquire(store)
    for seq in (1, 2, 3):
        await owner.put(row(seq))
    await written_back(store)
    shutil.copy(tmp_path / "x.db", tmp_path / "without-its-log.db")
    connection = sqlite3.connect(tmp_path / "without-its-log.db")
    assert connection.execute("SELECT count(*) FROM task").fetchone() == (3,)
    connection.close()


async def test_commits_go_on_where_the_log_cannot_be_written_back(
    store: SQLiteStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(_: sqlite3.Connection) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(sqlite_checkpoints, "ROWS", 1)
    monkeypatch.setattr(sqlite_checkpoints, "_write_back", fail)
    owner = await acquire(store)
    with caplog.at_level(logging.WARNING, logger="lineshaft.store"):
        for seq in (1, 2):
            await owner.put(row(seq))
            await written_back(store)
    assert [task.seq for task in (await owner.load()).tasks] == [1, 2]
    assert "could not be written back, commits will try: database or disk is full" in caplog.text
