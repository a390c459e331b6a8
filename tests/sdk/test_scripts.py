"""Scripts as people write them, at a real coordinator: they end without a word, whether they tidy up or
not.
"""

from __future__ import annotations

import asyncio
import inspect
import os
import subprocess
import sys
from pathlib import Path

import pytest

from lineshaft import App, ResultTimeout
from tests.sdk.conftest import Coordinator

ASYNC = """
import asyncio
from lineshaft import App
app = App()
@app.task()
async def f(n: int) -> int: return n
async def main():
    print(await (await app.enqueue(f, 3)).state())
asyncio.run(main())
asyncio.run(main())
"""
SYNC = """
from lineshaft import App
app = App()
@app.task()
def f(n: int) -> int: return n
print(app.sync.enqueue(f, 3).state())
print(app.sync.enqueue(f, 3).state())
"""
FORKED = """
import os
from lineshaft import App
app = App()
@app.task()
def f(n: int) -> int: return n
app.sync.enqueue(f, 3)
if os.fork() == 0:
    print(app.sync.enqueue(f, 3).state(), flush=True)
    own = App()
    print(own.sync.enqueue(f, 3).state(), flush=True)
    os._exit(0)
os.wait()
"""
WORKER = """
import os, signal
from lineshaft import App, Context
app = App()
@app.task()
async def stop(ctx: Context) -> None:
    print("stopping", flush=True)
    os.kill(os.getpid(), signal.SIGTERM)
app.sync.enqueue(stop)
app.sync.close()
app = App()
app.task()(stop.definition.handler)
app.run_worker()
print("stopped")
"""
THREAD = """
import threading
from lineshaft import App
app = App()
@app.task()
def f(n: int) -> int: return n
threading.Thread(target=app.run_worker, daemon=True).start()
print(app.sync.enqueue_and_wait(f, 3))
"""


@pytest.mark.parametrize(
    ("script", "printed"),
    [
        (ASYNC, "queued\nqueued\n"),
        (SYNC, "queued\nqueued\n"),
        (FORKED, "queued\nqueued\n"),
        (WORKER, "stopping\nstopped\n"),
        (THREAD, "3\n"),
    ],
    ids=["async", "sync", "forked", "worker", "thread"],
)
async def test_a_script_ends_without_a_word(
    coordinator: Coordinator, tmp_path: Path, script: str, printed: str
) -> None:
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "LINESHAFT_URL": coordinator.url},
        timeout=30,
        check=False,
    )
    assert (done.stdout, done.stderr, done.returncode) == (printed, "", 0)


async def test_a_script_without_a_coordinator_is_told_what_to_do(tmp_path: Path) -> None:
    done = await asyncio.to_thread(
        subprocess.run,
        [
            sys.executable,
            "-c",
            SYNC.replace("App()", "App(retry_for=0.3)"),
        ],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "LINESHAFT_URL": "http://127.0.0.1:9"},
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert "cannot reach the coordinator at http://127.0.0.1:9 (Connection refused)" in done.stderr
    warning, *_, error = done.stderr.splitlines()
    assert warning.endswith("; trying again")
    assert "is `lineshaft serve` running there?" in error
    assert error.endswith("(tried for 0.3 s)")


async def test_waiting_for_a_result_ends_in_time_also_without_a_coordinator() -> None:
    async with App("http://127.0.0.1:9") as app:
        began = asyncio.get_running_loop().time()
        with pytest.raises(ResultTimeout, match="cannot be read"):
            await app.handle("some").result("200ms")
        assert asyncio.get_running_loop().time() - began < 5


def test_an_app_gives_a_coordinator_that_is_away_ten_seconds() -> None:
    assert inspect.signature(App).parameters["retry_for"].default == 10
