"""A coordinator and its workers go on while PostgreSQL dies under them: nothing is lost or ends twice."""

from __future__ import annotations

import asyncio

import psycopg
import pytest

from lineshaft import App
from lineshaft.server.serve import running
from lineshaft.server.settings import ServerSettings
from tests.servers import postgres

SOON = 120
SENT, WRITTEN, DEATHS = 1_500, 300, 3


@pytest.mark.faults
@pytest.mark.timeout(300)
async def test_tasks_sent_and_written_all_end_once_over_three_deaths() -> None:
    with postgres(private=True) as server:
        database = server.fresh()
        done: dict[int, int] = {}
        more = asyncio.Event()
        settings = ServerSettings(store=f"{database}?shards=2", listen="127.0.0.1:0")
        async with running(settings) as coordinator, App(coordinator.url) as app:

            @app.task(queue="work", max_retries=10)
            async def work(number: int) -> int:
                done[number] = done.get(number, 0) + 1
                more.set()
                return number * 2

            def write(numbers: range) -> None:
                with psycopg.connect(database) as connection:
                    for number in numbers:
                        connection.execute(
                            "SELECT lineshaft.enqueue('work', %s, task_id => %s, queue => 'work',"
                            " max_retries => 10)",
                            (f'{{"number": {number}}}', f"task-{number}"),
                        )

            async def send() -> None:
                for first in range(0, SENT, 50):
                    await app.enqueue_many(
                        [
                            work.configure(task_id=f"task-{number}").bind(number=number)
                            for number in range(first, first + 50)
                        ]
                    )

            async def reached(count: int) -> None:
                while len(done) < count:
                    more.clear()
                    await more.wait()

            async with asyncio.timeout(SOON), app.worker(["work"], concurrency=20):
                sending = asyncio.create_task(send())
                await asyncio.to_thread(write, range(SENT, SENT + WRITTEN // 2))
                for death in range(1, DEATHS + 1):
                    await reached(death * 300)
                    await asyncio.to_thread(server.kill)
                    await asyncio.to_thread(server.restart)
                await sending
                await asyncio.to_thread(write, range(SENT + WRITTEN // 2, SENT + WRITTEN))
                await reached(SENT + WRITTEN)
                for number in range(SENT + WRITTEN):
                    assert await app.handle(f"task-{number}").result(timeout="60s") == number * 2
        with psycopg.connect(database) as connection:
            assert connection.execute(
                "SELECT state, count(*) FROM lineshaft.tasks GROUP BY state"
            ).fetchall() == [("completed", SENT + WRITTEN)]
            assert connection.execute("SELECT count(*) FROM lineshaft.inbox").fetchone() == (0,)
            assert connection.execute("SELECT sum(tasks) FROM lineshaft.census").fetchone() == (
                SENT + WRITTEN,
            )
