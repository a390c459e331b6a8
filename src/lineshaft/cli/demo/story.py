"""The demo itself: start, work, kill a worker, kill the coordinator, go on, prove."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from lineshaft.cli.demo.files import Listing, find_files, task_id, walk_again
from lineshaft.cli.demo.handlers import QUEUE
from lineshaft.cli.demo.proof import Proof, prove
from lineshaft.cli.demo.report import Recovered, Report
from lineshaft.cli.demo.watch import Watch
from lineshaft.cli.demo.work import Coordinator
from lineshaft.cli.exits import ExitCode
from lineshaft.cli.processes import Child, LocalCoordinator, Processes
from lineshaft.cli.trouble import Trouble
from lineshaft.values.instants import parse_instant

if TYPE_CHECKING:
    from rich.progress import Progress

WORKERS = 2
MOST_AT_ONCE = 32
"""Tasks at once in a worker; with few files fewer, so that they do not all begin at the same time."""
KILL_WORKER_AT = 0.35
KILL_COORDINATOR_AT = 0.6
MANY = 2000
"""With fewer files each task pauses a little, so that there is a middle in which to kill."""
LASTS = 2.5
"""Seconds that the work on few files is stretched to."""


class Story:
    """One run over `root`; `tell` is given a sentence for every turn that it takes."""

    def __init__(
        self, root: Path, leave_out: frozenset[str], *, progress: Progress, tell: Callable[[str], None]
    ) -> None:
        self.root = root
        self.leave_out = leave_out
        self.progress = progress
        self.tell = tell
        self.recovered = Recovered()
        self._died_at = 0

    async def run(self) -> Report:
        """Tell it from beginning to end; Trouble where a process or the coordinator fails for good."""
        started_ns = time.time_ns()
        listing = await asyncio.to_thread(find_files, self.root, self.leave_out)
        if not listing.files:
            raise Trouble(
                f"there is no file under {self.root} to make a task of",
                code=ExitCode.USAGE,
                hint="name a directory with files, or none for the standard library of this Python",
            )
        tasks = {task_id(path): path for path in listing.files}
        with Processes() as processes:
            seconds, proof = await self._work(processes, tasks, started_ns)
        return self._report(listing, seconds, proof)

    async def _work(
        self, processes: Processes, tasks: dict[str, str], started_ns: int
    ) -> tuple[float, Proof]:
        local = LocalCoordinator(processes)
        await local.start()
        self.tell(f"coordinator: process {local.pid} at {local.url}, store SQLite")
        workers = [_start_worker(processes, local.url, _at_once(len(tasks))) for _ in range(WORKERS)]
        self.tell(f"workers: processes {' and '.join(str(worker.pid) for worker in workers)}")
        coordinator = Coordinator(local.url)
        try:
            seconds = await self._through_the_kills(coordinator, local, processes, workers, tasks)
            proof = await self._prove(coordinator, tasks, started_ns)
        finally:
            await coordinator.close()
        return seconds, proof

    async def _through_the_kills(
        self,
        coordinator: Coordinator,
        local: LocalCoordinator,
        processes: Processes,
        workers: list[Child],
        tasks: dict[str, str],
    ) -> float:
        total = len(tasks)
        bar = self.progress.add_task("enqueueing", total=total)
        began = time.monotonic()
        pause = 0.0 if total >= MANY else min(1.0, LASTS * WORKERS * _at_once(total) / total)
        await coordinator.enqueue(tasks, pause=pause, step=lambda count: self.progress.advance(bar, count))
        self.progress.update(bar, description="hashing", completed=0)
        watch = Watch(coordinator, processes, total, lambda done: self.progress.update(bar, completed=done))
        await watch.until(int(total * KILL_WORKER_AT))
        survivor = await self._kill_worker(coordinator, watch, workers)
        await watch.until(int(total * KILL_COORDINATOR_AT))
        # While it is at work, so that there are outcomes which it must keep.
        await watch.until_at_work(survivor)
        await self._restart(local)
        await watch.until(total)
        seconds = time.monotonic() - began
        self.progress.remove_task(bar)
        return seconds

    async def _kill_worker(self, coordinator: Coordinator, watch: Watch, workers: list[Child]) -> Child:
        """Kill a worker at a moment in which it holds tasks, ask what it held, and return the other one."""
        victim, worker_id = await self._frozen_at_work(coordinator, watch, workers)
        watch.expect_end_of(victim)
        victim.kill()
        held = await coordinator.held_by(worker_id)
        self.recovered.held_by_killed = len(held)
        self.tell(f"killed worker {victim.pid} with SIGKILL; it held {_count(len(held), 'task')}")
        return next(worker for worker in workers if worker is not victim)

    async def _frozen_at_work(
        self, coordinator: Coordinator, watch: Watch, workers: list[Child]
    ) -> tuple[Child, str]:
        """Freeze one worker after the other until one is found that holds tasks; return it and its id."""
        while True:
            seen = await coordinator.workers()
            for worker in workers:
                if worker.pid in seen and seen[worker.pid].held:
                    worker.freeze()
                    worker_id = seen[worker.pid].worker_id
                    if await coordinator.held_by(worker_id):
                        return worker, worker_id
                    worker.thaw()
            if watch.over:
                raise Trouble(
                    "all work was done before a worker could be killed",
                    hint="name a directory with more files",
                )
            await watch.look()

    async def _restart(self, local: LocalCoordinator) -> None:
        """Kill the coordinator, and start another on the same store."""
        old = local.pid
        began = time.monotonic()
        local.kill()
        self._died_at = time.time_ns() // 1_000_000
        self.tell(f"killed coordinator {old} with SIGKILL")
        await local.start()
        self.recovered.downtime = round(time.monotonic() - began, 3)
        later = self.recovered.downtime
        self.tell(f"restarted it on the same store as process {local.pid}, {later:.1f} s later")

    async def _prove(self, coordinator: Coordinator, tasks: dict[str, str], started_ns: int) -> Proof:
        listed = [task async for task in coordinator.tasks()]
        for task in listed:
            self._count(task.lost_leases, task.attempt, task.started_at, task.finished_at)
        bar = self.progress.add_task("reading results", total=len(listed))
        results = await coordinator.results(
            sorted({task.task_id for task in listed}), lambda count: self.progress.advance(bar, count)
        )
        self.progress.update(bar, description="enqueueing all again", completed=0)
        again = await coordinator.enqueue(
            tasks, pause=0.0, step=lambda count: self.progress.advance(bar, count)
        )
        self.progress.update(bar, description="proving", completed=0)
        proof = await asyncio.to_thread(
            prove,
            tasks,
            walk_again(self.root, self.leave_out),
            # From the listing, so that a task listed twice is seen twice.
            [results[task.task_id] for task in listed],
            started_ns=started_ns,
            step=lambda: self.progress.advance(bar, 1),
        )
        proof.created_again = sum(item.created is True for item in again)
        self.progress.remove_task(bar)
        return proof

    def _count(self, lost: int, attempt: int, started_at: str | None, finished_at: str | None) -> None:
        self.recovered.lost_leases += lost
        self.recovered.retried += attempt > 1
        if started_at is not None and finished_at is not None:
            started, finished = (parse_instant(at, field="") for at in (started_at, finished_at))
            self.recovered.redelivered += started <= self._died_at < finished

    def _report(self, listing: Listing, seconds: float, proof: Proof) -> Report:
        return Report(
            directory=str(self.root),
            files=len(listing.files),
            links=listing.links,
            special=listing.special,
            closed=listing.closed,
            seconds=round(seconds, 3),
            recovered=self.recovered,
            proof=proof,
        )


def _at_once(files: int) -> int:
    return max(1, min(MOST_AT_ONCE, files // 8))


def _start_worker(processes: Processes, url: str, at_once: int) -> Child:
    app, queues = "lineshaft.cli.demo.handlers:app", f"{QUEUE}={at_once}"
    return processes.start("worker", "worker", app, "--queues", queues, "--grace", "1s", url=url)


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"
