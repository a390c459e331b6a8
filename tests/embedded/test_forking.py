"""An App across `fork`: the child opens or joins for itself, and keeps nothing of its parent's."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from lineshaft import App
from tests.embedded.together import all_done, holder

pytestmark = pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")


def in_child(app: App, name: str, count: int) -> None:
    for n in range(count):
        app.sync.enqueue_named("work", n, task_id=f"{name}-{n}")
    app.sync.close()


def test_children_use_the_app_that_their_parent_has_open(tmp_path: Path) -> None:
    app = App(f"sqlite:///{tmp_path}/jobs.db")
    app.sync.enqueue_named("work", task_id="parent-0")
    fork = multiprocessing.get_context("fork")
    children = [fork.Process(target=in_child, args=(app, f"child{n}", 50)) for n in range(3)]
    for child in children:
        child.start()
    for n in range(1, 50):  # while they do
        app.sync.enqueue_named("work", task_id=f"parent-{n}")
    for child in children:
        child.join(30)
        assert child.exitcode == 0
    for name in ("parent", "child0", "child1", "child2"):
        assert app.sync.handle(f"{name}-49").state() == "queued"
    app.sync.close()


PRE_FORK = """
import os, signal, sys, time
from lineshaft import App

app = App(sys.argv[1], retry_for=30)
app.sync.enqueue_named("work", task_id="before")
children = []
for number in range(3):
    child = os.fork()
    if child == 0:
        for n in range(50):
            app.sync.enqueue_named("work", task_id=f"{number}-{n}")
            os.write(1, f"{number}-{n}\\n".encode())
        if number == 2:
            assert app.sync.handle("before").state() == "queued"
        app.sync.close()
        os._exit(0)
    children.append(child)
if sys.argv[2] == "owner-dies":
    os.kill(os.getpid(), signal.SIGKILL)
if sys.argv[2] == "owner-ends":
    app.sync.close()
for child in children:
    assert os.waitpid(child, 0)[1] == 0
"""


@pytest.mark.parametrize("what", ["owner-stays", "owner-ends", "owner-dies"])
def test_forked_off_before_they_serve(tmp_path: Path, what: str) -> None:
    """As a pre-forking web server does it: the App is open in the master, and its workers enqueue."""
    file = tmp_path / "jobs.db"
    done = subprocess.run(  # reads until the last child has ended, too
        [sys.executable, "-c", PRE_FORK, f"sqlite:///{file}", what],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stderr == ""
    stored = done.stdout.split()
    assert sorted(stored) == sorted(f"{number}-{n}" for number in range(3) for n in range(50))
    with sqlite3.connect(file) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert connection.execute("SELECT count(*) FROM task").fetchone() == (151,)
    connection.close()


ORPHANS = """
import os, sys, time
from lineshaft import App

app = App(sys.argv[1])
app.sync.enqueue_named("work", task_id="a-1")
if os.fork() == 0:
    print("idle", flush=True)
    sys.stdin.read()  # never uses the App: it must not keep its parent's sockets open
    os._exit(0)
sys.stdin.read()
"""


async def test_an_idle_child_does_not_keep_its_dead_parent_alive_for_others(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/jobs.db"
    with subprocess.Popen(  # noqa: ASYNC220 (asyncio's would wait for the child as well, whose pipes it shares)
        [sys.executable, "-c", ORPHANS, url], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert await asyncio.to_thread(process.stdout.readline) == b"idle\n"
        async with App(url, retry_for=10) as joined:
            assert await joined.handle("a-1").state() == "queued"
            process.kill()
            process.wait()
            await joined.enqueue_named("work", task_id="a-2")
            assert await joined.handle("a-1").state() == "queued"
            assert holder(tmp_path / "jobs.db").pid == os.getpid()


async def test_work_goes_on_while_the_owner_forks(tmp_path: Path) -> None:
    app = App(f"sqlite:///{tmp_path}/jobs.db")

    @app.task()
    async def double(n: int) -> int:
        return 2 * n

    async with app, app.worker(concurrency=8):
        handles = []
        for n in range(10):
            handles += [await app.enqueue(double.configure(task_id=f"{n}-{m}"), m) for m in range(10)]
            if (child := os.fork()) == 0:
                os._exit(0)
            assert os.waitpid(child, 0)[1] == 0  # noqa: ASYNC222 (it ends at once)
        assert [await handle.result("20s") for handle in handles] == [2 * m for m in range(10)] * 10
    done = await all_done(tmp_path / "jobs.db", {handle.task_id for handle in handles})
    assert set(done.values()) == {1}


def test_an_app_in_memory_says_in_the_child_where_its_tasks_are() -> None:
    app = App("memory://")
    app.sync.enqueue_named("work")
    reader, writer = os.pipe()
    if os.fork() == 0:
        try:
            app.sync.enqueue_named("work")
        except BaseException as error:
            os.write(writer, f"{type(error).__name__}: {error}".encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as answer:
        told = answer.read()
    os.wait()
    assert told.startswith(f"ForkedApp: this App was open in process {os.getpid()} when it forked into ")
    assert "its tasks are in the memory of that process" in told
    app.sync.close()
