"""Workers: they claim, work, beat, freeze, die, report late, twice or never, and come back."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from random import Random
from typing import Any

from lineshaft.core import commands as c
from lineshaft.core.replies import OpReply
from lineshaft.core.task import Progress, State, Task, lease_token
from lineshaft.errors import LeaseLost, LineshaftError, NotFound
from tests.simulation.line import Line, NoAnswer
from tests.simulation.plan import SECOND, UNSTORABLE


@dataclass(frozen=True)
class Kind:
    """What a worker declares."""

    capabilities: tuple[str, ...] = ()
    resources: tuple[tuple[str, float], ...] = ()
    queues: tuple[str, ...] | None = None
    slots: int = 3


ABLE = Kind(capabilities=("es",), resources=(("gpu", 2.0),))
OTHERS = (Kind(), Kind(resources=(("gpu", 1.0),), queues=("bulk",)), Kind(capabilities=("es",), slots=1))


class Died(Exception):
    """The worker's process is gone."""


class Worker:
    def __init__(self, line: Line, random: Random, *, tenant: str, id: str, kind: Kind) -> None:
        self._line = line
        self._random = random
        self._tenant = tenant
        self._id = id
        self._kind = kind
        self._lives = 0
        self._claims = 0
        self._busy: dict[str, asyncio.Task[None]] = {}
        """Token → the execution under way."""
        line.disk.checker.resources[id] = dict(kind.resources)

    async def run(self) -> None:
        """Live and die, for ever."""
        while True:
            self._lives += 1
            try:
                await self._live()
            except Died:
                for execution in self._busy.values():
                    execution.cancel()
                self._busy.clear()
                await asyncio.sleep(self._random.choice([0.1, 1.0, 10.0]))

    async def _live(self) -> None:
        while True:
            for execution in [task for task in self._busy.values() if task.done()]:
                execution.result()
            self._busy = {token: task for token, task in self._busy.items() if not task.done()}
            if len(self._busy) >= self._kind.slots:
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

    # Claims.

    async def _claim(self) -> list[Task]:
        """Claim until there is an answer: with the same id, or saying what is held."""
        wait = self._random.choice([0, 2, 15])
        claim = self._new_claim(wait=wait)
        while True:
            ask: c.Command = claim
            if self._random.random() < 0.2:
                ask = c.Report(tenant=self._tenant, items=(), claim=claim)
            try:
                tasks: list[Task] = (await self._line.call(ask, patience=wait + 5.0)).tasks
                return tasks
            except (NoAnswer, LineshaftError):
                await asyncio.sleep(0.2)
                if self._random.random() < 0.3:
                    claim = self._new_claim(wait=0, holding=tuple(self._busy))

    def _new_claim(self, *, wait: int, holding: tuple[str, ...] | None = None) -> c.Claim:
        self._claims += 1
        info = c.WorkerInfo(
            id=self._id,
            incarnation=f"{self._id}.{self._lives}",
            capabilities=self._kind.capabilities,
            resources=self._kind.resources,
        )
        return c.Claim(
            tenant=self._tenant,
            max=max(1, self._kind.slots - len(self._busy)),
            claim_id=f"{self._id}.{self._lives}.{self._claims}",
            worker=info,
            queues=self._kind.queues,
            wait_until=self._line.now(self._tenant) + wait * SECOND if wait else None,
            lease=self._random.choice([None, None, 3 * SECOND]),
            start=self._random.random() < 0.7,
            holding=holding,
        )

    # Execution.

    async def _execute(self, task: Task, token: str) -> None:
        random, faults = self._random, self._line.disk.faults
        assert task.lease is not None
        ttl = task.lease.ttl / SECOND
        if task.state is State.CLAIMED and not await self._tell(c.Start(task_id=task.id, token=token)):
            return
        if task.spec.name == "poison":
            return  # it takes its process with it, every time
        if random.random() < faults.die:
            raise Died
        if random.random() < faults.freeze:
            await asyncio.sleep(ttl * random.uniform(0.9, 3))
            outcome = self._outcome(task, token)
        else:
            outcome = await self._work(task, token, ttl) or self._outcome(task, token)
        await self._report(outcome)

    async def _work(self, task: Task, token: str, ttl: float) -> c.Op | None:
        """Beat while working; return an outcome where somebody else decides it."""
        left = ttl * self._random.choice([0.0, 0.01, 0.1, 0.5, 1.5])
        while left > 0:
            await asyncio.sleep(min(left, ttl / 3))
            left -= ttl / 3
            beat = c.Heartbeat(task_id=task.id, token=token, **self._news())
            reply = await self._tell(beat)
            if reply is not None and reply.directive == "cancel":
                return c.CancelHeld(task_id=task.id, token=token)
        return None

    def _news(self) -> dict[str, Any]:
        match self._random.randint(0, 4):
            case 0:
                return {"progress": Progress(done=self._random.randint(0, 9), total=9)}
            case 1:
                return {"checkpoint": b"%d" % self._random.randint(0, 9)}
            case _:
                return {}

    def _outcome(self, task: Task, token: str) -> c.Op:
        random, faults = self._random, self._line.disk.faults
        held: dict[str, Any] = {"task_id": task.id, "token": token}
        if faults.unstorable and random.random() < faults.unstorable:
            return c.Complete(**held, result=b'"%s"' % UNSTORABLE)
        way = random.random() if faults.freeze else 0.0
        if way < 0.7:
            return c.Complete(
                **held, result=f'{{"of":"{self._tenant}/{task.id}","under":"{token}"}}'.encode()
            )
        if way < 0.85:
            return c.Fail(
                **held, error=b'{"type":"E"}', retry_after=random.choice([None, None, 0, 5 * SECOND])
            )
        if way < 0.9:
            return c.Fail(**held, error=b'{"type":"E"}', retry=False)
        return random.choice([c.Release(**held), c.Snooze(**held, delay=3 * SECOND), c.CancelHeld(**held)])

    # Reports.

    async def _tell(self, op: c.Op) -> OpReply | None:
        """Report once or more; None where the lease is not ours any more."""
        try:
            reported = await self._line.insist(c.Report(tenant=self._tenant, items=(op,)))
        except LineshaftError:
            return None
        [item] = reported.items
        return item if isinstance(item, OpReply) else None

    async def _report(self, op: c.Op) -> None:
        claim = self._new_claim(wait=0) if self._random.random() < 0.4 else None
        command = c.Report(tenant=self._tenant, items=(op,), claim=claim)
        try:
            reported = await self._line.insist(command)
        except LineshaftError:
            # It cannot be stored: say so, which can.
            failed = c.Fail(task_id=op.task_id, token=op.token, error=b'{"type":"too_strange"}', retry=False)
            await self._tell(failed)
            return
        for task in reported.tasks:
            self._take(task)
        if self._random.random() < 0.2:
            await asyncio.sleep(self._random.choice([0.0, 1.0, 10.0]))
            await self._report_again(op, reported.items[0])
        elif self._random.random() < 0.1 and isinstance(reported.items[0], OpReply):
            # The judge knows that this comes too late.
            await self._tell(c.Fail(task_id=op.task_id, token=op.token, error=b'{"type":"afterthought"}'))

    async def _report_again(self, op: c.Op, first: OpReply | LineshaftError) -> None:
        try:
            [again] = (await self._line.insist(c.Report(tenant=self._tenant, items=(op,)))).items
        except LineshaftError as error:
            again = error
        if isinstance(again, OpReply) and isinstance(first, OpReply):
            same = again.state is first.state
        else:
            same = isinstance(again, LeaseLost | NotFound) or type(again) is type(first)
        if not same:
            self._line.disk.checker.violated(f"{op} again: {first} and then {again}")
