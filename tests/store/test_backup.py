"""A copy of a SQLite store that is in use, and what happens when it is put back."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import stat
from pathlib import Path

import pytest

from lineshaft import App
from lineshaft.core.batch import Counters
from lineshaft.errors import Conflict, CursorExpired, Invalid
from lineshaft.store.base import StoreCorrupt, StoreInUse, StoreUnusable
from lineshaft.store.sqlite import SQLiteStore
from lineshaft.store.sqlite_backup import A_MILLISECOND, AT_LEAST, back_up, check, restore
from lineshaft.wire import CALLS, Claim
from lineshaft.wire.tasks import Search
from lineshaft.wire.workers import ClaimedTask
from tests.embedded.together import members


async def claim(app: App) -> ClaimedTask:
    answer = await app.call(CALLS["claim"], body=Claim(max=1))
    task: ClaimedTask = answer.tasks[0]
    return task


async def ids(app: App) -> list[str]:
    page = await app.call(CALLS["find"], query=Search(sort="created_at"))
    return [task.task_id for task in page.tasks]


async def state_of(path: Path) -> tuple[int, Counters]:
    store = SQLiteStore(path)
    await store.open(address="a test")
    snapshot = await store.load(await store.acquire(0, b"a test"))
    await store.close()
    return snapshot.position, snapshot.counters


async def test_a_backup_is_made_while_work_goes_on(tmp_path: Path) -> None:
    path, copy = tmp_path / "jobs.db", tmp_path / "copy.db"
    async with App(f"sqlite:///{path}") as app:
        for n in range(50):
            await app.enqueue_named("work", n, task_id=f"before-{n}")

        async def go_on() -> None:
            for n in range(100):
                await app.enqueue_named("work", n, task_id=f"after-{n}")

        going_on = asyncio.create_task(go_on())
        made = await asyncio.to_thread(back_up, str(path), str(copy))
        await going_on
    assert 50 <= made.tasks <= 150
    assert check(str(copy)) == made
    assert sorted(os.listdir(tmp_path)) == ["copy.db", "jobs.db", "jobs.db.lock"]
    async with App(f"sqlite:///{copy}") as app:  # it is a store like any other
        assert set(await ids(app)) >= {f"before-{n}" for n in range(50)}


async def test_what_is_given_after_a_restore_was_never_given_before(tmp_path: Path) -> None:
    path, copy = tmp_path / "jobs.db", tmp_path / "copy.db"
    async with App(f"sqlite:///{path}") as app:
        await app.enqueue_named("work", task_id="kept")
        await asyncio.to_thread(back_up, str(path), str(copy))
        for n in range(5):
            await app.enqueue_named("work", task_id=f"lost-{n}")
        late = [await claim(app) for _ in range(6)]
        followed = (await app.call(CALLS["changes"])).next
    position, counters = await state_of(path)

    restored = restore(str(copy), str(path))

    assert restored.kept is not None
    assert check(restored.kept).tasks == 6
    now, after = await state_of(path)
    assert now > position
    assert after.fence > counters.fence
    assert after.seq > counters.seq
    async with App(f"sqlite:///{path}") as app:
        assert await ids(app) == ["kept"]
        again = await claim(app)
        assert again.task_id == "kept"
        assert again.fence > max(task.fence for task in late)
        # Who followed the changes is told that some are missing.
        with pytest.raises(CursorExpired):
            await app.call(CALLS["changes"], query=changes_after(followed))


def changes_after(cursor: str) -> object:
    from lineshaft.wire.history import ChangesQuery

    return ChangesQuery(after=cursor)


async def test_a_restore_goes_on_beyond_what_may_have_been_given_where_nothing_is_left(
    tmp_path: Path,
) -> None:
    path, copy = tmp_path / "jobs.db", tmp_path / "copy.db"
    async with App(f"sqlite:///{path}") as app:
        await app.enqueue_named("work")
    made = back_up(str(path), str(copy))
    position, counters = await state_of(path)
    os.unlink(path)
    week = 7 * 24 * 3600 * 1000
    assert restore(str(copy), str(path), now=made.at + week).kept is None
    now, after = await state_of(path)
    leap = AT_LEAST + week * A_MILLISECOND
    assert (now - position, after.fence - counters.fence, after.seq - counters.seq) == (leap, leap, leap)


async def test_a_restore_waits_for_nobody(tmp_path: Path) -> None:
    path, copy = tmp_path / "jobs.db", tmp_path / "copy.db"
    async with App(f"sqlite:///{path}") as app:
        await app.enqueue_named("work", task_id="a")
        await asyncio.to_thread(back_up, str(path), str(copy))
        with pytest.raises(StoreInUse):
            restore(str(copy), str(path))
        assert await ids(app) == ["a"]


async def test_a_backup_overwrites_only_what_it_is_told_to(tmp_path: Path) -> None:
    path, copy = tmp_path / "jobs.db", tmp_path / "copy.db"
    async with App(f"sqlite:///{path}") as app:
        await app.enqueue_named("work")
    copy.write_text("precious")
    with pytest.raises(Conflict, match="exists already: name another file, or say --force"):
        back_up(str(path), str(copy))
    assert copy.read_text() == "precious"
    assert back_up(str(path), str(copy), overwrite=True).tasks == 1
    for own in ("jobs.db", "jobs.db-wal", "jobs.db.lock"):
        with pytest.raises(Invalid, match="belongs to the store itself"):
            back_up(str(path), str(tmp_path / own), overwrite=True)
    with pytest.raises(StoreUnusable, match="there is no store at"):
        back_up(str(tmp_path / "no.db"), str(copy), overwrite=True)


async def test_what_is_no_whole_backup_is_not_put_back(tmp_path: Path) -> None:
    path, copy = tmp_path / "jobs.db", tmp_path / "copy.db"
    async with App(f"sqlite:///{path}") as app:
        for n in range(200):
            await app.enqueue_named("work", "x" * 1000, task_id=f"{n}")
    back_up(str(path), str(copy))
    before = path.read_bytes()
    damaged = bytearray(copy.read_bytes())
    damaged[100_000:101_000] = b"\xff" * 1000
    (tmp_path / "damaged.db").write_bytes(damaged)
    with sqlite3.connect(tmp_path / "other.db") as other:
        other.execute("CREATE TABLE task (id)")
    other.close()
    (tmp_path / "text.db").write_text("no database")
    for name, error in (("damaged", StoreCorrupt), ("other", StoreUnusable), ("text", StoreCorrupt)):
        with pytest.raises(error):
            restore(str(tmp_path / f"{name}.db"), str(path))
    with pytest.raises(StoreUnusable, match="there is no file"):
        restore(str(tmp_path / "nothing.db"), str(path))
    with pytest.raises(Invalid, match="this is the store itself"):
        restore(str(path), str(path))
    assert path.read_bytes() == before


async def test_what_the_log_of_a_killed_owner_holds_is_kept_with_it(tmp_path: Path) -> None:
    path, copy = tmp_path / "jobs.db", tmp_path / "copy.db"
    async with members(path, "a") as [member]:
        member.tell("enqueue", 0, 10)
        await member.heard("did")
        await asyncio.to_thread(back_up, str(path), str(copy))
        member.tell("enqueue", 10, 10)
        await member.heard("did")
        await member.kill()
    assert (tmp_path / "jobs.db-wal").exists()
    kept = restore(str(copy), str(path)).kept
    assert kept is not None
    assert not (tmp_path / "jobs.db-wal").exists()
    for file, count in ((path, 10), (Path(kept), 20)):
        async with App(f"sqlite:///{file}") as app:
            assert len(await ids(app)) == count


async def test_a_damaged_store_is_kept_with_its_log(tmp_path: Path) -> None:
    path, copy = tmp_path / "jobs.db", tmp_path / "copy.db"
    async with App(f"sqlite:///{path}") as app:
        await app.enqueue_named("work", task_id="a")
    back_up(str(path), str(copy))
    path.chmod(0o600)
    path.write_bytes(b"rubbish" * 1000)
    log = tmp_path / "jobs.db-wal"
    log.write_bytes(b"its log")
    restored = restore(str(copy), str(path))
    assert restored.kept is not None
    kept = tmp_path / os.path.basename(restored.kept)
    assert kept.read_bytes() == b"rubbish" * 1000
    assert kept.with_name(f"{kept.name}-wal").read_bytes() == b"its log"
    assert not log.exists()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    async with App(f"sqlite:///{path}") as app:
        assert await ids(app) == ["a"]
