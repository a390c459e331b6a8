"""`async with app.worker():` works for the length of a block."""

from __future__ import annotations

import asyncio

import pytest

from lineshaft import App, Context, ResultTimeout, TaskCancelled, WrongDefinition
from lineshaft.errors import TooLarge


async def test_what_is_at_work_when_the_block_ends_is_finished() -> None:
    async with App("memory://") as app:
        started = asyncio.Event()

        @app.task()
        async def slow() -> str:
            started.set()
            for _ in range(100):
                await asyncio.sleep(0)
            return "done"

        async with app.worker(concurrency=2):
            handle = await app.enqueue(slow)
            await started.wait()
        assert await handle.result(0) == "done"


async def test_after_an_exception_what_is_at_work_is_given_back_unburned() -> None:
    async with App("memory://") as app:
        started = asyncio.Event()

        @app.task()
        async def endless() -> None:
            started.set()
            await asyncio.Event().wait()

        with pytest.raises(KeyError):
            async with app.worker():
                handle = await app.enqueue(endless)
                await started.wait()
                raise KeyError("the script's own")
        assert await handle.state() == "queued"
        assert (await handle.info()).attempt == 0


async def test_a_cancelled_block_stops_its_worker() -> None:
    async with App("memory://") as app:
        started = asyncio.Event()

        @app.task()
        async def endless() -> None:
            started.set()
            await asyncio.Event().wait()

        async def work() -> None:
            async with app.worker():
                await (await app.enqueue(endless)).result()

        block = asyncio.create_task(work())
        await started.wait()
        block.cancel()
        with pytest.raises(asyncio.CancelledError):
            await block
        assert len(asyncio.all_tasks()) == 1


async def test_a_worker_without_tasks_says_what_is_missing() -> None:
    async with App("memory://") as app:
        with pytest.raises(WrongDefinition, match="import the modules that define them"):
            async with app.worker():
                pass
        with pytest.raises(WrongDefinition, match="has no tasks"):
            await app.worker().run()


async def test_a_task_defined_while_the_worker_waits_is_asked_for_at_once() -> None:
    async with App("memory://") as app:
        app.task("first")(lambda: None)
        async with app.worker({"default": 1, "mail": 1}, push=False):
            await asyncio.sleep(0.05)  # until its claims are parked

            @app.task()
            async def later() -> str:
                return "later"

            assert await app.enqueue_and_wait(later.configure(wait="5s")) == "later"


async def test_a_checkpoint_too_large_for_a_request_costs_nobody_a_lease() -> None:
    async with App("memory://") as app:

        @app.task(lease="1s")
        async def others(ctx: Context) -> int:
            await refused.wait()
            await asyncio.sleep(1.2)  # longer than a lease, so that it must have been heard
            return ctx.attempt

        @app.task(lease="1s")
        async def greedy(ctx: Context) -> int:
            ctx.progress(1, 2)
            with pytest.raises(TooLarge):
                await ctx.checkpoint("x" * 9_000_000)
            refused.set()
            return ctx.attempt

        refused = asyncio.Event()
        async with app.worker():
            handles = [await app.enqueue(others) for _ in range(3)]
            assert await app.enqueue_and_wait(greedy.configure(wait="10s")) == 1
            assert [await handle.result("10s") for handle in handles] == [1, 1, 1]


async def test_a_cancel_waits_for_no_heartbeat() -> None:
    async with App("memory://") as app:
        started = asyncio.Event()

        @app.task(lease="1h")
        async def endless() -> None:
            started.set()
            await asyncio.Event().wait()

        async with app.worker({"mail": 1, "default": 1}):
            handle = await app.enqueue(endless)
            await started.wait()
            await handle.cancel("enough")
            with pytest.raises(TaskCancelled, match="enough"):
                await handle.result("5s")


async def test_a_worker_runs_once() -> None:
    async with App("memory://") as app:

        @app.task()
        async def some() -> None: ...

        worker = app.worker()
        async with worker:
            pass
        with pytest.raises(RuntimeError, match=r"runs once; make another with app\.worker\(\)"):
            await worker.run()


async def test_a_timeout_says_how_long_was_waited() -> None:
    async with App("memory://") as app:

        @app.task()
        async def some() -> None: ...

        with pytest.raises(ResultTimeout, match=r"is still queued after 0\.[2-9] s; it goes on"):
            await app.enqueue_and_wait(some.configure(wait="200ms"))


@pytest.mark.parametrize(
    ("queues", "warned"),
    [
        (["mial"], True),
        (["mail", "default"], False),
        (["mail"], False),
        (None, False),
        (["mial", "post"], True),
    ],
)
async def test_a_worker_that_asks_past_the_tasks_of_its_app_says_so(
    queues: list[str] | None, warned: bool, caplog: pytest.LogCaptureFixture
) -> None:
    async with App("memory://") as app:

        @app.task(queue="mail")
        async def send() -> None: ...

        @app.task(queue="post")
        async def stamp() -> None: ...

        async with app.worker(queues):
            await asyncio.sleep(0)  # it says so at its first step
    said = "no task of this App is in queue mial; not asked for are its tasks in mail" in caplog.text
    assert said is warned
