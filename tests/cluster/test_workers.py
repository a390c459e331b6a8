"""Workers of the SDK do not notice that shards move."""

from __future__ import annotations

import asyncio

import pytest

from lineshaft import App
from tests.cluster.fleet import fleet


@pytest.mark.parametrize("push", [True, False], ids=["push", "polling"])
async def test_a_worker_executes_every_task_once_while_coordinators_come_and_go(push: bool) -> None:
    async with fleet(3) as f:
        ran: list[int] = []
        home = f.ships[0]
        async with App(home.url) as app:

            @app.task(max_retries=0)
            async def note(number: int) -> int:
                await asyncio.sleep(0.01)
                ran.append(number)
                return number

            async with app.worker(push=push):
                handles = []
                for number in range(200):
                    handles.append(await app.enqueue(note, number))
                    if number in (50, 150):
                        await f.stop(next(ship for ship in f.ships if ship is not home))
                    if number in (20, 100):
                        await f.launch()
                results = await asyncio.gather(*(handle.result(timeout=60) for handle in handles))
        assert sorted(ran) == results == list(range(200))
