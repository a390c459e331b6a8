"""Measure a store by itself: commits of 1, 100 and 500 tasks, from enqueue over claim to completion.

    python -m bench.store                       # memory and SQLite in a temporary directory
    python -m bench.store sqlite:///bench.db --tasks 100000 --sizes 1,100,500 --queued 1000000

A task's life is three commits: enqueue (row, identity, payload), claim (row), completion (row, result). Ids
are random unless `--ordered`. "busy" repeats the measurement beside a thread that never gives up the
interpreter by itself, as an embedded application may.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from bench.own.lives import NOW, WEEK, Blobs, Committer, claimed, completed, queued
from lineshaft.core.batch import Blob
from lineshaft.core.commands import Filter
from lineshaft.core.task import Spec, State, Task
from lineshaft.store.base import Ownership, Query, Store
from lineshaft.store.urls import open_store

SPEC = Spec(name="send-mail", queue="mail")


class Bench(Committer):
    """A store, the next number of arrival, and how long its commits took."""

    def __init__(self, store: Store, ownership: Ownership, *, ordered: bool) -> None:
        super().__init__(store, ownership)
        self.seq = 0
        self.times: list[float] = []
        self._ordered = ordered
        self._chance = random.Random(1)

    async def write(self, rows: list[Task], blobs: Blobs) -> None:
        """Make one commit, and time it."""
        begun = time.perf_counter()
        await self.commit(rows, blobs, last_seq=self.seq)
        self.times.append(time.perf_counter() - begun)

    async def enqueue(self, count: int) -> list[Task]:
        """Enqueue so many tasks in one commit."""
        tasks = [queued(seq, SPEC, self._id(seq)) for seq in range(self.seq, self.seq + count)]
        self.seq += count
        await self.write(tasks, [(Blob.PAYLOAD, task.seq, b'{"invoice_id": 3}') for task in tasks])
        return tasks

    async def live(self, count: int) -> None:
        """Enqueue, claim and complete so many tasks in three commits."""
        tasks = await self.enqueue(count)
        await self.write([claimed(task) for task in tasks], [])
        results = [(Blob.RESULT, task.seq, b'"sent"') for task in tasks]
        await self.write([completed(task) for task in tasks], results)

    def _id(self, seq: int) -> str:
        return (
            f"{NOW + seq // 50:012x}{seq:014x}" if self._ordered else f"{self._chance.getrandbits(128):032x}"
        )


@contextmanager
def busy_thread() -> Iterator[None]:
    """Keep the interpreter busy from another thread."""
    ended = threading.Event()

    def spin() -> None:
        while not ended.is_set():
            sum(range(100))

    thread = threading.Thread(target=spin)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


@contextmanager
def undisturbed() -> Iterator[None]:
    """Leave the interpreter alone."""
    yield


async def measure_lives(url: str, size: int, lives: int, options: argparse.Namespace) -> None:
    """Print what a task's life costs in commits of one size."""
    for label, beside in (("", undisturbed), ("busy", busy_thread))[: 2 if options.busy else 1]:
        with tempfile.TemporaryDirectory(prefix="lineshaft-bench-") as directory:
            store = open_store(url.replace("{}", directory))
            await store.open(address="bench")
            bench = Bench(store, await store.acquire(0, b"bench"), ordered=options.ordered)
            rounds = max(3, lives // size)
            begun, begun_computing = time.perf_counter(), time.process_time()
            with beside():
                for _ in range(rounds):
                    await bench.live(size)
            took, computed = time.perf_counter() - begun, time.process_time() - begun_computing
            await store.close()
        lived = rounds * size
        times = sorted(bench.times)
        print(
            f"{url.partition('://')[0]:8}{label:5}{size:>6} rows a commit{3 * lived / took:>9.0f} rows/s"
            f"{1e6 * sum(times) / lived:>9.2f} µs a task life ({1e6 * computed / lived:.2f} of the processor)"
            f"  commit p50 {1e3 * statistics.median(times):.2f} p99 {1e3 * times[len(times) * 99 // 100]:.2f}"
            f" max {1e3 * times[-1]:.1f} ms",
            flush=True,
        )


async def measure_backlog(url: str, queued: int, options: argparse.Namespace) -> None:
    """Print how long a load and searches take over so many queued tasks and as many finished ones."""
    with tempfile.TemporaryDirectory(prefix="lineshaft-bench-") as directory:
        store = open_store(url.replace("{}", directory))
        await store.open(address="bench")
        bench = Bench(store, await store.acquire(0, b"bench"), ordered=options.ordered)
        for _ in range(queued // 1_000):
            await bench.live(1_000)
            await bench.enqueue(1_000)
        print(f"\n{queued} queued and {queued} finished tasks in {url.partition('://')[0]}:")
        await _timed("load", store.load(bench.ownership))
        for what, query in (
            ("search, newest first", Query(tenant="default")),
            ("search for a state", Query(tenant="default", filter=Filter(states=frozenset({State.FAILED})))),
            ("search by priority", Query(tenant="default", sort="priority")),
            ("search for a text", Query(tenant="default", filter=Filter(text="nowhere"))),
        ):
            await _timed(what, store.search(0, query))
        await _timed("count", store.count(0, Query(tenant="default")))
        await _timed("prune 10000", store.prune(0, before=NOW + WEEK, log_before=0))
        await store.close()


async def _timed(what: str, awaitable: object) -> None:
    begun = time.perf_counter()
    await awaitable  # type: ignore[misc]  # any coroutine
    print(f"  {what:24}{time.perf_counter() - begun:>8.3f} s", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("urls", nargs="*", default=["memory://", "sqlite:///{}/bench.db"])
    parser.add_argument("--sizes", default="1,100,500", help="tasks in a commit")
    parser.add_argument("--tasks", type=int, default=50_000, help="lives to measure (at size 1, a twentieth)")
    parser.add_argument("--ordered", action="store_true", help="ids in order of time")
    parser.add_argument("--busy", action="store_true", help="also beside a thread that computes")
    parser.add_argument("--queued", type=int, default=0, help="also load and search over so many tasks")
    options = parser.parse_args()
    for url in options.urls:
        for size in map(int, options.sizes.split(",")):
            asyncio.run(measure_lives(url, size, options.tasks // (20 if size == 1 else 1), options))
        if options.queued:
            asyncio.run(measure_backlog(url, options.queued, options))


if __name__ == "__main__":
    main()
