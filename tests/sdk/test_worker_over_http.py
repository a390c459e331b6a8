"""A worker in this process at a coordinator in another: by push session and by long poll."""

from __future__ import annotations

import asyncio
import time

import pytest

from lineshaft import App, Context, TaskCancelled
from lineshaft.errors import Forbidden, Unauthorized
from lineshaft.wire import CALLS, NewKey
from tests.sdk.conftest import Coordinator, until


@pytest.fixture(params=[True, False], ids=["push", "poll"])
def push(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


async def test_enqueue_work_result(coordinator: Coordinator, push: bool) -> None:
    async with App(coordinator.url) as app:

        @app.task(queue="mail")
        async def double(ctx: Context, n: int) -> int:
            return 2 * n

        @app.task(queue="other")
        def plain(n: int) -> int:
            return n

        async with app.worker({"mail": 20, "other": 2}, push=push):
            assert await app.enqueue_and_wait(double, 4) == 8
            handles = await app.enqueue_many(double.bind(n) for n in range(500))
            more = await app.enqueue_many(plain.bind(n) for n in range(20))
            assert [await handle.result("20s") for handle in handles] == [2 * n for n in range(500)]
            assert [await handle.result("20s") for handle in more] == list(range(20))


async def test_a_cancel_reaches_a_running_task(coordinator: Coordinator, push: bool) -> None:
    async with App(coordinator.url) as app:
        started = asyncio.Event()

        @app.task(lease="3s" if push is False else "1h")
        async def endless() -> None:
            started.set()
            await asyncio.Event().wait()

        async with app.worker(push=push):
            handle = await app.enqueue(endless)
            await started.wait()
            await handle.cancel("enough")
            with pytest.raises(TaskCancelled, match="enough"):
                await handle.result("10s")


async def test_prefetched_tasks_start_when_acknowledged(coordinator: Coordinator, push: bool) -> None:
    async with App(coordinator.url) as app:

        @app.task()
        async def double(n: int) -> int:
            return 2 * n

        async with app.worker(concurrency=2, prefetch=5, push=push):
            handles = await app.enqueue_many(double.bind(n) for n in range(100))
            assert [await handle.result("20s") for handle in handles] == [2 * n for n in range(100)]


async def test_outcomes_wait_for_a_coordinator_that_is_away(coordinator: Coordinator, push: bool) -> None:
    async with App(coordinator.url) as app:
        gate, started = asyncio.Event(), asyncio.Event()

        @app.task()
        async def slow(ctx: Context) -> int:
            started.set()
            await gate.wait()
            return ctx.attempt

        async with app.worker(push=push):
            handle = await app.enqueue(slow)
            await started.wait()
            coordinator.kill()
            gate.set()
            await asyncio.sleep(0)
            coordinator.start()
            assert await handle.result("30s") == 1
            assert await app.enqueue_and_wait(slow) == 1


async def test_a_blocked_event_loop_keeps_its_leases(coordinator: Coordinator, push: bool) -> None:
    async with App(coordinator.url) as app:

        @app.task(lease="1s")
        async def blocks(ctx: Context) -> int:
            time.sleep(2.2)  # noqa: ASYNC251 (what this test is about)
            return ctx.attempt

        @app.task(lease="1s")
        async def waits(ctx: Context) -> int:
            await asyncio.sleep(0.5)
            return ctx.attempt

        async with app.worker(push=push):
            handles = await app.enqueue_many([waits.bind(), blocks.bind()])
            assert [await handle.result("10s") for handle in handles] == [1, 1]
            assert [(await handle.info()).lost_leases for handle in handles] == [0, 0]


async def test_a_drain_from_outside_ends_the_worker(coordinator: Coordinator, push: bool) -> None:
    async with App(coordinator.url) as app:
        app.task("never")(lambda: None)
        worker = app.worker(name="w-1", push=push, concurrency=1, lease="1s")
        running = asyncio.create_task(worker.run())

        async def known() -> list[str]:
            return [one.worker_id for one in (await app.call(CALLS["workers"])).workers]

        await until(known, ["w-1"])
        await app.call(CALLS["drain"], id="w-1")
        await asyncio.wait_for(running, 40)


async def test_a_worker_without_a_key_or_its_scope_says_so_and_ends(
    coordinator: Coordinator, push: bool
) -> None:
    async with App(coordinator.url) as app:
        admin = await app.call(CALLS["new_key"], body=NewKey(name="k", scopes=["admin"]))
        app.task("never")(lambda: None)
        with pytest.raises(Unauthorized, match="ApiKey"):
            await asyncio.wait_for(app.worker(push=push).run(), 20)
    async with App(coordinator.url, api_key=admin.key) as app:
        key = await app.call(CALLS["new_key"], body=NewKey(name="k", scopes=["enqueue"]))
    async with App(coordinator.url, api_key=key.key) as limited:
        limited.task("never")(lambda: None)
        await limited.enqueue_named("x")
        with pytest.raises(Forbidden, match="scope work"):
            await asyncio.wait_for(limited.worker(push=push).run(), 20)


async def test_a_worker_takes_only_what_its_app_defines(coordinator: Coordinator, push: bool) -> None:
    async with App(coordinator.url) as app, App(coordinator.url) as other:

        @app.task()
        async def ours() -> str:
            return "ours"

        @other.task()
        async def theirs() -> str:
            return "theirs"

        foreign = await app.enqueue_many(theirs.bind() for _ in range(3))
        async with app.worker(push=push) as worker:
            assert await app.enqueue_and_wait(ours) == "ours"
            assert [(await handle.info()).attempts for handle in foreign] == [[]] * 3

            @app.task()
            async def later() -> str:
                return "later"

            handle = await app.enqueue(later)
            while await handle.state() == "queued":  # what makes it look again is any news of its own
                assert await app.enqueue_and_wait(ours) == "ours"
            assert await handle.result("10s") == "later"
            assert worker.executor.names == ["ours", "later"]
        async with other.worker({"default": 2}, push=push):
            assert [await handle.result("10s") for handle in foreign] == ["theirs"] * 3


async def test_a_block_ends_with_the_worker_that_cannot_go_on(coordinator: Coordinator) -> None:
    async with App(coordinator.url) as app:
        admin = await app.call(CALLS["new_key"], body=NewKey(name="admin", scopes=["admin"]))
    async with App(coordinator.url, api_key=admin.key) as app:
        key = await app.call(CALLS["new_key"], body=NewKey(name="shop", scopes=["enqueue", "read"]))
    async with App(coordinator.url, api_key=key.key) as app:

        @app.task()
        async def never() -> None: ...

        handle = await app.enqueue(never)
        with pytest.raises(Forbidden):
            async with app.worker():
                await handle.result()
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0
