"""Clients and operators: they enqueue, change their minds, and repeat what was not answered."""

from __future__ import annotations

import asyncio
import contextlib
from random import Random
from typing import Any

from lineshaft.core import commands as c
from lineshaft.core.task import Affinity, RetryPolicy, Spec, State
from lineshaft.errors import LineshaftError
from tests.simulation.line import Line
from tests.simulation.plan import SECOND, UNSTORABLE

QUEUES = ("default", "bulk")
NAMES = ("work", "work", "work", "work", "es", "gpu", "big", "poison")
AFFINITIES = {
    "es": Affinity(capability=("es",)),
    "gpu": Affinity(resources=(("gpu", 1.0),)),
    "big": Affinity(resources=(("gpu", 2.0),)),
}


class Client:
    def __init__(self, line: Line, random: Random, *, tenant: str, name: str) -> None:
        self._line = line
        self._random = random
        self._tenant = tenant
        self._name = name
        self._known: list[str] = []
        self._count = 0

    async def run(self, until: float) -> None:
        """Do this and that until faults stop, then leave."""
        random = self._random
        doings = [self._enqueue] * 8 + [
            self._look,
            self._look,
            self._change,
            self._change,
            self._bulk,
            self._sweep,
        ]
        while asyncio.get_running_loop().time() < until:
            await asyncio.sleep(random.expovariate(1 / 1.5))
            with contextlib.suppress(LineshaftError):  # a refusal is an answer
                await random.choice(doings)()

    # Enqueue.

    async def _enqueue(self) -> None:
        new, random = self._new(), self._random
        wait_until = self._now() + random.randint(1, 20) * SECOND if random.random() < 0.2 else None
        command = c.Enqueue(tenant=self._tenant, tasks=(new,), wait_until=wait_until)
        await self._line.insist(command, patience=25.0 if wait_until else 8.0)
        if random.random() < 0.2:
            await self._line.insist(c.Enqueue(tenant=self._tenant, tasks=(new,)))

    async def _bulk(self) -> None:
        tasks = tuple(self._new() for _ in range(self._random.randint(2, 8)))
        await self._line.insist(c.Enqueue(tenant=self._tenant, tasks=tasks))

    def _new(self) -> c.NewTask:
        random, name = self._random, self._random.choice(NAMES)
        self._count += 1
        id = f"shared-{random.randint(1, 3)}" if random.random() < 0.15 else f"{self._name}-{self._count}"
        self._known.append(id)
        spec = Spec(
            name=name,
            queue=random.choice(QUEUES),
            priority=random.choice([0, 0, 0, -1, 5]),
            max_retries=random.choice([0, 1, 3, 10]),
            retry_policy=RetryPolicy(base=random.choice([0, SECOND]), cap=10 * SECOND, jitter=0.2),
            lease=random.choice([2, 5, 15]) * SECOND,
            timeout=random.choice([None, None, 4 * SECOND]),
            affinity=AFFINITIES.get(name, Affinity()),
            retention=random.choice([7 * 86_400, 7 * 86_400, 20]) * SECOND,
        )
        return c.NewTask(
            id=id,
            spec=spec,
            payload=self._payload(id),
            given=True,
            delay=random.randint(0, 20) * SECOND if random.random() < 0.25 else None,
            expires_in=random.randint(1, 30) * SECOND if random.random() < 0.1 else None,
        )

    def _payload(self, id: str) -> bytes:
        if self._random.random() < self._line.disk.faults.unstorable:
            return b'"%s %d"' % (UNSTORABLE, self._count)
        return f'{{"for":"{self._tenant}/{id}","by":"{self._name}","n":{self._count}}}'.encode()

    # Ask.

    async def _look(self) -> None:
        command: c.Command
        match self._random.randint(0, 5):
            case 0:
                command = c.Queues(tenant=self._tenant)
            case 1:
                command = c.Explain(tenant=self._tenant, id=self._some())
            case 2:
                until = self._now() + self._random.randint(1, 30) * SECOND
                command = c.Get(tenant=self._tenant, id=self._some(), wait_until=until)
            case _:
                await self._line.look(self._tenant, self._some())
                return
        await self._line.insist(command, patience=35.0)

    # Change.

    async def _change(self) -> None:
        random, tenant, id = self._random, self._tenant, self._some()
        command: c.Command
        match random.randint(0, 9):
            case 0 | 1 | 2:
                command = c.Cancel(tenant=tenant, id=id, reason="changed my mind")
            case 3 | 4:
                command = c.Retry(tenant=tenant, id=id)
            case 5:
                command = c.Promote(tenant=tenant, id=id)
            case 6:
                command = c.Delete(tenant=tenant, id=id)
            case 7:
                command = c.Patch(tenant=tenant, id=id, payload=self._payload(id))
            case 8:
                command = c.Patch(tenant=tenant, id=id, run_at=self._now() + random.randint(0, 20) * SECOND)
            case _:
                command = c.Patch(tenant=tenant, id=id, priority=-3, queue=random.choice(QUEUES))
        await self._line.insist(command)

    async def _sweep(self) -> None:
        random, checker = self._random, self._line.disk.checker
        keys = [(id, seq) for (tenant, id), seq in checker.present.items() if tenant == self._tenant]
        random.shuffle(keys)
        verb: Any = random.choice(["cancel", "retry", "promote", "delete"])
        states = frozenset({random.choice(list(State))})
        command = c.Sweep(
            tenant=self._tenant, verb=verb, keys=tuple(keys[:5]), filter=c.Filter(states=states)
        )
        await self._line.insist(command)

    def _some(self) -> str:
        if not self._known or self._random.random() < 0.1:
            return f"shared-{self._random.randint(1, 4)}"
        return self._random.choice(self._known[-12:])

    def _now(self) -> int:
        return self._line.now(self._tenant)


class Operator:
    """Pauses a queue of a tenant now and then, and is the only one to do so."""

    def __init__(self, line: Line, random: Random, *, tenant: str) -> None:
        self._line = line
        self._random = random
        self._tenant = tenant

    async def run(self, until: float) -> None:
        """Pause and resume until faults stop; leave everything resumed."""
        loop = asyncio.get_running_loop()
        while loop.time() < until:
            await asyncio.sleep(self._random.expovariate(1 / 15))
            await self.pause_for_a_while()

    async def pause_for_a_while(self) -> None:
        """Pause, and tell the judge between which positions nothing may be claimed."""
        queue, disk = self._random.choice(QUEUES), self._line.disk
        paused = await self._set(queue, paused=True)
        await asyncio.sleep(self._random.uniform(0, 8))
        disk.checker.pauses.append((self._tenant, queue, paused.position, disk.position))
        await self._set(queue, paused=False)

    async def _set(self, queue: str, *, paused: bool) -> Any:
        command = c.SetQueue(tenant=self._tenant, queue=queue, paused=paused)
        return await self._line.insist(command)
