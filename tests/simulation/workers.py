"""Workers: they claim, work, beat, freeze, die, report late, twice or never, and come back."""

from __future__ import annotations

import asyncio
from random import Random
from typing import Any

from lineshaft.core import commands as c
from lineshaft.core.replies import OpReply
from lineshaft.core.task import Progress, State, Task, lease_token
from lineshaft.errors import LeaseLost, LineshaftError, NotFound
from tests.simulation.line import Line, NoAnswer
from tests.simulation.plan import SECOND, UNSTORABLE, WorkerPlan


class Died(Exception):
    """The worker's process is gone."""


class Worker:
    def __init__(self, line: Line, plan: WorkerPlan) -> None:
        self._line = line
        self._plan = plan
        self._chance = line.chance
        self._tally = line.record.tally
        self._lives = 0
        self._claims = 0
        self._busy: dict[str, asyncio.Task[None]] = {}
        """Token → the execution under way."""
        line.disk.checker_of(plan.tenant).resources[plan.id] = dict(plan.resources)

    async def run(self) -> None:
        """Live and die, for ever."""
        while True:
            self._lives += 1
            try:
                await self._live()
            except Died:
                self._tally["worker: died"] += 1
                self._line.record.say(self._plan.id, "dies")
                for execution in self._busy.values():
                    execution.cancel()
                self._busy.clear()
                await asyncio.sleep((0.1, 1.0, 10.0)[self._lives % 3])

    async def _live(self) -> None:
        while True:
            for execution in [task for task in self._busy.values() if task.done()]:
                execution.result()
            self._busy = {token: task for token, task in self._busy.items() if not task.done()}
            if len(self._busy) >= self._plan.slots:
                await asyncio.sleep(0.2)
                continue
            tasks = await self._claim()
            for task in tasks:
                self._take(task)
            if not tasks:
                await asyncio.sleep(0.5)

    def _take(self, task: Task) -> None:
        token = lease_token(task)
        if token not in self._busy:
            self._busy[token] = asyncio.get_running_loop().create_task(self._execute(task, token))

    def _does(self, *kinds: str) -> str | None:
        """Say which of these the worker does at its next choice, if any."""
        choice = self._chance.draw(f"{self._plan.id} does {kinds[0]}", *kinds)
        return None if choice is None else choice.kind

    # Claims.

    async def _claim(self) -> list[Task]:
        """Claim until there is an answer: with the same id, or saying what is held."""
        wait = 0 if self._does("asks_once") else 15
        claim = self._new_claim(wait=wait)
        while True:
            ask: c.Command = claim
            if self._does("claims_by_report"):
                ask = c.Report(tenant=self._plan.tenant, items=(), claim=claim)
            try:
                tasks: list[Task] = (await self._line.call(ask, self._plan.id, patience=wait + 5.0)).tasks
                return tasks
            except (NoAnswer, LineshaftError):
                await asyncio.sleep(0.2)
                if self._does("declares_holding"):
                    claim = self._new_claim(wait=0, holding=tuple(self._busy))

    def _new_claim(self, *, wait: int, holding: tuple[str, ...] | None = None) -> c.Claim:
        self._claims += 1
        plan = self._plan
        info = c.WorkerInfo(
            id=plan.id,
            incarnation=f"{plan.id}.{self._lives}",
            capabilities=plan.capabilities,
            resources=plan.resources,
        )
        return c.Claim(
            tenant=plan.tenant,
            max=max(1, plan.slots - len(self._busy)),
            claim_id=f"{plan.id}.{self._lives}.{self._claims}",
            worker=info,
            queues=plan.queues,
            wait_until=self._line.now(plan.tenant) + wait * SECOND if wait else None,
            lease=3 * SECOND if self._does("short_lease") else None,
            start=not self._does("prefetches"),
            holding=holding,
        )

    # Execution.

    async def _execute(self, task: Task, token: str) -> None:
        assert task.lease is not None
        ttl = task.lease.ttl / SECOND
        if task.state is State.CLAIMED and not await self._tell(c.Start(task_id=task.id, token=token)):
            return
        if task.spec.name == "poison":
            self._tally["worker: poisoned"] += 1
            return  # it takes its process with it, every time
        random = self._chance.random(f"{self._plan.id} runs {task.id} {task.attempt}")
        match self._does("died", "frozen", "works_long"):
            case "died":
                raise Died
            case "frozen":
                await self._freeze(ttl * random.uniform(0.9, 3), ttl, task)
                outcome = self._outcome(task, token, random)
            case "works_long":
                worked = await self._work(task, token, ttl, random)
                outcome = worked or self._outcome(task, token, random)
            case _:
                outcome = self._outcome(task, token, random)
        await self._report(outcome, random)

    async def _freeze(self, seconds: float, ttl: float, task: Task) -> None:
        self._line.record.say(
            self._plan.id,
            f"is frozen for {seconds:.1f} s with {task.id}, its lease of {ttl:g} s",
            about=frozenset([task.id]),
        )
        await asyncio.sleep(seconds)
        if seconds > ttl:
            self._tally["worker: frozen past its lease"] += 1

    async def _work(self, task: Task, token: str, ttl: float, random: Random) -> c.Op | None:
        """Beat while working; return an outcome where somebody else decides it."""
        left = ttl * random.choice([0.01, 0.1, 0.5, 1.5])
        while left > 0:
            await asyncio.sleep(min(left, ttl / 3))
            left -= ttl / 3
            beat = c.Heartbeat(task_id=task.id, token=token, **_news(random))
            reply = await self._tell(beat)
            if reply is not None and reply.directive == "cancel":
                return c.CancelHeld(task_id=task.id, token=token)
        return None

    def _outcome(self, task: Task, token: str, random: Random) -> c.Op:
        held: dict[str, Any] = {"task_id": task.id, "token": token}
        match self._does("unstorable", "fails", "fails_for_good", "gives_back"):
            case "unstorable":
                return c.Complete(**held, result=b'"%s"' % UNSTORABLE)
            case "fails":
                after = random.choice([None, None, 0, 5 * SECOND])
                return c.Fail(**held, error=b'{"type":"E"}', retry_after=after)
            case "fails_for_good":
                return c.Fail(**held, error=b'{"type":"E"}', retry=False)
            case "gives_back":
                ways = [c.Release(**held), c.Snooze(**held, delay=3 * SECOND), c.CancelHeld(**held)]
                return random.choice(ways)
        result = f'{{"of":"{self._plan.tenant}/{task.id}","under":"{token}"}}'
        return c.Complete(**held, result=result.encode())

    # Reports.

    async def _tell(self, op: c.Op) -> OpReply | None:
        """Report once or more; None where the lease is not ours any more."""
        report = c.Report(tenant=self._plan.tenant, items=(op,))
        try:
            [item] = (await self._line.insist(report, self._plan.id)).items
        except LineshaftError:
            return None
        self._notice(item)
        return item if isinstance(item, OpReply) else None

    async def _report(self, op: c.Op, random: Random) -> None:
        claim = self._new_claim(wait=0) if self._does("claims_on") else None
        command = c.Report(tenant=self._plan.tenant, items=(op,), claim=claim)
        try:
            reported = await self._line.insist(command, self._plan.id)
        except LineshaftError:
            # It cannot be stored: say so, which can.
            failed = c.Fail(task_id=op.task_id, token=op.token, error=b'{"type":"too_strange"}', retry=False)
            await self._tell(failed)
            return
        self._notice(reported.items[0])
        for task in reported.tasks:
            self._take(task)
        match self._does("repeated", "afterthought"):
            case "repeated":
                await asyncio.sleep(random.choice([0.0, 1.0, 10.0]))
                await self._report_again(op, reported.items[0])
            case "afterthought" if isinstance(reported.items[0], OpReply):
                # The judge knows that this comes too late.
                self._tally["worker: changed its mind after an outcome"] += 1
                late = c.Fail(task_id=op.task_id, token=op.token, error=b'{"type":"afterthought"}')
                await self._tell(late)

    def _notice(self, item: OpReply | LineshaftError) -> None:
        if isinstance(item, LeaseLost):
            self._tally["worker: told that its lease is lost"] += 1

    async def _report_again(self, op: c.Op, first: OpReply | LineshaftError) -> None:
        self._tally["worker: reported again"] += 1
        try:
            report = c.Report(tenant=self._plan.tenant, items=(op,))
            [again] = (await self._line.insist(report, self._plan.id)).items
        except LineshaftError as error:
            again = error
        if isinstance(again, OpReply) and isinstance(first, OpReply):
            same = again.state is first.state
        else:
            same = isinstance(again, LeaseLost | NotFound) or type(again) is type(first)
        lost = self._line.disk.checker_of(self._plan.tenant).lost  # what came between may have gone
        if not same and not lost:
            self._line.disk.checker_of(self._plan.tenant).violated(
                f"[7] {op} again: {first} and then {again}"
            )


def _news(random: Random) -> dict[str, Any]:
    match random.randint(0, 4):
        case 0:
            return {"progress": Progress(done=random.randint(0, 9), total=9)}
        case 1:
            return {"checkpoint": b"%d" % random.randint(0, 9)}
        case _:
            return {}
