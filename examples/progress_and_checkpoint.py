"""A long task says how far it is, fails in the middle, and goes on from its checkpoint."""

from __future__ import annotations

import asyncio

from lineshaft import App, Context

app = App("memory://")
ROWS = 1000


@app.task(retry_policy={"backoff": "fixed", "base": "100ms"})
async def import_rows(ctx: Context) -> str:
    """Import rows in batches of 100; a checkpoint after each that is durable before the next begins."""
    done = ctx.resume(int) or 0
    while done < ROWS:
        if done == 500 and ctx.attempt == 1:
            raise ConnectionError("the database has gone away")
        done += 100
        ctx.progress(done, ROWS, "rows")
        await ctx.checkpoint(done)
    return f"{ROWS} rows in {ctx.attempt} attempts"


async def main() -> None:
    async with app, app.worker(concurrency=1):
        handle = await app.enqueue(import_rows)
        result = await handle.result(timeout="30s")

        task = await handle.info()
        for attempt in task.attempts or ():
            print(f"attempt {attempt.attempt}: {attempt.outcome}")
        if task.progress is not None:
            print(f"progress: {task.progress.done} of {task.progress.total} {task.progress.message}")
        print(result)


if __name__ == "__main__":
    asyncio.run(main())
