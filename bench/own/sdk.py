"""Lineshaft as Python programs use it: the SDK's client and worker over HTTP, and an embedded coordinator."""

from __future__ import annotations

import os
import sys
from contextlib import AsyncExitStack

from bench.driving import AsyncContender, Spec
from bench.own.coordinator import coordinator, store_of
from bench.telling import Handler
from lineshaft import App, __version__

CONCURRENCY = 500
"""Without prefetch, since a prefetched task has to be started before it runs, which is a commit more."""


class OverHTTP(AsyncContender):
    """A coordinator process, a client process (this one) and a worker process."""

    def __init__(self, spec: Spec) -> None:
        super().__init__(spec)
        self._stack = AsyncExitStack()

    async def open(self) -> None:
        self._coordinator = self._stack.enter_context(coordinator(store_of(self.spec)))
        self.server_pid = self._coordinator.pid
        await self._connect(App(self._coordinator.url))

    async def _connect(self, app: App) -> None:
        self.app = await self._stack.enter_async_context(app)
        self._ran = Handler()

        @app.task()
        async def noop(text: str) -> None:
            self._ran(text)

        # What is only enqueued has a queue that nobody works at, which is cheaper than to forget it.
        self._noop, self._busy = noop.configure(queue="idle"), noop.configure(queue="busy")

    async def close(self) -> None:
        await self._stack.aclose()

    def versions(self) -> dict[str, str]:
        return {"lineshaft": __version__, "python": sys.version.split()[0]}

    async def enqueue(self, text: str) -> None:
        await self.app.enqueue(self._noop, text=text)

    async def bulk(self, texts: list[str]) -> None:
        await self.app.enqueue_many([self._noop.bind(text=text) for text in texts])

    async def round_trip(self, text: str) -> None:
        await self.app.enqueue_and_wait(self._noop, text=text)

    async def begin_work(self) -> None:
        self._noop = self._busy

    def worker(self) -> list[str]:
        settings = ["--queues", "busy", "--concurrency", str(CONCURRENCY)]
        return [sys.executable, "-m", "lineshaft", "worker", "bench.own.jobs:app", *settings]

    async def start_worker(self, environment: dict[str, str]) -> int:
        return await super().start_worker(environment | {"BENCH_URL": self._coordinator.url})


class Embedded(OverHTTP):
    """Client, coordinator and worker in this one process."""

    async def open(self) -> None:
        await self._connect(App(store_of(self.spec)))

    async def start_worker(self, environment: dict[str, str]) -> int:
        os.environ.update({name: environment[name] for name in ("BENCH_TELL", "BENCH_DRAIN")})
        self._ran = Handler()
        self._worker = self.app.worker(["busy"], concurrency=CONCURRENCY)
        await self._worker.__aenter__()
        return os.getpid()

    async def stop_worker(self) -> None:
        await self._worker.__aexit__(None, None, None)
