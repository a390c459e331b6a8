"""Procrastinate over PostgreSQL: asyncio on both sides, a worker with 20 at once that listens."""

from __future__ import annotations

import importlib.metadata
import os
import sys

import procrastinate

from bench.driving import AsyncContender
from bench.telling import Handler

connector = procrastinate.PsycopgConnector(conninfo=os.environ["BENCH_SERVER"], min_size=4, max_size=32)
app = procrastinate.App(connector=connector)
handler = Handler()


@app.task(name="noop")
async def noop(text: str) -> None:
    handler(text)


class Procrastinate(AsyncContender):
    async def open(self) -> None:
        await app.open_async()
        await app.schema_manager.apply_schema_async()

    async def close(self) -> None:
        await app.close_async()

    async def enqueue(self, text: str) -> None:
        await noop.defer_async(text=text)

    async def bulk(self, texts: list[str]) -> None:
        await noop.batch_defer_async(*[{"text": text} for text in texts])

    async def purge(self) -> None:
        await connector.execute_query_async("TRUNCATE procrastinate_jobs CASCADE")

    def versions(self) -> dict[str, str]:
        return {name: importlib.metadata.version(name) for name in ("procrastinate", "psycopg")}

    def worker(self) -> list[str]:
        settings = ["--concurrency", "20", "--delete-jobs", "always"]
        return [
            sys.executable,
            "-m",
            "procrastinate",
            "--app",
            "bench.peers.procrastinate_jobs.app",
            "worker",
            *settings,
        ]
