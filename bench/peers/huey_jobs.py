"""Huey over Valkey, or over SQLite with fsync: a consumer of one thread."""

from __future__ import annotations

import importlib.metadata
import os
import sys
from pathlib import Path

from huey import RedisHuey, SqliteHuey

from bench.driving import SyncContender
from bench.telling import Handler

if os.environ["BENCH_SERVER"]:
    app = RedisHuey("bench", url=os.environ["BENCH_SERVER"], notify_result=True)
else:
    file = Path(os.environ["BENCH_SCRATCH"]) / "huey.db"
    app = SqliteHuey("bench", filename=str(file), fsync=True)
handler = Handler()


@app.task()
def noop(text: str) -> None:
    handler(text)


@app.task()
def answer(text: str) -> str:
    return "ok"


class Huey(SyncContender):
    def put(self, text: str) -> None:
        noop(text)

    async def round_trip(self, text: str) -> None:
        # Over SQLite a result is asked for again and again: at first after 5 ms.
        answer(text).get(blocking=True, timeout=30, max_delay=0.005)

    async def purge(self) -> None:
        app.flush()

    def versions(self) -> dict[str, str]:
        return {name: importlib.metadata.version(name) for name in ("huey", "redis")}

    def worker(self) -> list[str]:
        settings = ["--workers", "1", "--worker-type", "thread", "--delay", "0.005", "--max-delay", "0.005"]
        return [
            sys.executable,
            "-m",
            "huey.bin.huey_consumer",
            "bench.peers.huey_jobs.app",
            *settings,
            "--quiet",
            "--no-periodic",
        ]
