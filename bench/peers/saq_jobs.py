"""saq over Valkey: asyncio on both sides, a worker with 10 at once."""

from __future__ import annotations

import importlib.metadata
import os
import sys
from typing import Any

from saq import Queue

from bench.driving import AsyncContender
from bench.telling import Handler

handler = Handler()
CONCURRENCY = 10


async def noop(context: Any, *, text: str) -> str:
    handler(text)
    return "ok"


def queue() -> Any:
    return Queue.from_url(os.environ["BENCH_SERVER"], max_concurrent_ops=100)


settings = {
    "queue": queue(),
    "functions": [noop],
    "concurrency": CONCURRENCY,
}


class Saq(AsyncContender):
    async def open(self) -> None:
        self._queue = queue()

    async def close(self) -> None:
        await self._queue.disconnect()

    async def enqueue(self, text: str) -> None:
        await self._queue.enqueue("noop", text=text, ttl=-1)

    async def round_trip(self, text: str) -> None:
        await self._queue.apply("noop", text=text, ttl=60, poll_interval=0.0005)

    async def purge(self) -> None:
        await self._queue.redis.flushdb()

    def versions(self) -> dict[str, str]:
        return {name: importlib.metadata.version(name) for name in ("saq", "redis", "hiredis")}

    def worker(self) -> list[str]:
        return [sys.executable, "-m", "saq", "bench.peers.saq_jobs.settings", "--quiet"]
