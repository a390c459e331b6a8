"""Drives one contender through the measures of one round, in a process of its own. Standard library alone.

`drive(Contender)` is told by BENCH_SPEC what to do, and prints what it measured as one line of JSON.
Everything is measured from the client's side but the drain (from the first handler's start to the last's) and
the pick-up (from before the enqueue to the handler's start), which are told by the handlers.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

from bench.telling import DRAIN, PICK_UP, Ear, payload
from bench.usage import cpu_of

CALLERS = 64
LATENCY_SECONDS = 8.0
"""No latency is sampled for longer: one that polls every half second gets fewer samples."""


class Spec:
    """What one round is to be: `seconds` of each enqueueing, `samples` of a latency, tasks to `drain`.

    `rest` seconds of doing nothing, and `queued` tasks, are for what stands.
    """

    def __init__(self, text: str) -> None:
        given: dict[str, Any] = json.loads(text)
        self.seconds: float = given["seconds"]
        self.samples: int = given["samples"]
        self.drain: int = given["drain"]
        self.scratch: str = given["scratch"]
        self.rest: float = given.get("rest", 1.0)
        self.queued: int = given.get("queued", 0)
        self.server: str = given.get("server", "")
        self.server_pid: int = given.get("server_pid", 0)


class Contender:
    """What is measured: override what it can do, and leave out what it cannot."""

    bulk_size = 1000
    """Tasks in one bulk enqueue."""

    _process: subprocess.Popen[bytes] | None = None

    def __init__(self, spec: Spec) -> None:
        self.spec = spec
        self.server_pid = spec.server_pid

    async def open(self) -> None:
        """Get ready to enqueue, with nothing queued."""

    async def close(self) -> None:
        """Give everything back."""

    def versions(self) -> dict[str, str]:
        """Return the versions of what takes part."""
        return {}

    async def purge(self) -> None:
        """Forget everything that is queued."""

    async def begin_work(self) -> None:
        """From now on enqueue what the worker is to do."""

    async def enqueue_until(self, deadline: float, callers: int) -> int:
        """Enqueue one by one from so many callers until the deadline; return how many."""
        raise NotImplementedError

    async def enqueue(self, text: str) -> None:
        """Enqueue one task."""
        raise NotImplementedError

    bulk: Callable[[list[str]], Awaitable[None]] | None = None
    """Enqueue several in one go, where it can."""
    round_trip: Callable[[str], Awaitable[None]] | None = None
    """Enqueue one, and wait for its result, where it can."""

    def worker(self) -> list[str]:
        """Return the command line of one worker process."""
        raise NotImplementedError

    async def start_worker(self, environment: dict[str, str]) -> int:
        """Start the worker; return its pid."""
        quiet = None if os.environ.get("BENCH_LOUD") else subprocess.DEVNULL
        self._process = subprocess.Popen(  # noqa: ASYNC220  # nothing else is to happen meanwhile
            self.worker(), env=environment, stdout=quiet, stderr=quiet, start_new_session=True
        )
        return self._process.pid

    def worker_has_ended(self) -> int | None:
        """Return its exit code, None while it works."""
        return None if self._process is None else self._process.poll()

    async def stop_worker(self) -> None:
        """End the worker, whatever it thinks of it."""
        assert self._process is not None
        self._process.terminate()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()


class AsyncContender(Contender):
    """One whose client is asyncio's."""

    async def enqueue_until(self, deadline: float, callers: int) -> int:
        async def call() -> int:
            count = 0
            while time.perf_counter() < deadline:
                await self.enqueue(payload())
                count += 1
            return count

        return sum(await asyncio.gather(*(call() for _ in range(callers))))


class SyncContender(Contender):
    """One whose client blocks: override `put`, and `put_many` and `put_and_wait` where it can."""

    def put(self, text: str) -> None:
        """Enqueue one task."""
        raise NotImplementedError

    async def enqueue(self, text: str) -> None:
        self.put(text)

    async def enqueue_until(self, deadline: float, callers: int) -> int:
        def call() -> int:
            count = 0
            while time.perf_counter() < deadline:
                self.put(payload())
                count += 1
            return count

        if callers == 1:
            return call()
        with concurrent.futures.ThreadPoolExecutor(callers) as threads:
            return sum(one.result() for one in [threads.submit(call) for _ in range(callers)])


