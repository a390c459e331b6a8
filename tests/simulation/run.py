"""One run: trouble for a while, then peace, in which everything that can be finished must be."""

from __future__ import annotations

import asyncio
import functools
import re
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any

from lineshaft.core import commands as c
from lineshaft.core.replies import QueueState, StatsReply
from lineshaft.core.task import State, Task
from lineshaft.engine.clock import LoopClock
from tests.simulation import loop
from tests.simulation.chance import Chance
from tests.simulation.clients import Client, Operator
from tests.simulation.disk import Disk
from tests.simulation.draw import draw
from tests.simulation.fleet import Fleet
from tests.simulation.follower import Follower
from tests.simulation.life import task_factory
from tests.simulation.line import Line
from tests.simulation.plan import QUEUES, START, Failover, Jump, Plan
from tests.simulation.record import Record
from tests.simulation.vigil import Vigil
from tests.simulation.words import state_of
from tests.simulation.workers import Worker

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
    tally: dict[str, int] = field(default_factory=dict, compare=False)


def simulate(seed: int, *, loud: bool = False) -> Summary:
    """Run one seed; raises `Broken`."""
    simulation = Simulation(draw(seed), Record(loud=loud))
    try:
        return simulation.go()
    except Exception as error:
        again = f"python -m tests.simulation --seed {seed}"
        raise Broken(
            f"seed {seed}: {told(error)}\n"
            f"see it again with: {again} --trace\nas a short story: {again} --shrink"
        ) from error


def told(error: Exception) -> str:
    """Say what went wrong."""
    return str(error) if isinstance(error, Broken) else f"{type(error).__name__}: {error}"


def reason_of(error: Exception) -> str:
    """Return what is the same where two runs break the same promise."""
    first = told(error).split(";")[0]
    tag = re.match(r"\[\d+\]( lost wake-up: \w+)?", first)
    unfinished = re.search(r"not finished in peace: \S+ is \w+", first)
    if tag and unfinished:
        return f"{tag.group()} {unfinished.group().split()[-1]}"
    return tag.group() if tag else re.sub(r"[\W\d]+|\b\S*\d\S*\b", " ", first)[:40].strip()


