"""Tasks that only some machines can do, and resources that are shared.

Two workers wait, one of them on a machine with two GPUs. Three trainings, each of which needs a GPU to
itself, go there, two at a time; the task without needs is not held up by them.
"""

from __future__ import annotations

import asyncio

from lineshaft import App, Context

app = App("memory://")
training = most = 0


@app.task(capability=["cuda"], resources={"gpu": 1, "memory": "8GiB"})
async def train(ctx: Context, model: str) -> str:
    """Count how many train at the same time."""
    global training, most  # noqa: PLW0603 (all of it is one process here, and this is what it shows)
    training += 1
    most = max(most, training)
    await asyncio.sleep(0.1)
    training -= 1
    return model


@app.task()
async def announce(text: str) -> str:
    """Run anywhere."""
    return text


async def main() -> None:
    small = app.worker(name="small", concurrency=4)
    large = app.worker(
        name="large", concurrency=4, capability=["cuda"], resources={"gpu": 2, "memory": "64GiB"}
    )
    async with app, small, large:
        models = await app.enqueue_many([train.bind(model=name) for name in ("one", "two", "three")])
        print(await app.enqueue_and_wait(announce, text="no GPU needed"))
        for handle in models:
            print("trained", await handle.result(timeout="30s"), "on", (await handle.info()).worker_id)
        print(f"at most {most} at once on the machine with two GPUs")


if __name__ == "__main__":
    asyncio.run(main())