class Round:
    """One contender's measures, one after the other."""

    def __init__(self, contender: Contender, spec: Spec) -> None:
        self._contender = contender
        self._spec = spec
        self.figures: dict[str, float] = {}
        self.cpu: dict[str, dict[str, float]] = {}

    async def run(self) -> None:
        """Measure everything that the contender can do."""
        contender = self._contender
        for name, callers in (("enqueue_one", 1), ("enqueue_64", CALLERS)):
            await self._enqueue(name, callers)
            await contender.purge()
        await contender.begin_work()
        await self._prepare()
        ear = Ear()
        environment = os.environ | {"BENCH_TELL": ear.address, "BENCH_DRAIN": str(self._spec.drain)}
        before = self._server_cpu()
        worker = await contender.start_worker(environment)
        try:
            await self._drain(ear, worker, before)
            await asyncio.sleep(0.3)  # what the drain has left to be told
            await self._pick_up(ear)
            if contender.round_trip is not None:
                await self._round_trip(contender.round_trip)
        finally:
            await contender.stop_worker()
            ear.close()

    async def _enqueue(self, name: str, callers: int) -> None:
        contender = self._contender
        await contender.enqueue_until(time.perf_counter() + min(0.2, self._spec.seconds), callers)  # warm
        client, server = time.process_time(), self._server_cpu()
        began = time.perf_counter()
        count = await contender.enqueue_until(began + self._spec.seconds, callers)
        self._rate(name, count, time.perf_counter() - began)
        self._cost(name, count, client=time.process_time() - client, server=self._server_cpu() - server)

    async def _prepare(self) -> None:
        contender, count = self._contender, self._spec.drain
        texts = [payload(DRAIN) for _ in range(count)]
        if contender.bulk is None:
            for text in texts:
                await contender.enqueue(text)
            return
        client, server = time.process_time(), self._server_cpu()
        began = time.perf_counter()
        for at in range(0, count, contender.bulk_size):
            await contender.bulk(texts[at : at + contender.bulk_size])
        self._rate("bulk", count, time.perf_counter() - began)
        self._cost("bulk", count, client=time.process_time() - client, server=self._server_cpu() - server)

    async def _drain(self, ear: Ear, worker: int, server: float) -> None:
        first = await self._first(ear)
        costs = cpu_of(worker) if worker != os.getpid() else time.process_time()
        last = await ear.hear(120)
        count = self._spec.drain
        self._rate("drain", count - 1, (last - first) / 1e9)
        now = cpu_of(worker) if worker != os.getpid() else time.process_time()
        self._cost("drain", count, worker=now - costs, server=self._server_cpu() - server)

    async def _first(self, ear: Ear) -> int:
        for _ in range(30):
            if (code := self._contender.worker_has_ended()) is not None:
                raise RuntimeError(f"the worker ended with {code} before it ran anything")
            with contextlib.suppress(TimeoutError):
                return await ear.hear(1.0)
        raise RuntimeError("the worker ran nothing within 30 s")

    async def _pick_up(self, ear: Ear) -> None:
        took = []
        for _ in self._samples():
            await self._contender.enqueue(payload(PICK_UP))
            took.append(await ear.hear() / 1e6)
            await asyncio.sleep(0.004)  # so that the worker is idle again
        took.sort()
        self.figures["pick_up_p50"] = took[len(took) // 2]
        self.figures["pick_up_p99"] = took[len(took) * 99 // 100]

    async def _round_trip(self, round_trip: Callable[[str], Awaitable[None]]) -> None:
        took = []
        for _ in self._samples():
            began = time.perf_counter()
            await round_trip(payload())
            took.append((time.perf_counter() - began) * 1e3)
            await asyncio.sleep(0.004)
        took.sort()
        self.figures["round_trip_p50"] = took[len(took) // 2]

    def _samples(self) -> Iterator[int]:
        deadline = time.perf_counter() + LATENCY_SECONDS
        return itertools.takewhile(lambda _: time.perf_counter() < deadline, range(self._spec.samples))

    def _rate(self, name: str, count: int, seconds: float) -> None:
        self.figures[name] = count / seconds

    def _cost(self, name: str, count: int, **seconds: float) -> None:
        self.cpu[name] = {who: took / count * 1e6 for who, took in seconds.items() if took > 0}

    def _server_cpu(self) -> float:
        pid = self._contender.server_pid
        return cpu_of(pid) if pid else 0.0


async def _run(kind: Callable[[Spec], Contender]) -> dict[str, Any]:
    spec = Spec(os.environ["BENCH_SPEC"])
    contender = kind(spec)
    await contender.open()
    try:
        round = Round(contender, spec)
        await round.run()
        return {"figures": round.figures, "cpu": round.cpu, "versions": contender.versions()}
    finally:
        await contender.close()


def drive(kind: Callable[[Spec], Contender]) -> None:
    """Run one round as BENCH_SPEC says, and print what was measured."""
    told = asyncio.run(_run(kind))
    sys.stdout.write(json.dumps(told) + "\n")
