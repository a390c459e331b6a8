"""A process that opens an App on a file which others have open too: enqueues, works, and writes down what it
saw. One word a line on standard input tells it what to do; what it has done it says on standard output.

    python joined_process.py URL NAME
"""

from __future__ import annotations

import asyncio
import os
import sys

from lineshaft import App, Context
from lineshaft.errors import LineshaftError

url, name = sys.argv[1:3]
app = App(url, retry_for=30)


@app.task(lease="1s", max_retries=10, retry_policy={"base": 0})
async def work(ctx: Context, n: int) -> str:
    await asyncio.sleep(0.002)
    return f"{ctx.task_id} {n}"


def say(*words: object) -> None:
    sys.stdout.write(" ".join(map(str, words)) + "\n")
    sys.stdout.flush()


async def enqueue(begin: int, count: int) -> None:
    """Enqueue by several at once; what was acknowledged is said."""

    async def some(part: int) -> None:
        for n in range(begin + part, begin + count, 8):
            handle = await app.enqueue(work.configure(task_id=f"{name}-{n}"), n)
            say("stored", handle.task_id)

    await asyncio.gather(*map(some, range(8)))


async def main() -> None:
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    async with app, app.worker(concurrency=4, grace="10s"):
        say("open", os.getpid())
        while line := (await reader.readline()).decode().split():
            try:
                match line:
                    case ["enqueue", begin, count]:
                        await enqueue(int(begin), int(count))
                    case ["end"]:
                        break
                say("did", *line)
            except LineshaftError as error:
                say("error", error.type, error.reason)
    say("closed")


asyncio.run(main())
