"""One run: trouble for a while, then peace, in which everything that can be finished must be."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass
from random import Random
from typing import Any

from lineshaft.core import commands as c
from lineshaft.core.replies import QueueState, StatsReply
from lineshaft.core.task import State, Task
from lineshaft.engine.clock import LoopClock
from tests.simulation import loop
from tests.simulation.checker import Checker
from tests.simulation.clients import QUEUES, Client, Operator
from tests.simulation.coordinator import Coordinator, task_factory
from tests.simulation.disk import Disk, blob_of, rows_of
from tests.simulation.follower import Follower
from tests.simulation.line import Line
from tests.simulation.plan import CALM, START, Plan, draw
from tests.simulation.trace import Trace, brief
from tests.simulation.workers import ABLE, OTHERS, Worker

PATIENCE = 3_600.0
"""Virtual seconds of peace in which all runnable work must finish."""


class Broken(AssertionError):
    """A promise was broken; the message says which, by which seed, and how to see it again."""


@dataclass(frozen=True)
class Summary:
    """What a run was like."""

    seed: int
    digest: str
    commits: int
    tasks: int
    lives: int
    lines: int
    seconds: float


def simulate(seed: int, *, loud: bool = False) -> Summary:
    """Run one seed; raises `Broken`."""
    simulation = Simulation(seed, loud=loud)
    try:
        return loop.run(simulation.run(), until=20_000.0)  # type: ignore[no-any-return]
    except Exception as error:
        again = f"python -m tests.simulation --seed {seed} --trace"
        told = str(error) or type(error).__name__
        raise Broken(f"seed {seed}: {told}\nsee it again with: {again}") from error


class Simulation:
    def __init__(self, seed: int, *, loud: bool) -> None:
        self._seed = seed
        self._plan: Plan = draw(seed)
        self._random = Random(seed)
        self._trace = Trace(loud=loud)
        self._checker = Checker(lambda what: self._trace("judge", what))
        self._disk = Disk(self._checker)
        self._clock = LoopClock(START)
        self._background: list[asyncio.Task[Any]] = []

    async def run(self) -> Summary:
        """Do it all."""
        running = asyncio.get_running_loop()
        running.set_task_factory(task_factory)
        self._disk.faults = self._plan.faults
        self._coordinator = Coordinator(
            self._disk, self._plan, self._fork(), clock=self._clock, trace=self._trace
        )
        self._line = Line(self._coordinator, self._fork(), self._trace)
        self._followers = {tenant: Follower(self._line, tenant=tenant) for tenant in self._plan.tenants}
        await self._coordinator.start()
        await self._trouble(running.time() + self._plan.trouble)
        self._disk.faults = CALM
        self._trace("peace", "faults stop")
        await self._peace()
        await self._look_at_what_is_left()
        for task in self._background:
            task.cancel()
        return Summary(
            seed=self._seed,
            digest=self._trace.digest,
            commits=self._disk.position,
            tasks=len(self._checker.lives),
            lives=self._coordinator.lives,
            lines=self._trace.lines,
            seconds=running.time(),
        )

    def _fork(self) -> Random:
        return Random(self._random.random())

    def _start(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        task = asyncio.get_running_loop().create_task(work)
        self._background.append(task)
        return task

    async def _trouble(self, until: float) -> None:
        plan, line, coordinator = self._plan, self._line, self._coordinator
        for number in range(plan.workers):
            tenant = plan.tenants[number % len(plan.tenants)]
            kind = ABLE if number < len(plan.tenants) else OTHERS[number % len(OTHERS)]
            worker = Worker(line, self._fork(), tenant=tenant, id=f"w{number}", kind=kind)
            self._start(worker.run())
        crashes = self._start(coordinator.keep_failing())
        jumps = self._start(self._keep_jumping())
        for follower in self._followers.values():
            self._start(follower.run())
        doings = []
        for tenant in plan.tenants:
            doings.append(self._start(Operator(line, self._fork(), tenant=tenant).run(until)))
            for number in range(plan.clients):
                client = Client(line, self._fork(), tenant=tenant, name=f"{tenant}-{number}")
                doings.append(self._start(client.run(until)))
        await self._watch(asyncio.sleep(until - asyncio.get_running_loop().time()))
        crashes.cancel()
        jumps.cancel()
        await asyncio.wait([crashes, jumps])
        self._disk.faults = CALM
        await coordinator.settle_down()
        await self._watch(asyncio.gather(*doings))

    async def _keep_jumping(self) -> None:
        while True:
            await asyncio.sleep(self._random.expovariate(1 / self._plan.jump_every))
            jump = self._random.choice([-3_600_000, -30_000, -500, 700, 20_000, 300_000, 7_200_000])
            self._trace("clock", f"jumps by {jump / 1000} s")
            self._clock.wall += jump

    async def _watch(self, work: Any) -> None:
        """Wait for something, but not beyond the first broken promise or crash of an actor."""
        waited = asyncio.ensure_future(work)
        while not waited.done():
            await asyncio.wait([waited], timeout=1.0)
            self._stop_if_broken()
        waited.result()

    def _stop_if_broken(self) -> None:
        if self._checker.violations:
            raise Broken("; ".join(self._checker.violations[:5]))
        for task in self._background:
            if task.done() and not task.cancelled():
                task.result()

    # Peace.

    async def _peace(self) -> None:
        running = asyncio.get_running_loop()
        await self._watch(self._line.emptied())
        for tenant in self._plan.tenants:
            for queue in QUEUES:
                await self._line.insist(c.SetQueue(tenant=tenant, queue=queue, paused=False))
        until = running.time() + PATIENCE
        while left := self._unfinished():
            if running.time() > until:
                raise Broken(f"[23] not finished in peace: {', '.join(map(brief, left[:5]))}")
            await self._watch(asyncio.sleep(5.0))

    def _unfinished(self) -> list[Task]:
        return [task for task in rows_of(self._disk).values() if not task.state.terminal]

    async def _look_at_what_is_left(self) -> None:
        await self._counters_equal_a_recount()
        await self._watch(asyncio.sleep(1.0))
        for tenant, follower in self._followers.items():
            if follower.seen != self._checker.log.get(tenant, []):
                raise Broken(f"[16] the feed of {tenant} told {len(follower.seen)} changes, not what was")
        before = {seq: _settled(task) for seq, task in rows_of(self._disk).items()}
        for way in (self._coordinator.crash, self._coordinator.stop):
            stopping = way()
            if stopping is not None:
                await stopping
            await self._coordinator.start()
            await self._counters_equal_a_recount()
        after = {seq: _settled(task) for seq, task in rows_of(self._disk).items()}
        if any(after[seq] != before.get(seq) for seq in after):
            raise Broken("[22] another load changed what was finished")
        self._checker.ended(rows_of(self._disk), lambda kind, seq: blob_of(self._disk, kind, seq))
        self._stop_if_broken()

    async def _counters_equal_a_recount(self) -> None:
        for tenant in self._plan.tenants:
            while True:
                there = set(rows_of(self._disk))
                stats: StatsReply = await self._line.insist(c.Stats(tenant=tenant))
                queues: list[QueueState] = await self._line.insist(c.Queues(tenant=tenant))
                if there == set(rows_of(self._disk)):  # else something was pruned meanwhile
                    break
            self._compare(tenant, stats, queues)

    def _compare(self, tenant: str, stats: StatsReply, queues: list[QueueState]) -> None:
        rows = [task for task in rows_of(self._disk).values() if task.tenant == tenant]
        for state in State:
            counted = sum(task.state is state for task in rows)
            if stats.counts.get(state, 0) != counted:
                raise Broken(f"[14] {tenant}: {stats.counts.get(state, 0)} {state.word}, {counted} rows")
            for queue in queues:
                of_queue = sum(t.state is state and t.spec.queue == queue.queue for t in rows)
                if queue.counts.get(state, 0) != of_queue:
                    raise Broken(f"[14] {tenant}/{queue.queue}: {queue.counts}, {of_queue} {state.word}")


def _settled(task: Task) -> tuple[object, ...]:
    run = task.run
    assert run is not None
    return (task.id, task.state, run.attempt, run.generation, run.finished_at, run.attempts, run.settled)
