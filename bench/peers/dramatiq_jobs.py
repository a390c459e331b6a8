"""Dramatiq over Valkey: `send`, a worker of one process."""

from __future__ import annotations

import importlib.metadata
import os
import sys

import dramatiq
from dramatiq.brokers.redis import RedisBroker
from dramatiq.middleware import AgeLimit, Callbacks, CurrentMessage, Pipelines, Retries, ShutdownNotifications
from dramatiq.results import Results
from dramatiq.results.backends import RedisBackend

from bench.driving import SyncContender
from bench.telling import Handler

THREADS = 8

broker = RedisBroker(
    url=os.environ["BENCH_SERVER"],
    middleware=[AgeLimit(), ShutdownNotifications(), Callbacks(), Pipelines(), CurrentMessage(), Retries()],
)
broker.add_middleware(Results(backend=RedisBackend(url=os.environ["BENCH_SERVER"])))
dramatiq.set_broker(broker)
handler = Handler()


@dramatiq.actor
def noop(text: str) -> None:
    handler(text)


@dramatiq.actor(store_results=True)
def answer(text: str) -> str:
    return "ok"


class Dramatiq(SyncContender):
    def put(self, text: str) -> None:
        noop.send(text)

    async def round_trip(self, text: str) -> None:
        answer.send(text).get_result(block=True, timeout=30_000)

    async def purge(self) -> None:
        broker.flush_all()

    def versions(self) -> dict[str, str]:
        return {name: importlib.metadata.version(name) for name in ("dramatiq", "redis")}

    def worker(self) -> list[str]:
        size = ["--processes", "1", "--threads", str(THREADS)]
        return [sys.executable, "-m", "dramatiq", "bench.peers.dramatiq_jobs", *size]
