"""RQ over Valkey: `enqueue` and `enqueue_many`, a `SimpleWorker`, which does not fork for each job."""

from __future__ import annotations

import importlib.metadata
import sys

from redis import Redis
from rq import Queue

from bench.driving import Spec, SyncContender
from bench.telling import Handler

handler = Handler()


def noop(text: str) -> str:
    handler(text)
    return "ok"


class Rq(SyncContender):
    def __init__(self, spec: Spec) -> None:
        super().__init__(spec)
        self._redis = Redis.from_url(spec.server)
        self._queue = Queue("bench", connection=self._redis)

    def put(self, text: str) -> None:
        self._queue.enqueue("bench.peers.rq_jobs.noop", text, result_ttl=0)

    async def bulk(self, texts: list[str]) -> None:
        self._queue.enqueue_many(
            [Queue.prepare_data("bench.peers.rq_jobs.noop", (text,), result_ttl=0) for text in texts]
        )

    async def round_trip(self, text: str) -> None:
        job = self._queue.enqueue("bench.peers.rq_jobs.noop", text, result_ttl=60)
        result = job.latest_result(timeout=30)
        assert result is not None

    async def purge(self) -> None:
        self._redis.flushdb()

    def versions(self) -> dict[str, str]:
        return {name: importlib.metadata.version(name) for name in ("rq", "redis", "hiredis")}

    def worker(self) -> list[str]:
        settings = ["--worker-class", "rq.SimpleWorker", "--quiet"]
        return [sys.executable, "-m", "rq.cli", "worker", *settings, "--url", self.spec.server, "bench"]
