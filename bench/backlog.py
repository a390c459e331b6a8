"""Measure a coordinator with a large backlog: memory, restart and pick-up beside a million queued tasks.

    python bench/backlog.py                        # 1,000,000 tasks of 1 KB, a temporary SQLite file
    python bench/backlog.py --tasks 200000 --given # ids chosen by the client, as the SDK does
    python bench/backlog.py --folder /var/tmp      # on another disk

Memory is resident memory as the system counts it (`VmRSS`), processor time is the coordinator's own.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from typing import Any

import wire


class Coordinator:
    """A coordinator process of ours."""

    def __init__(self, store: str) -> None:
        command = [sys.executable, "-m", "lineshaft", "serve", "--listen", "127.0.0.1:0", "--json"]
        began = time.perf_counter()
        self._process = subprocess.Popen(
            [*command, "--store", store], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        assert self._process.stdout is not None
        self.url = json.loads(self._process.stdout.readline())["url"]
        self.started = time.perf_counter() - began

    @property
    def resident(self) -> float:
        """Return its resident memory in MB (10^6 bytes)."""
        return self._status("VmRSS") * 1024 / 1e6

    @property
    def resident_peak(self) -> float:
        """Return the most that it ever had, in MB."""
        return self._status("VmHWM") * 1024 / 1e6

    @property
    def computed(self) -> float:
        """Return the processor seconds that it has used."""
        with open(f"/proc/{self._process.pid}/stat") as file:
            fields = file.read().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    @property
    def woken(self) -> int:
        """Return how often its main thread gave up the processor to wait."""
        return self._status("voluntary_ctxt_switches")

    def stop(self) -> None:
        """Let it finish."""
        self._process.terminate()
        self._process.wait()

    def _status(self, name: str) -> int:
        with open(f"/proc/{self._process.pid}/status") as file:
            return next(int(line.split()[1]) for line in file if line.startswith(name + ":"))


@contextlib.contextmanager
def coordinator(store: str) -> Iterator[Coordinator]:
    """Run a coordinator for the length of the block."""
    started = Coordinator(store)
    try:
        yield started
    finally:
        started.stop()


async def fill(url: str, options: argparse.Namespace) -> None:
    """Enqueue the backlog over four connections."""
    task: dict[str, Any] = {"name": "noop", "queue": "backlog", "payload": "x" * options.bytes}
    batch = json.dumps([task] * wire.BATCH).encode()

    async def enqueue(line: wire.Line, number: int) -> None:
        for turn in range(options.tasks // wire.BATCH // 4):
            body = batch
            if options.given:
                ids = (
                    f"{time.time_ns() // 1_000_000:012x}{number:02x}{turn:08x}{n:04x}"
                    for n in range(wire.BATCH)
                )
                body = json.dumps([{**task, "task_id": each} for each in ids]).encode()
            await line.post("/_tasks/_bulk", body)

    async with wire.lines(url, 4) as opened:
        await asyncio.gather(*(enqueue(line, number) for number, line in enumerate(opened)))


async def rest(running: Coordinator, seconds: float) -> str:
    """Say what a coordinator costs that has nothing to do."""
    computed, woken = running.computed, running.woken
    await asyncio.sleep(seconds)
    used = 100 * (running.computed - computed) / seconds
    wakes = (running.woken - woken) / seconds
    return f"{running.resident:.0f} MB, {used:.2f} % of a processor, {wakes:.1f} wake-ups/s"


async def picked_up(running: Coordinator, queue: str) -> str:
    """Say how long a task takes to an idle worker."""
    await wire.pick_up(running.url, queue, 100)
    taken = sorted(await wire.pick_up(running.url, queue, 500))
    return f"p50 {1e3 * taken[250]:.2f} ms, p99 {1e3 * taken[495]:.2f} ms"


async def measure(store: str, options: argparse.Namespace) -> None:
    """Print everything."""

    def say(what: str, figure: str) -> None:
        print(f"{what:34}{figure}", flush=True)

    with coordinator(store) as running:
        say("start, empty", f"{running.started:.2f} s")
        say("at rest, empty", await rest(running, options.rest))
        say("pick-up, empty", await picked_up(running, "idle"))
        began = time.perf_counter()
        await fill(running.url, options)
        say("bulk enqueue", f"{options.tasks / (time.perf_counter() - began):.0f} tasks/s")
        say("as written", f"{running.resident:.0f} MB, at most {running.resident_peak:.0f} MB")
        say("pick-up, as written", await picked_up(running, "idle"))
    with coordinator(store) as running:
        say("restart", f"{running.started:.2f} s, of the processor {running.computed:.2f} s")
        say("after restart", f"{running.resident:.0f} MB, at most {running.resident_peak:.0f} MB")
        say("pick-up, after restart", await picked_up(running, "idle"))
        say("at rest, after restart", await rest(running, options.rest))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tasks", type=int, default=1_000_000)
    parser.add_argument("--bytes", type=int, default=1_000, help="of a payload")
    parser.add_argument("--given", action="store_true", help="the client chooses the ids")
    parser.add_argument("--rest", type=float, default=10.0, help="seconds to watch it do nothing")
    parser.add_argument("--folder", help="where the file is made (default: the temporary directory)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="lineshaft-bench-", dir=options.folder) as folder:
        asyncio.run(measure(f"sqlite:///{folder}/bench.db", options))


if __name__ == "__main__":
    main()
