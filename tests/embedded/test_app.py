"""An App whose coordinator runs in its own process, with a worker beside it: the same code path, the same
semantics.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from lineshaft import App, Cancel, Context, ResultTimeout, TaskCancelled, TaskFailed, Worker
from lineshaft.errors import Conflict, Invalid, LineshaftError, NotFound, TooLarge
from lineshaft.wire import CALLS, Claim


@pytest.fixture(params=["memory://", "sqlite:///jobs.db"])
async def app(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[App]:
    monkeypatch.chdir(tmp_path)
    async with App(request.param) as app:
        yield app


async def test_enqueue_work_result(app: App) -> None:
    @app.task(queue="mail", max_retries=5, timeout="5m")
    async def send_invoice(ctx: Context, invoice_id: int) -> str:
        return f"sent {invoice_id} in attempt {ctx.attempt}"

    @app.task()
    def plain(n: int) -> dict[str, str]:
        return {str(n): threading.current_thread().name}

    async with app.worker():
        handle = await app.enqueue(send_invoice, invoice_id=3)
        assert await handle.result(timeout="10s") == "sent 3 in attempt 1"
        [(key, thread)] = (await app.enqueue_and_wait(plain, 5)).items()
        assert (key, thread[:17]) == ("5", "lineshaft-handler")


async def test_enqueue_many_and_dedup_by_id(app: App) -> None:
    @app.task()
    async def double(n: int) -> int:
        return 2 * n

    async with app.worker(concurrency=50):
        handles = await app.enqueue_many(double.bind(n) for n in range(2500))
        assert [await handle.result("20s") for handle in handles] == [2 * n for n in range(2500)]
        again = await app.enqueue(double.configure(task_id=handles[0].task_id), 9)
        assert (again.created, await again.result("5s")) == (False, 0)


async def test_a_refused_item_of_a_bulk_spoils_only_itself(app: App) -> None:
    from lineshaft import EnqueueFailed

    @app.task()
    async def keep(text: str) -> None: ...

    with pytest.raises(EnqueueFailed, match=r"1 of 3 tasks were refused, the first \(number 1\)") as caught:
        await app.enqueue_many(keep.bind(text) for text in ("a", "x" * 2_000_000, "b"))
    assert list(caught.value.errors) == [1]
    assert isinstance(caught.value.errors[1], TooLarge)
    found = await app.call(CALLS["find"])
    assert len(found.tasks) == 2


async def test_each_queue_has_its_own_concurrency(app: App) -> None:
    at_once: dict[str, list[int]] = {"mail": [0, 0], "default": [0, 0]}

    async def busy(ctx: Context) -> None:
        running = at_once[ctx.queue]
        running[0] += 1
        running[1] = max(running)
        await asyncio.sleep(0.01)
        running[0] -= 1

    mail, default = app.task("mail", queue="mail")(busy), app.task("default")(busy)
    async with app.worker({"mail": 1, "default": 3}):
        handles = await app.enqueue_many(
            [mail.bind() for _ in range(8)] + [default.bind() for _ in range(20)]
        )
        await asyncio.gather(*(handle.result("10s") for handle in handles))
    assert [most for _, most in at_once.values()] == [1, 3]


async def test_prefetched_tasks_start_only_when_there_is_a_slot(app: App) -> None:
    gate = asyncio.Event()

    @app.task()
    async def wait() -> str:
        await gate.wait()
        return "done"

    async with app.worker(concurrency=1, prefetch=2):
        handles = await app.enqueue_many(wait.bind() for _ in range(4))
        await until(lambda: states(handles), ["running", "claimed", "claimed", "queued"])
        gate.set()
        assert [await handle.result("10s") for handle in handles] == ["done"] * 4


async def states(handles: list[Any]) -> list[str]:
    return [await handle.state() for handle in handles]


async def until(read: Any, expected: Any, within: float = 10.0) -> None:
    """Poll until what is read is as expected."""
    deadline = time.monotonic() + within
    while (seen := await read()) != expected:
        assert time.monotonic() < deadline, f"still {seen}, not {expected}"
        await asyncio.sleep(0.01)


async def test_a_running_coroutine_is_interrupted_by_cancel(app: App) -> None:
    started, cleaned = asyncio.Event(), asyncio.Event()

    @app.task(lease="1s")
    async def endless() -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            cleaned.set()

    async with app.worker():
        handle = await app.enqueue(endless)
        await started.wait()
        await handle.cancel("changed my mind")
        with pytest.raises(TaskCancelled, match="changed my mind"):
            await handle.result("10s")
        await asyncio.wait_for(cleaned.wait(), 5)


async def test_a_plain_function_sees_cancelled_in_its_context(app: App) -> None:
    started = threading.Event()

    @app.task(lease="1s")
    def stubborn(ctx: Context) -> None:
        started.set()
        while True:
            ctx.raise_if_cancelled()
            time.sleep(0.01)

    async with app.worker():
        handle = await app.enqueue(stubborn)
        await asyncio.to_thread(started.wait, 5)
        await handle.cancel("enough")
        with pytest.raises(TaskCancelled, match="was cancelled"):
            await handle.result("10s")


async def test_a_handler_that_cancels_its_task_says_why_to_whoever_waits(app: App) -> None:
    @app.task()
    async def refund() -> None:
        raise Cancel("nothing was paid")

    async with app.worker():
        handle = await app.enqueue(refund)
        with pytest.raises(TaskCancelled, match="nothing was paid"):
            await handle.result("10s")


async def test_a_timeout_interrupts_a_coroutine_and_abandons_a_thread(app: App) -> None:
    release = threading.Event()

    @app.task(timeout="100ms", max_retries=0)
    async def slow() -> None:
        await asyncio.Event().wait()

    @app.task(timeout="100ms", max_retries=0)
    def blocking(ctx: Context) -> None:
        release.wait(10)

    async with app.worker():
        for task in (slow, blocking):
            handle = await app.enqueue(task)
            with pytest.raises(TaskFailed) as caught:
                await handle.result("10s")
            assert caught.value.failure_type == "timeout"
        release.set()


async def test_a_blocked_event_loop_keeps_its_leases(app: App) -> None:
    attempts = []

    @app.task(lease="1s")
    async def blocks(ctx: Context) -> int:
        attempts.append(ctx.attempt)
        time.sleep(2.5)  # noqa: ASYNC251 (what this test is about)
        return ctx.attempt

    async with app.worker():
        assert await app.enqueue_and_wait(blocks) == 1
    assert attempts == [1]


async def test_progress_and_checkpoint_are_seen_while_the_task_runs(app: App) -> None:
    gate = asyncio.Event()

    @app.task(max_retries=1, retry_policy={"base": 0})
    async def steps(ctx: Context) -> Any:
        if ctx.previous_checkpoint is not None:
            return ctx.previous_checkpoint
        ctx.progress(1, 3, "one of three")
        await ctx.checkpoint({"row": 7})
        await gate.wait()
        raise ValueError("lost it")

    async with app.worker():
        handle = await app.enqueue(steps)

        async def progress() -> Any:
            found = (await handle.info()).progress
            return None if found is None else (found.done, found.total, found.message)

        await until(progress, (1, 3, "one of three"))
        gate.set()
        assert await handle.result("10s") == {"row": 7}


async def test_a_stopping_worker_finishes_within_its_grace_and_gives_back_the_rest(app: App) -> None:
    gate, started = asyncio.Event(), asyncio.Event()

    @app.task()
    async def quick() -> str:
        started.set()
        await gate.wait()
        return "finished"

    @app.task()
    async def endless(ctx: Context) -> int:
        await asyncio.Event().wait()
        return ctx.attempt

    worker = app.worker(concurrency=2, grace="500ms")
    running = asyncio.create_task(worker.run())
    first, second = await app.enqueue(quick), await app.enqueue(endless)
    await until(lambda: states([first, second]), ["running", "running"])
    worker.drain()
    gate.set()
    await asyncio.wait_for(running, 10)
    assert await first.result("1s") == "finished"
    info = await second.info()
    assert (info.state, info.attempt, info.lost_leases) == ("queued", 0, 0)


async def test_an_abandoned_thread_does_not_keep_a_worker_from_stopping(app: App) -> None:
    release, started = threading.Event(), threading.Event()

    @app.task()
    def deaf() -> None:
        started.set()
        release.wait(30)

    worker = app.worker(grace=0)
    running = asyncio.create_task(worker.run())
    handle = await app.enqueue(deaf)
    await asyncio.to_thread(started.wait, 5)
    worker.drain()
    await asyncio.wait_for(running, 10)
    assert await handle.state() == "queued"
    release.set()


async def test_errors_name_what_is_wrong(app: App) -> None:
    @app.task()
    async def noop() -> None: ...

    with pytest.raises(NotFound):
        await app.handle("nobody").state()
    handle = await app.enqueue(noop)
    with pytest.raises(Conflict):
        await handle.retry()
    with pytest.raises(ResultTimeout, match="is still queued"):
        await handle.result("10ms")
    with pytest.raises(ResultTimeout):
        await app.enqueue_and_wait(noop.configure(wait="10ms"))
    deep: Any = []
    for _ in range(70):
        deep = [deep]
    with pytest.raises(LineshaftError, match=r"deep|nest"):
        await app.enqueue_named("x", deep)
    with pytest.raises(Invalid):
        await app.enqueue_named("x", object())


async def test_a_finished_task_can_be_run_again(app: App) -> None:
    seen = []

    @app.task(max_retries=0)
    async def flaky(ctx: Context) -> str:
        seen.append(ctx.attempt)
        if len(seen) == 1:
            raise ValueError("first")
        return "second"

    async with app.worker():
        handle = await app.enqueue(flaky)
        with pytest.raises(TaskFailed, match="ValueError: first"):
            await handle.result("10s")
        await handle.retry()
        assert await handle.result("10s") == "second"
    assert seen == [1, 1]


async def test_result_types_come_back(app: App) -> None:
    import dataclasses

    @dataclasses.dataclass
    class Receipt:
        number: int
        lines: list[str]

    @app.task()
    async def bill(n: int) -> Receipt:
        return Receipt(n, ["a"])

    @app.task()
    async def lies() -> int:
        return "text"  # type: ignore[return-value]

    async with app.worker():
        assert await app.enqueue_and_wait(bill, 3) == Receipt(3, ["a"])
        with pytest.raises(TypeError, match="is not as annotated"):
            await app.enqueue_and_wait(lies)


async def test_a_result_that_the_coordinator_refuses_fails_the_task(app: App) -> None:
    @app.task(max_retries=3)
    async def huge() -> str:
        return "x" * 2_000_000

    @app.task()
    async def strange() -> Any:
        return object()

    async with app.worker():
        with pytest.raises(TaskFailed, match="refused the outcome") as caught:
            await (await app.enqueue(huge)).result("10s")
        assert caught.value.failure_type == "result_refused"
        with pytest.raises(TaskFailed, match="has no JSON form"):
            await (await app.enqueue(strange)).result("10s")


async def test_what_a_cancelled_claim_was_given_at_that_moment_is_released(app: App) -> None:
    await app.enqueue_named("n", None, task_id="a")
    claim = asyncio.create_task(app.call(CALLS["claim"], body=Claim(lease="1h")))
    await asyncio.sleep(0)
    there = app._coordinator
    assert there is not None

    def state() -> str:
        """Ask without letting this event loop have the answer to the claim."""
        asked = there.call(CALLS["get"], id="a", query=None, body=None, traceparent=None)
        return str(asyncio.run_coroutine_threadsafe(asked, there.loop).result(10).state)

    while state() != "running":
        pass
    claim.cancel()
    with pytest.raises(asyncio.CancelledError):
        await claim
    while state() != "queued":
        pass
    task = await app.call(CALLS["get"], id="a")
    assert (task.attempt, task.lost_leases) == (0, 0)


async def test_what_was_stored_is_there_after_closing(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/jobs.db"
    assert url.startswith("sqlite:////")
    async with App(url) as first:
        handle = await first.enqueue_named("later", {"a": 1})
    async with App(url) as second:
        info = await second.handle(handle.task_id).info()
        assert (info.name, info.state) == ("later", "queued")


async def test_an_app_may_be_opened_again(tmp_path: Path) -> None:
    app = App(f"sqlite:///{tmp_path}/jobs.db")
    async with app:
        handle = await app.enqueue_named("later")
    async with app:
        assert await app.handle(handle.task_id).state() == "queued"


def test_the_synchronous_facade_for_scripts(tmp_path: Path) -> None:
    app = App("memory://")

    @app.task()
    def add(a: int, b: int) -> int:
        return a + b

    worker = app.worker()
    running = threading.Thread(target=lambda: asyncio.run(worker.run()))
    with app.sync:
        running.start()
        handle = app.sync.enqueue(add, 1, b=2)
        assert handle.result(timeout="10s") == 3
        assert app.sync.enqueue_and_wait(add, 3, 4) == 7
        assert [one.result("10s") for one in app.sync.enqueue_many([add.bind(1, 1)])] == [2]
        assert handle.state() == "completed"
        app.sync.wait_for(lambda: _drain(worker))
        running.join(10)


async def _drain(worker: Worker) -> None:
    worker.drain()


SCRIPT = """
from lineshaft import App
app = App({url!r})
@app.task()
def f(n: int) -> int: return n
print(app.sync.enqueue(f, 3).state())
"""


@pytest.mark.parametrize("url", ["memory://", "sqlite:///jobs.db"])
def test_a_script_may_end_without_closing_its_app(url: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", SCRIPT.format(url=url)],
        capture_output=True, text=True, cwd=tmp_path, timeout=20, check=False,
    )  # fmt: skip
    assert (done.stdout, done.stderr, done.returncode) == ("queued\n", "", 0)
