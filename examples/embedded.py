"""Without a server: the coordinator, its file and the worker are in this process.

Run it twice: the ids are the same, so the second time nothing is computed again.
"""

from __future__ import annotations

import asyncio

from lineshaft import App

app = App("sqlite:///squares.db")


@app.task(queue="squares")
async def square(number: int) -> int:
    return number * number


async def main() -> None:
    async with app:
        calls = [square.configure(task_id=f"square-{n}").bind(number=n) for n in range(1, 101)]
        handles = await app.enqueue_many(calls)
        print(f"new: {sum(handle.created for handle in handles)}")

        async with app.worker(["squares"], concurrency=20):
            results = [await handle.result(timeout="30s") for handle in handles]
        print(f"sum of squares: {sum(results)}")


if __name__ == "__main__":
    asyncio.run(main())