class Simulation:
    """One run of a plan."""

    def __init__(self, plan: Plan, record: Record) -> None:
        self.plan = plan
        self.record = record
        self.chance = Chance(plan.seed, plan.odds, plan.only)
        self.broken_at: float | None = None
        """When (seconds of the loop) the first promise was found broken."""
        self._disk = Disk(self._found_broken, shards=plan.shards)
        self._clock = LoopClock(START)
        self._background: list[asyncio.Task[Any]] = []

    def go(self) -> Summary:
        """Run it in a loop of its own; raises what is broken."""
        return loop.run(self._run(), until=20_000.0)  # type: ignore[no-any-return]

    def _found_broken(self, what: str) -> None:
        if self.broken_at is None:
            self.broken_at = asyncio.get_running_loop().time()
        self.record.say("judge:", what)

    async def _run(self) -> Summary:
        running = asyncio.get_running_loop()
        running.set_task_factory(task_factory)
        plan, record = self.plan, self.record
        self._fleet = Fleet(self._disk, plan, self.chance, clock=self._clock, record=record)
        self._line = Line(self._fleet, self.chance, record)
        self._followers = [Follower(self._line, tenant=tenant) for tenant in plan.tenants]
        await self._fleet.start()
        await self._trouble()
        self.record.say("from now on", "nothing goes wrong any more")
        await self._peace()
        await self._look_at_what_is_left()
        for checker in self._disk.checkers:
            record.tally["judge: leases that were lost"] += checker.lost_leases
            record.tally["judge: of them, after a stall, a standstill or a load"] += checker.hearing.spared
        record.tally["fleet: several coordinators"] += plan.coordinators > 1
        record.tally["fleet: several shards"] += plan.shards > 1
        return Summary(
            seed=plan.seed,
            digest=record.digest,
            commits=self._disk.commits,
            tasks=sum(len(checker.lives) for checker in self._disk.checkers),
            lives=self._fleet.started,
            lines=record.lines,
            seconds=running.time(),
            tally=dict(record.tally),
        )

    def _start(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        task = asyncio.get_running_loop().create_task(work)
        self._background.append(task)
        return task

    async def _trouble(self) -> None:
        plan, line, fleet = self.plan, self._line, self._fleet
        for worker in plan.workers:
            self._start(Worker(line, worker).run())
        for follower in self._followers:
            self._start(follower.run())
        self._start(Vigil(line, self._followers).keep())
        outside = [
            self._start(fleet.suffer()),
            self._start(self._jump(plan.jumps)),
            *(self._start(self._fail_over(failover)) for failover in plan.failovers),
        ]
        doings = [self._start(Client(line, client).run()) for client in plan.clients]
        for tenant in plan.tenants:
            pauses = tuple(pause for pause in plan.pauses if pause.tenant == tenant)
            doings.append(self._start(Operator(line, pauses).run()))
        await self._watch(asyncio.sleep(plan.trouble))
        for task in outside:
            task.cancel()
        await asyncio.wait(outside)
        self.chance.calm = True
        await fleet.settle_down()
        await self._watch(asyncio.gather(*doings))

    async def _jump(self, jumps: tuple[Jump, ...]) -> None:
        for jump in jumps:
            await asyncio.sleep(jump.at - asyncio.get_running_loop().time())
            way = "forward" if jump.by > 0 else "back"
            self.record.tally[f"wall clock: jumped {way}"] += 1
            self.record.say("the wall clock", f"jumps {way} by {abs(jump.by) / 1000:g} s")
            self._clock.wall += jump.by

    async def _fail_over(self, failover: Failover) -> None:
        now = asyncio.get_running_loop().time
        await asyncio.sleep(max(0.0, failover.at - failover.loses - now()))
        copies, epochs = self._disk.copy(), self._disk.failovers
        await asyncio.sleep(max(0.0, failover.at - now()))
        if epochs != self._disk.failovers:
            return  # the copy is of a history that has ended meanwhile
        lost = self._disk.fail_over(copies)
        self.record.tally["store: failed over"] += 1
        self.record.tally["store: lost the end of its history"] += lost
        self.record.say("the store", f"fails over{', losing the end of its history' if lost else ''}")

    async def _watch(self, work: Any) -> None:
        """Wait for something, but not beyond the first broken promise or crash of an actor."""
        waited = asyncio.ensure_future(work)
        while not waited.done():
            await asyncio.wait([waited], timeout=1.0)
            self._stop_if_broken()
        waited.result()

    def _stop_if_broken(self) -> None:
        if violations := self._disk.violations:
            raise Broken("; ".join(violations[:5]))
        running = asyncio.get_running_loop()
        assert isinstance(running, loop.VirtualLoop)
        if running.crashed:
            raise Broken(f"a callback raised {running.crashed[0]!r}") from running.crashed[0]
        for task in self._background:
            if task.done() and not task.cancelled():
                task.result()

    # Peace.

    async def _peace(self) -> None:
        running = asyncio.get_running_loop()
        await self._watch(self._line.emptied())
        for tenant in self.plan.tenants:
            for queue in QUEUES:
                resume = c.SetQueue(tenant=tenant, queue=queue, paused=False)
                await self._line.insist(resume, "operator")
        until = running.time() + PATIENCE
        while left := self._unfinished():
            if running.time() > until:
                raise Broken(f"[23] not finished in peace: {', '.join(map(state_of, left[:5]))}")
            await self._watch(asyncio.sleep(5.0))

    def _unfinished(self) -> list[Task]:
        """Return the open tasks that somebody holds or could run."""
        workers = self.plan.workers
        return [
            task
            for checker in self._disk.checkers
            for task in checker.open.values()
            if task.lease is not None or any(worker.can_run(task) for worker in workers)
        ]

    async def _look_at_what_is_left(self) -> None:
        await self._counters_equal_a_recount()
        await self._watch(asyncio.sleep(1.0))
        for follower in self._followers:
            log = self._disk.checker_of(follower.tenant).log
            checker = self._disk.checker_of(follower.tenant)
            told = [(position, change) for position, change in follower.seen if not checker.is_lost(position)]
            if told != log.get(follower.tenant, []):
                seen = len(follower.seen)
                raise Broken(f"[16] the feed of {follower.tenant} told {seen} changes, not what was")
        shards = range(self.plan.shards)
        before = self._all_settled()
        for way in (self._fleet.crash, self._fleet.stop):
            stopping = way()
            if stopping is not None:
                await stopping
            await self._fleet.start()
            await self._counters_equal_a_recount()
        after = self._all_settled()
        if any(after[key] != before.get(key) for key in after):
            raise Broken("[22] another load changed what was finished")
        for shard in shards:
            self._disk.checkers[shard].ended(
                self._disk.rows(shard), functools.partial(self._disk.blob, shard)
            )
        self._stop_if_broken()

    def _all_settled(self) -> dict[tuple[int, int], tuple[object, ...]]:
        return {
            (shard, seq): _settled(task)
            for shard in range(self.plan.shards)
            for seq, task in self._disk.rows(shard).items()
        }

    async def _counters_equal_a_recount(self) -> None:
        for tenant in self.plan.tenants:
            while True:
                there = set(self._rows_of(tenant))
                stats: StatsReply = await self._line.insist(c.Stats(tenant=tenant), "judge")
                queues: list[QueueState] = await self._line.insist(c.Queues(tenant=tenant), "judge")
                if there == set(self._rows_of(tenant)):  # else something was pruned meanwhile
                    break
            self._compare(tenant, stats, queues)

    def _rows_of(self, tenant: str) -> dict[int, Task]:
        return self._disk.rows(self._disk.shard_of(tenant))

    def _compare(self, tenant: str, stats: StatsReply, queues: list[QueueState]) -> None:
        rows = [task for task in self._rows_of(tenant).values() if task.tenant == tenant]
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
    if run is None:
        return (task.id, task.state)
    return (task.id, task.state, run.attempt, run.generation, run.finished_at, run.attempts, run.settled)
