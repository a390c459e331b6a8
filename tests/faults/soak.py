"""A coordinator under a crowd for minutes: nothing leaks, no wake-up is lost, waiting gets no longer.

    python -m tests.faults.soak --minutes 10

A thousand idle workers are connected, half with a parked claim and half with a push session, and two hundred
busy ones in two processes, of which one is killed again and again. Workers leave and come, hang up without a
word, fall silent with a task in their hands. Probes are put into the idle queues, and each must be picked up.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import msgspec

from tests.faults.processes import eventually
from tests.faults.raw_lines import HttpLine
from tests.faults.soak_report import Report

IDLE_QUEUES = [f"idle-{n}" for n in range(10)]
LEASE = 5.0
MEBIBYTE = 1 << 20
_GAUGES = (
    "leases",
    "waiting_claims",
    "waiting_results",
    "pending_bytes",
    "shard_parked",
    "shard_pending_commands",
)
_REMEMBERED = ("lineshaft.core.fleet.",)
"""Types of which objects stay on purpose: workers that have gone are remembered for five minutes."""
_SWEPT = ("lineshaft.core.claimers.Claimer", "lineshaft.core.commands.Claim", "lineshaft.core.tenants.Wait")
"""Types whose dead are swept out when there are a thousand of them, or as many as there are living."""
_SWEPT_AT = 2_500


class Soak:
    """One soak, from an empty store to the report."""

    def __init__(self, *, seconds: float, idle: int, busy: int, rate: float, folder: Path) -> None:
        self._seconds = seconds
        self._idle = idle
        self._busy = busy
        self._rate = rate
        self._store = f"sqlite:///{folder / 'soak.db'}"
        self._counts = folder / "counts"
        self._port = 0
        self._coordinator: asyncio.subprocess.Process | None = None
        self._picked: dict[str, list[float]] = {}
        self._sent: dict[str, float] = {}
        self._began = 0.0
        self._rss: list[tuple[float, float]] = []
        self._readers: list[asyncio.Task[None]] = []
        self.report = Report()

    async def run(self) -> Report:
        """Soak, and return what was found."""
        report = self.report
        async with self._coordinating():
            await self._probe("first")  # now everything is open and loaded that comes late
            before = await self._count()
            async with self._crowding():
                self._began, cpu = time.monotonic(), self._cpu()
                async with asyncio.timeout(self._seconds + 300), asyncio.TaskGroup() as group:
                    for work in (self._enqueue(), self._probe_on(), self._kill_on(), self._watch()):
                        group.create_task(work)
                report.cpu = (self._cpu() - cpu) / (time.monotonic() - self._began)
                report.open_tasks = await self._drained()
            await self._at_rest()
            await self._compare(before)
        self._judge_probes()
        self._judge_memory()
        return report

    # -- processes ---------------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def _coordinating(self) -> AsyncIterator[None]:
        arguments = ("-m", "tests.faults.watched_serve", self._store, str(self._counts))
        process = await _started(*arguments, stdout=asyncio.subprocess.PIPE)
        self._coordinator = process
        try:
            assert process.stdout is not None
            line = (await process.stdout.readline()).decode()
            self._port = int(line.split(",")[0].rpartition(":")[2])
            yield
        finally:
            await _ended(process)

    @contextlib.asynccontextmanager
    async def _crowding(self) -> AsyncIterator[None]:
        """Let the idle and the first half of the busy come; the other half is that which is killed."""
        crowd = [
            await self._crowd("idle", self._idle, queues=IDLE_QUEUES, stay=90.0),
            await self._crowd("busy", self._busy // 2, queues=["busy"], stay=30.0, hold=0.8, lapse=0.02),
        ]
        try:
            await self._until(lambda metrics: metrics["shard_parked"] >= self._idle * 0.9, within=60)
            yield
        finally:
            for process in crowd:
                await _ended(process)
            await asyncio.gather(*self._readers)

    async def _crowd(self, name: str, count: int, **options: Any) -> asyncio.subprocess.Process:
        told = {"port": self._port, "name": name, "count": count, "lease": LEASE, **options}
        process = await _started("-m", "tests.faults.crowd", json.dumps(told), stdout=asyncio.subprocess.PIPE)
        self._readers.append(asyncio.create_task(self._read(process)))
        return process

    async def _read(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        async for line in process.stdout:
            told = json.loads(line)
            self._picked.setdefault(told["id"], []).append(told["at"])

    # -- what happens at the same time -------------------------------------------------------------

    @property
    def _over(self) -> bool:
        return time.monotonic() >= self._began + self._seconds

    async def _enqueue(self) -> None:
        """Put tasks at an even rate; one in ten with a payload."""
        line = await HttpLine.open(self._port)
        lot = max(1, round(self._rate / 10))
        while not self._over:
            tasks: list[dict[str, Any]] = [
                {"name": "n", "queue": "busy", "retention": "60s"} for _ in range(lot)
            ]
            tasks[0]["payload"] = {"number": self.report.tasks}
            status, answer = await line.call("POST", "/_tasks/_bulk", tasks)
            assert status == 200 and all(item["status"] == 201 for item in answer["items"]), answer
            self.report.tasks += lot
            await asyncio.sleep(lot / self._rate)
        line.close()

    async def _probe_on(self) -> None:
        probes = set()
        while not self._over:
            probe = asyncio.create_task(self._probe(f"p{len(self._sent)}"))
            probes.add(probe)
            probe.add_done_callback(probes.discard)
            await asyncio.sleep(0.2)
        await asyncio.gather(*probes)

    async def _probe(self, id: str) -> None:
        """Put a task into an idle queue and wait for its end."""
        queue = IDLE_QUEUES[len(self._sent) % len(IDLE_QUEUES)]
        body = {"name": "probe", "queue": queue if id != "first" else "nobody", "retention": "60s"}
        line = await HttpLine.open(self._port)
        self._sent[id] = time.monotonic()
        status, answer = await line.call("PUT", f"/_tasks/{id}?wait={'0s' if id == 'first' else '30s'}", body)
        if id == "first":
            await line.call("POST", "/_tasks/first/_cancel", {})
            del self._sent[id]
        elif status not in (200, 201) or answer["state"] != "completed":
            self.report.lost_probes.append(id)
        line.close()

    async def _kill_on(self) -> None:
        """Kill half of the busy workers again and again, in the middle of whatever they do."""
        while not self._over:
            crowd = await self._crowd(
                "killed", self._busy - self._busy // 2, queues=["busy"], stay=30.0, hold=0.8, lapse=0.02
            )
            until = min(time.monotonic() + max(10.0, self._seconds / 20), self._began + self._seconds)
            await asyncio.sleep(max(0.0, until - time.monotonic()))
            crowd.kill()
            await crowd.wait()
            self.report.kills += 1

    async def _watch(self) -> None:
        while not self._over:
            self._rss.append((time.monotonic() - self._began, self._memory()))
            await asyncio.sleep(1)

    # -- afterwards --------------------------------------------------------------------------------

    async def _drained(self) -> int:
        """Wait until the busy have done everything; return how much they have not."""
        until = time.monotonic() + 60 + 4 * LEASE
        while True:
            stats = await self._get("/_stats")
            left = sum(
                stats["counts"].get(state, 0) for state in ("scheduled", "queued", "claimed", "running")
            )
            if not left or time.monotonic() > until:
                return int(left)
            await asyncio.sleep(0.2)

    async def _at_rest(self) -> None:
        """Wait until the gauges are back; nobody waits and nothing is held any more."""
        metrics = await self._until(lambda metrics: not any(metrics[name] for name in _GAUGES), within=30)
        self.report.gauges = {name: metrics[name] for name in _GAUGES}
        self.report.lost_leases = metrics.get("event lost", 0)

    async def _until(self, true: Callable[[dict[str, float]], bool], *, within: float) -> dict[str, float]:
        """Look at the metrics until something is true of them, but for no longer than `within` seconds."""
        until = time.monotonic() + within
        metrics = await self._metrics()
        while not true(metrics) and time.monotonic() < until:
            await asyncio.sleep(0.2)
            metrics = await self._metrics()
        return metrics

    async def _compare(self, before: dict[str, Any]) -> None:
        after = await self._count()
        until = time.monotonic() + 30  # sockets of those who fell silent are found dead by their pings
        while after["descriptors"] > before["descriptors"] and time.monotonic() < until:
            await asyncio.sleep(1)
            after = await self._count()
        self.report.descriptors = (before["descriptors"], after["descriptors"])
        self.report.asyncio_tasks = (before["tasks"], after["tasks"])
        self.report.grown = {
            name: (before["objects"].get(name, 0), count)
            for name, count in after["objects"].items()
            if count > before["objects"].get(name, 0) + (_SWEPT_AT if name in _SWEPT else 100)
            and name.partition(".")[0] in ("lineshaft", "asyncio", "_asyncio", "uvicorn", "websockets")
            and not name.startswith(_REMEMBERED)
        }
        self.report.rss_rest = self._memory()

    def _judge_probes(self) -> None:
        report = self.report
        thirds: dict[str, list[float]] = {"first": [], "second": [], "last": []}
        report.probes = len(self._sent)
        for id, sent in self._sent.items():
            picked = self._picked.get(id, [])
            report.lapsed_probes += len(picked) > 1
            if picked:
                third = list(thirds)[min(2, int(3 * (sent - self._began) / self._seconds))]
                thirds[third].append((picked[0] - sent) * 1000)
        for third, took in thirds.items():
            if took:
                took.sort()
                report.pick_up_ms[third] = (
                    round(took[len(took) // 2], 2),
                    round(took[len(took) * 99 // 100], 2),
                )

    def _judge_memory(self) -> None:
        warm = [rss for at, rss in self._rss if self._seconds * 0.25 <= at < self._seconds * 0.4]
        last = [rss for at, rss in self._rss if at >= self._seconds * 0.9]
        self.report.rss_warm = round(sum(warm) / len(warm), 1)
        self.report.rss_end = round(sum(last) / len(last), 1)

    # -- looking in --------------------------------------------------------------------------------

    async def _get(self, path: str) -> Any:
        line = await HttpLine.open(self._port)
        status, answer = await line.call("GET", path)
        line.close()
        assert status == 200, answer
        return answer

    async def _metrics(self) -> dict[str, float]:
        """Return the metrics without labels, summed up over them, and without their prefix."""
        found: dict[str, float] = {}
        for sample in str(await self._get("/metrics")).splitlines():
            if sample and not sample.startswith("#"):
                name, _, value = sample.rpartition(" ")
                bare, _, labels = name.removeprefix("lineshaft_").partition("{")
                found[bare] = found.get(bare, 0) + float(value)
                if bare == "events_total":
                    event = labels.split('"')[1]
                    found[f"event {event}"] = float(value)
        return found

    async def _count(self) -> dict[str, Any]:
        """Let the coordinator count itself."""
        assert self._coordinator is not None
        self._counts.unlink(missing_ok=True)
        self._coordinator.send_signal(signal.SIGUSR1)
        await asyncio.to_thread(eventually, self._counts.exists)
        counts: dict[str, Any] = json.loads(self._counts.read_text(encoding="utf-8"))
        return counts

    def _memory(self) -> float:
        assert self._coordinator is not None
        pages = Path(f"/proc/{self._coordinator.pid}/statm").read_text(encoding="ascii").split()[1]
        return round(int(pages) * os.sysconf("SC_PAGE_SIZE") / MEBIBYTE, 1)

    def _cpu(self) -> float:
        assert self._coordinator is not None
        fields = (
            Path(f"/proc/{self._coordinator.pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
        )
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def _started(*arguments: str, **options: Any) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(sys.executable, *arguments, **options)


async def _ended(process: asyncio.subprocess.Process) -> None:
    """Let a process go; kill it where it does not."""
    if process.returncode is None:
        process.terminate()
    try:
        async with asyncio.timeout(15):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults.soak", description=__doc__.split("\n")[0])
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--idle", type=int, default=1000, help="workers that wait (default 1000)")
    parser.add_argument("--busy", type=int, default=200, help="workers that work (default 200)")
    parser.add_argument("--rate", type=float, default=150.0, help="tasks a second (default 150)")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        soak = Soak(
            seconds=given.minutes * 60, idle=given.idle, busy=given.busy, rate=given.rate, folder=Path(folder)
        )
        report = asyncio.run(soak.run())
    print(msgspec.json.format(msgspec.json.encode(report)).decode())
    for complaint in report.complaints():
        print(complaint, file=sys.stderr)
    return 1 if report.complaints() else 0


if __name__ == "__main__":
    sys.exit(main())
