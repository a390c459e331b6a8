"""Measure a coordinator from outside, by a raw client of the protocol: no SDK, nothing but sockets.

    python bench/wire.py                              # a coordinator of its own, on a temporary SQLite file
    python bench/wire.py --store memory:// --runs 5
    python bench/wire.py --url http://127.0.0.1:7077  # one that runs already; it should have nothing to do

Each figure is the median of several runs. The client shares the machine with the coordinator: what it costs
is in every figure.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any
from urllib.parse import urlsplit

PAYLOAD = "x" * 100
BATCH = 100


class Line:
    """One kept-alive connection that sends a request at a time."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def post(self, path: str, body: bytes) -> Any:
        """Send JSON and return the answer's, None for 204. Raises RuntimeError for anything but success."""
        head = (
            f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        self._writer.write(head.encode() + body)
        answered = await self._reader.readuntil(b"\r\n\r\n")
        status = int(answered[9:12])
        length = int(answered.lower().split(b"content-length:")[1].split(b"\r\n")[0])
        content = await self._reader.readexactly(length)
        if status >= 300:
            raise RuntimeError(f"{path}: {status} {content.decode()}")
        return json.loads(content) if content else None

    def close(self) -> None:
        """Hang up."""
        self._writer.close()


@contextlib.asynccontextmanager
async def lines(url: str, count: int) -> AsyncIterator[list[Line]]:
    """Open connections for the length of the block."""
    parts = urlsplit(url)
    opened = [Line(*await asyncio.open_connection(parts.hostname, parts.port)) for _ in range(count)]
    try:
        yield opened
    finally:
        for line in opened:
            line.close()


async def bulk_enqueue(url: str, queue: str, tasks: int) -> float:
    """Return tasks per second, enqueued in batches by 4 connections."""
    body = json.dumps([{"name": "noop", "queue": queue, "payload": PAYLOAD}] * BATCH).encode()

    async def enqueue(line: Line) -> None:
        for _ in range(tasks // BATCH // 4):
            await line.post("/_tasks/_bulk", body)

    async with lines(url, 4) as opened:
        began = time.perf_counter()
        await asyncio.gather(*(enqueue(line) for line in opened))
        return tasks / (time.perf_counter() - began)


async def drain(url: str, queue: str, tasks: int) -> float:
    """Return tasks per second, claimed and completed by reports of a batch each over 4 connections."""

    async def work(line: Line, worker: str) -> int:
        done = 0
        items: list[dict[str, str]] = []
        claim = {"max": BATCH, "queues": [queue], "worker": {"id": worker}}
        while True:
            body = json.dumps({"items": items, "claim": claim}).encode()
            told = await line.post("/_tasks/_report", body)
            if not told["tasks"]:
                return done
            done += len(told["tasks"])
            items = [
                {"op": "complete", "task_id": t["task_id"], "lease_token": t["lease_token"], "result": "ok"}
                for t in told["tasks"]
            ]

    async with lines(url, 4) as opened:
        began = time.perf_counter()
        done = await asyncio.gather(*(work(line, f"w{n}") for n, line in enumerate(opened)))
        took = time.perf_counter() - began
    if sum(done) != tasks:
        raise RuntimeError(f"{sum(done)} of {tasks} tasks were drained")
    return tasks / took


async def single_enqueue(url: str, queue: str, tasks: int) -> float:
    """Return tasks per second, enqueued one a request by 64 connections."""
    body = json.dumps({"name": "noop", "queue": queue, "payload": PAYLOAD}).encode()

    async def enqueue(line: Line) -> None:
        for _ in range(tasks // 64):
            await line.post("/_tasks", body)

    async with lines(url, 64) as opened:
        began = time.perf_counter()
        await asyncio.gather(*(enqueue(line) for line in opened))
        return tasks // 64 * 64 / (time.perf_counter() - began)


async def pick_up(url: str, queue: str, tasks: int) -> list[float]:
    """Return seconds from sending an enqueue until a parked claim has the task, one at a time."""
    body = json.dumps({"name": "noop", "queue": queue, "payload": PAYLOAD}).encode()
    claim = json.dumps({"queues": [queue], "wait": "50s"}).encode()
    took = []
    async with lines(url, 2) as (client, worker):
        for _ in range(tasks):
            claimed = asyncio.create_task(worker.post("/_tasks/_claim", claim))
            await asyncio.sleep(0.002)  # until the claim is parked
            began = time.perf_counter()
            enqueued = asyncio.create_task(client.post("/_tasks", body))
            task = await claimed
            took.append(time.perf_counter() - began)
            await enqueued
            done = json.dumps({"lease_token": task["lease_token"]}).encode()
            await worker.post(f"/_tasks/{task['task_id']}/_complete", done)
    return took


async def measure(url: str, runs: int) -> dict[str, float]:
    """Return the medians over the runs."""
    figures: dict[str, list[float]] = {}
    for _ in range(runs):
        queue = f"bench-{os.urandom(4).hex()}"
        taken = sorted(await pick_up(url, queue, 300))
        for name, figure in {
            "bulk enqueue, 100 a request (tasks/s)": await bulk_enqueue(url, queue, 40_000),
            "drain by reports of 100 (tasks/s)": await drain(url, queue, 40_000),
            "single enqueue, 64 connections (tasks/s)": await single_enqueue(url, queue + "-1", 20_000),
            "pick-up p50 (ms)": taken[len(taken) // 2] * 1000,
            "pick-up p99 (ms)": taken[len(taken) * 99 // 100] * 1000,
        }.items():
            figures.setdefault(name, []).append(figure)
    return {name: statistics.median(values) for name, values in figures.items()}


@contextlib.contextmanager
def coordinator(store: str) -> Iterator[str]:
    """Run a coordinator process for the length of the block; yields its URL."""
    command = [
        sys.executable,
        "-m",
        "lineshaft",
        "serve",
        "--listen",
        "127.0.0.1:0",
        "--json",
        "--store",
        store,
    ]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert process.stdout is not None
    try:
        yield json.loads(process.stdout.readline())["url"]
    finally:
        process.terminate()
        process.wait()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--url")
    parser.add_argument("--store")
    parser.add_argument("--runs", type=int, default=3)
    given = parser.parse_args()
    with contextlib.ExitStack() as stack:
        url = given.url
        if url is None:
            folder = stack.enter_context(tempfile.TemporaryDirectory())
            url = stack.enter_context(coordinator(given.store or f"sqlite:///{folder}/bench.db"))
        for name, figure in asyncio.run(measure(url, given.runs)).items():
            print(f"{name:45} {figure:12.2f}")


if __name__ == "__main__":
    main()
