"""Tasks for worker processes under test: they write what they do into `events` beside this file."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path

from lineshaft import App, Context

FOLDER = Path(__file__).parent
app = App()


def write(event: str) -> None:
    with (FOLDER / "events").open("a") as file:
        file.write(event + "\n")


def allowed(name: str) -> bool:
    return (FOLDER / name).exists()


@app.task()
async def add(a: int, b: int) -> int:
    return a + b


@app.task(lease="1s", max_retries=3)
async def wait_for(ctx: Context, name: str) -> str:
    """Wait for a file; say by whom and in which attempt it was seen."""
    write(f"{name} started {ctx.attempt}")
    try:
        while not allowed(name):  # noqa: ASYNC110 (another process says when)
            await asyncio.sleep(0.01)
    except asyncio.CancelledError:
        write(f"{name} interrupted {ctx.attempt}")
        raise
    write(f"{name} finished {ctx.attempt}")
    return f"{os.getpid()} in attempt {ctx.attempt}"


@app.task(lease="1s")
def block(ctx: Context, name: str) -> str:
    """Do the same in a thread, deaf to everything."""
    write(f"{name} started {ctx.attempt}")
    while not allowed(name):
        time.sleep(0.01)
    return f"attempt {ctx.attempt}"


@app.task(max_retries=1, retry_policy={"base": 0})
async def crash(ctx: Context) -> None:
    write(f"crash {ctx.attempt}")
    os.kill(os.getpid(), signal.SIGKILL)


@app.task()
async def hog(ctx: Context) -> None:
    """Block the event loop for good."""
    write(f"hog {ctx.attempt}")
    while True:
        time.sleep(1)  # noqa: ASYNC251 (what this task is for)


@app.task()
async def who() -> int:
    return os.getpid()
