"""Several processes that open one file: the first has it, the others go through it, and when it ends another
has it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import stat
import sys
import tempfile
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from lineshaft import App, TaskCancelled
from lineshaft.embedded import joining
from lineshaft.server.serve import running
from lineshaft.server.settings import Limits, ServerSettings
from lineshaft.store.base import StoreInUse, StoreUnusable
from lineshaft.store.sqlite import SQLiteStore
from lineshaft.wire import CALLS, Enqueue
from tests.embedded.together import all_done, holder, members


async def test_three_processes_enqueue_and_work(tmp_path: Path) -> None:
    file = tmp_path / "jobs.db"
    async with members(file, "a", "b", "c") as together:
        first = together[0]
        assert holder(file).pid == first.process.pid
        for member in together:
            member.tell("enqueue", 0, 60)
        for member in together:
            await member.heard("did")
        ids = set().union(*(member.stored for member in together))
        assert len(ids) == 180
        assert await all_done(file, ids) == Counter(ids)
        for member in together[::-1]:
            await member.end()
        assert [member.errors for member in together] == [[], [], []]
    assert not (tmp_path / "jobs.db.sock").exists()


async def test_nothing_is_lost_when_owner_after_owner_is_killed_under_load(tmp_path: Path) -> None:
    file = tmp_path / "jobs.db"
    async with members(file, "a", "b", "c") as together:
        for member in together:
            member.tell("enqueue", 0, 200)
        left = list(together)
        for _ in range(2):
            await asyncio.gather(*(member.has_stored(25) for member in left))
            owner = next(member for member in left if member.process.pid == holder(file).pid)
            left.remove(owner)
            await owner.kill()
            seen = {member: len(member.stored) for member in left}
            # The others go on, none of them the wiser.
            await asyncio.gather(*(member.has_stored(min(seen[member] + 25, 200)) for member in left))
        [last] = left
        await last.heard("did")
        assert last.errors == []
        ids = set().union(*(member.stored for member in together))
        done = await all_done(file, ids)
        # What a killed process was about to enqueue may be there too; what was acknowledged is.
        assert ids <= set(done)
        assert set(done.values()) == {1}
        await last.end()


async def test_an_owner_that_ends_in_order_is_not_missed(tmp_path: Path) -> None:
    file = tmp_path / "jobs.db"
    async with members(file, "a", "b", "c") as together:
        for member in together:
            member.tell("enqueue", 0, 80)
        for member in together[:2]:
            await member.heard("did")
            await member.end()
        await together[2].heard("did")
        ids = set().union(*(member.stored for member in together))
        assert len(ids) == 240
        assert await all_done(file, ids) == Counter(ids)
        await together[2].end()
        assert [member.errors for member in together] == [[], [], []]


async def test_only_its_user_can_come_through_the_socket(tmp_path: Path) -> None:
    async with App(f"sqlite:///{tmp_path}/jobs.db"):
        status = (tmp_path / "jobs.db.sock").lstat()
        assert stat.S_ISSOCK(status.st_mode)
        assert stat.S_IMODE(status.st_mode) == 0o600
    assert not (tmp_path / "jobs.db.sock").exists()


async def test_apps_of_one_process_share_a_file(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/jobs.db"
    async with App(url) as first, App(url) as second:
        await second.call(CALLS["enqueue"], body=Enqueue(name="x", task_id="from-the-second"))
        assert await first.handle("from-the-second").state() == "queued"
        await first.close()
        # Who was second has it now.
        assert await second.handle("from-the-second").state() == "queued"
        assert holder(tmp_path / "jobs.db").pid == os.getpid()


async def test_a_call_that_names_no_id_gets_one_before_it_is_made(tmp_path: Path) -> None:
    async with App(f"sqlite:///{tmp_path}/jobs.db") as first, App(first.url) as second:
        one = await second.call(CALLS["enqueue"], body=Enqueue(name="x"))
        many = await second.call(CALLS["bulk"], body=[Enqueue(name="x"), Enqueue(name="y", task_id="mine")])
        assert len({one.task_id, *(item.task_id for item in many.items), "mine"}) == 3


async def test_a_server_is_refused_a_file_that_an_app_has_and_told_by_whom(tmp_path: Path) -> None:
    async with App(f"sqlite:///{tmp_path}/jobs.db"):
        # `lineshaft serve` opens the store like this; within one process it is told to share it.
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "lineshaft", "serve", "--listen", "127.0.0.1:0"),
            *("--store", f"sqlite:///{tmp_path}/jobs.db"),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        _, errors = await process.communicate()
        assert process.returncode != 0
        told = " ".join(errors.decode().split())
        assert f"is in use by process {os.getpid()}, which serves unix://{tmp_path}/jobs.db.sock" in told


async def test_the_socket_of_a_killed_owner_is_no_obstacle(tmp_path: Path) -> None:
    file = tmp_path / "jobs.db"
    async with members(file, "a") as [member]:
        await member.kill()
    assert (tmp_path / "jobs.db.sock").exists()
    async with App(f"sqlite:///{file}") as first, App(first.url) as second:
        await second.enqueue_named("x")


async def test_what_is_no_socket_stays_and_the_socket_goes_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as short:
        monkeypatch.setenv("XDG_RUNTIME_DIR", short)
        (tmp_path / "jobs.db.sock").write_text("precious")
        async with App(f"sqlite:///{tmp_path}/jobs.db") as first, App(first.url) as second:
            await second.enqueue_named("x")
            assert holder(tmp_path / "jobs.db").address.startswith(f"unix://{short}/lineshaft/")
        assert (tmp_path / "jobs.db.sock").read_text() == "precious"
        assert os.listdir(f"{short}/lineshaft") == []


async def test_a_path_too_long_for_a_socket_is_no_obstacle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    monkeypatch.setattr("tempfile.tempdir", "/tmp")
    folder = tmp_path / ("long" * 30)  # a socket beside the file would have a name of more than 108 bytes
    folder.mkdir()
    async with App(f"sqlite:///{folder}/jobs.db") as first, App(first.url) as second:
        await second.enqueue_named("x")
        place, name = os.path.split(holder(folder / "jobs.db").address.removeprefix("unix://"))
        assert place == f"/tmp/lineshaft-{os.geteuid()}"
        assert stat.S_IMODE(os.stat(place).st_mode) == 0o700
    assert name not in os.listdir(place)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user for a moment")
async def test_the_socket_of_another_user_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "jobs.db"
    async with owned_by_another_user(file):
        with pytest.raises(StoreUnusable, match="is the socket of another user"):
            async with App(f"sqlite:///{file}"):
                raise AssertionError("it must not open")


@contextlib.asynccontextmanager
async def owned_by_another_user(file: Path) -> AsyncIterator[None]:
    """A store that is ours, and a socket that its lock names and somebody else listens at."""
    store = SQLiteStore(file)
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        os.chmod(folder, 0o777)
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", LISTEN, f"{folder}/theirs.sock"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        assert process.stdin is not None
        assert process.stdout is not None
        await process.stdout.readline()
        await store.open(address=f"unix://{folder}/theirs.sock")
        try:
            yield
        finally:
            await store.close()
            process.stdin.close()
            await process.wait()


LISTEN = """
import os, socket, sys
os.setuid(65534)
listening = socket.socket(socket.AF_UNIX)
listening.bind(sys.argv[1])
os.chmod(sys.argv[1], 0o777)
listening.listen()
print("listens", flush=True)
sys.stdin.read()
"""


async def test_an_app_joins_a_server_that_has_the_file(tmp_path: Path) -> None:
    settings = ServerSettings(store=f"sqlite:///{tmp_path}/jobs.db", listen="127.0.0.1:0")
    app = App(settings.store)

    @app.task()
    async def double(n: int) -> int:
        return 2 * n

    async with running(settings), app, app.worker():
        assert holder(tmp_path / "jobs.db").address.startswith("http://127.0.0.1:")
        assert await app.enqueue_and_wait(double, 4) == 8
        later = await app.enqueue(double.configure(delay="1h"), 5)
    async with app:  # which now has it itself
        assert await later.state() == "scheduled"


async def test_a_server_may_close_a_line_that_was_idle_for_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lineshaft.embedded.joining.SHORT", 0.0)
    settings = ServerSettings(
        store=f"sqlite:///{tmp_path}/jobs.db", listen="127.0.0.1:0", limits=Limits(keep_alive=1)
    )
    lines: list[str] = []
    connect = joining._connect

    async def counted(url: str) -> joining.Line | None:
        lines.append(url)
        return await connect(url)

    monkeypatch.setattr(joining, "_connect", counted)
    async with running(settings), App(settings.store) as app:
        handle = await app.enqueue_named("x")
        result = asyncio.create_task(handle.result("20s"))
        deadline = asyncio.get_running_loop().time() + 20
        while len(lines) < 3:
            assert asyncio.get_running_loop().time() < deadline, lines
            await asyncio.sleep(0.05)
        assert not result.done()  # what was under way is not disturbed
        await handle.cancel()
        with pytest.raises(TaskCancelled):
            await result


async def test_a_cancel_reaches_a_worker_that_has_joined_at_once(tmp_path: Path) -> None:
    owner, joined = App(f"sqlite:///{tmp_path}/jobs.db"), App(f"sqlite:///{tmp_path}/jobs.db")
    started = asyncio.Event()

    @joined.task(lease="1h")
    async def endless() -> None:
        started.set()
        await asyncio.Event().wait()

    async with owner, joined, joined.worker():
        handle = await joined.enqueue(endless)
        await started.wait()
        await owner.handle(handle.task_id).cancel("enough")
        with pytest.raises(TaskCancelled, match="enough"):
            await handle.result("10s")


async def test_a_holder_that_serves_nobody_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lineshaft.embedded.joining_search.PATIENCE", 0.2)
    store = SQLiteStore(tmp_path / "jobs.db")
    await store.open(address="one command")
    try:
        with pytest.raises(StoreInUse, match="share that store"):
            async with App(f"sqlite:///{tmp_path}/jobs.db"):
                raise AssertionError("it must not open")
    finally:
        await store.close()
