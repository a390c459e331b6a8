"""A worker beside the test, drained at its end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from lineshaft import App, Worker


@asynccontextmanager
async def working(app: App, *args: Any, **settings: Any) -> AsyncIterator[Worker]:
    """Run a worker for the length of the block."""
    worker = app.worker(*args, **settings)
    running = asyncio.create_task(worker.run())
    try:
        yield worker
    finally:
        worker.drain("the test is over")
        await asyncio.wait_for(running, 30)
