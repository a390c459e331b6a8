"""Apps and their workers at a tenant with partitions notice nothing of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from lineshaft import App, Context, TaskCancelled
from tests.cluster.fleet import fleet
from tests.server.partitions.split import PARTITIONS


@pytest.fixture(params=[1, 2], ids=["one coordinator", "two"])
async def url(request: pytest.FixtureRequest) -> AsyncIterator[str]:
    async with fleet(request.param, shards=4) as given:
        status, _ = await given.call(given.ships[0], "PUT", "/_tenants/default", {"partitions": PARTITIONS})
        assert status == 200
        yield given.ships[-1].url


@pytest.fixture(params=[True, False], ids=["push", "poll"])
def push(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


async def test_enqueue_work_result(url: str, push: bool) -> None:
    async with App(url) as app:

        @app.task(queue="mail")
        async def double(ctx: Context, n: int) -> int:
            return 2 * n

        @app.task(queue="other")
        def plain(n: int) -> int:
            return n

        async with app.worker({"mail": 20, "other": 2}, push=push):
            assert await app.enqueue_and_wait(double, 4) == 8
            handles = await app.enqueue_many(double.bind(n) for n in range(300))
            more = await app.enqueue_many(plain.bind(n) for n in range(20))
            assert [await handle.result("20s") for handle in handles] == [2 * n for n in range(300)]
            assert [await handle.result("20s") for handle in more] == list(range(20))


async def test_a_cancel_reaches_a_running_task(url: str, push: bool) -> None:
    async with App(url) as app:
        started = asyncio.Event()

        @app.task(lease="1h" if push else "3s")
        async def endless() -> None:
            started.set()
            await asyncio.Event().wait()

        async with app.worker(push=push):
            for _ in range(4 if push else 2):
                started.clear()
                handle = await app.enqueue(endless)
                await started.wait()
                await handle.cancel("enough")
                with pytest.raises(TaskCancelled, match="enough"):
                    await handle.result("10s")


async def test_prefetched_tasks_start_when_acknowledged(url: str, push: bool) -> None:
    async with App(url) as app:

        @app.task()
        async def double(n: int) -> int:
            return 2 * n

        async with app.worker(concurrency=2, prefetch=5, push=push):
            handles = await app.enqueue_many(double.bind(n) for n in range(60))
            assert [await handle.result("20s") for handle in handles] == [2 * n for n in range(60)]


async def test_what_a_worker_has_is_never_given_twice(url: str, push: bool) -> None:
    async with App(url) as app:
        busy = most = 0

        @app.task(resources={"gpu": 1})
        async def train(n: int) -> int:
            nonlocal busy, most
            busy += 1
            most = max(most, busy)
            await asyncio.sleep(0.005)
            busy -= 1
            return n

        async with app.worker(concurrency=8, resources={"gpu": 1}, push=push):
            handles = await app.enqueue_many(train.bind(n) for n in range(15))
            assert [await handle.result("60s") for handle in handles] == list(range(15))
        assert most == 1
