"""Celery over Valkey: `apply_async` with a publisher pool, a worker with the `solo` pool."""

from __future__ import annotations

import os
import sys

import celery
import kombu
import redis

from bench.driving import SyncContender
from bench.telling import Handler

app = celery.Celery("bench", broker=os.environ["BENCH_SERVER"], backend=os.environ["BENCH_SERVER"])
app.conf.update(
    broker_pool_limit=64,
    broker_connection_retry_on_startup=True,
    task_ignore_result=True,
    task_store_errors_even_if_ignored=False,
    worker_prefetch_multiplier=128,
    worker_disable_rate_limits=True,
    worker_send_task_events=False,
    worker_hijack_root_logger=False,
)
handler = Handler()


@app.task(name="noop")
def noop(text: str) -> None:
    handler(text)


@app.task(name="answer", ignore_result=False)
def answer(text: str) -> str:
    return "ok"


class Celery(SyncContender):
    def put(self, text: str) -> None:
        noop.delay(text)

    async def round_trip(self, text: str) -> None:
        answer.delay(text).get(timeout=30)

    async def purge(self) -> None:
        app.control.purge()

    def versions(self) -> dict[str, str]:
        return {"celery": celery.__version__, "kombu": kombu.__version__, "redis": redis.__version__}

    def worker(self) -> list[str]:
        quiet = ["--without-gossip", "--without-mingle", "--without-heartbeat", "--loglevel=ERROR"]
        module = ["-A", "bench.peers.celery_jobs:app"]
        return [sys.executable, "-m", "celery", *module, "worker", "--pool=solo", *quiet]
