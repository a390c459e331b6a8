"""The coordinator of a run: the real engine, started, crashed and started again; and the line to it.

A crash drops the engine between any two of its steps: its connection to the store goes dead, everything it
had under way is cancelled, and whoever waited for an answer hears nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
from collections.abc import Coroutine
from random import Random
from typing import Any

from lineshaft.core import commands as c
from lineshaft.engine.clock import LoopClock
from lineshaft.engine.engine import Engine
from lineshaft.engine.limits import Limits
from lineshaft.errors import LineshaftError
from tests.simulation.disk import Disk, Link
from tests.simulation.plan import Plan
from tests.simulation.trace import Trace, brief

_LIFE: contextvars.ContextVar[Life | None] = contextvars.ContextVar("life", default=None)


class NoAnswer(Exception):
    """The request or its answer was lost, or nobody was there; what it did is unknown."""


class Life:
    """One engine from its start to its crash."""

    def __init__(self, number: int, link: Link) -> None:
        self.number = number
        self.link = link
        self.dead = asyncio.get_running_loop().create_future()
        self.tasks: dict[asyncio.Task[Any], None] = {}
        self.context = contextvars.copy_context()
        self.context.run(_LIFE.set, self)
        self.engine: Engine | None = None

    def end(self) -> None:
        """Crash."""
        self.link.cut = True
        if not self.dead.done():
            self.dead.set_result(None)
        for task in list(self.tasks):
            task.cancel()


def task_factory(loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, Any], **options: Any) -> Any:
    """Make a task, and note it as part of the engine's life if an engine makes it."""
    task = asyncio.Task(work, loop=loop, **options)
    context = options.get("context")
    life = context.get(_LIFE) if context is not None else _LIFE.get()
    if life is not None:
        life.tasks[task] = None
        task.add_done_callback(lambda task: life.tasks.pop(task, None))
        if life.dead.done():
            task.cancel()
    return task


class Coordinator:
    """Whoever owns the store at present, if anybody does."""

    def __init__(self, disk: Disk, plan: Plan, random: Random, *, clock: LoopClock, trace: Trace) -> None:
        self.disk = disk
        self.clock = clock
        self._plan = plan
        self._random = random
        self._trace = trace
        self._life: Life | None = None
        self._lives = 0
        self._again: set[asyncio.Task[None]] = set()

    # Life and death.

    async def start(self) -> None:
        """Start an engine on the store, as often as it takes."""
        while True:
            self._lives += 1
            link = Link(self.disk, Random(self._random.random()), lambda what: self._trace("store", what))
            life = Life(self._lives, link)
            self._trace("coordinator", f"life {life.number} begins")
            try:
                life.engine = life.context.run(self._engine, link)
                await life.context.run(asyncio.ensure_future, life.engine.__aenter__())
            except LineshaftError as error:
                self._trace("coordinator", f"could not start: {error}")
                life.end()
                await asyncio.sleep(1.0)
                continue
            self._life = life
            return

    def _engine(self, link: Link) -> Engine:
        small = Limits(finished_in_memory=3, pending_commands=12, pending_bytes=6_000, batch_commands=4)
        nonces = Random(self._random.random())
        return Engine(
            link,
            clock=self.clock,
            nonces=lambda: nonces.randbytes(16),
            limits=small if self._plan.small_memory else Limits(),
        )

    @property
    def lives(self) -> int:
        """How many engines there have been."""
        return self._lives

    def now(self, tenant: str) -> int:
        """What time it is, as far as anybody knows."""
        life = self._life
        return self.clock.now() if life is None or life.engine is None else life.engine.now(tenant)

    async def ensure_started(self) -> None:
        """Start where the last life has ended."""
        if self._life is None:
            await self.start()

    def crash(self) -> None:
        """Drop the engine where it stands."""
        if self._life is not None:
            self._trace("coordinator", f"life {self._life.number} crashes")
            self._life.end()
            self._life = None

    async def stop(self) -> None:
        """Close the engine as on SIGTERM."""
        life, self._life = self._life, None
        if life is not None and life.engine is not None:
            self._trace("coordinator", f"life {life.number} closes")
            try:
                await life.context.run(asyncio.ensure_future, life.engine.close())
            finally:
                life.end()

    async def keep_crashing(self) -> None:
        """Crash or stop now and then, and start again a while later."""
        while True:
            await asyncio.sleep(self._random.expovariate(1 / self._plan.crash_every))
            if self._random.random() < 0.2:
                await self.stop()
            else:
                self.crash()
            await asyncio.sleep(self._random.choice([0.0, 0.1, 2.0, 45.0]))
            await self.start()

    # The line.

    async def call(self, command: c.Command, *, patience: float = 8.0) -> Any:
        """Send a command and return the reply; raises what the coordinator refuses with, and `NoAnswer`."""
        faults, random = self.disk.faults, self._random
        self.disk.checker.asked(command)
        await asyncio.sleep(random.uniform(0, 0.004))
        # A switch that is thrown again much later would undo what its operator did since.
        if random.random() < faults.duplicate and not isinstance(command, c.SetQueue):
            task = asyncio.get_running_loop().create_task(self._once_more(command))
            self._again.add(task)
            task.add_done_callback(self._again.discard)
        if random.random() < faults.lose_request:
            await asyncio.sleep(random.uniform(0, patience))
            raise NoAnswer("the request was lost")
        if random.random() < faults.hang_up:
            patience = random.uniform(0, 0.02)
        reply = await self._ask(command, patience)
        await asyncio.sleep(random.uniform(0, 0.004))
        if random.random() < faults.lose_reply:
            await asyncio.sleep(random.uniform(0, patience))
            raise NoAnswer("the reply was lost")
        if isinstance(reply, LineshaftError):
            raise reply
        return reply

    async def _once_more(self, command: c.Command) -> None:
        await asyncio.sleep(self._random.choice([0.0, 0.001, 0.02, 1.0, 40.0]))
        with contextlib.suppress(NoAnswer):
            await self._ask(command, 5.0)

    async def _ask(self, command: c.Command, patience: float) -> Any:
        life, checker = self._life, self.disk.checker
        if life is None or life.engine is None:
            await asyncio.sleep(0.05)
            raise NoAnswer("nobody is there")
        shown_before = checker.shown
        try:
            handle = life.context.run(life.engine.submit, command)
        except LineshaftError as error:
            return error
        await asyncio.wait([handle, life.dead], timeout=patience, return_when=asyncio.FIRST_COMPLETED)
        if life.dead.done():
            if handle.done() and not handle.cancelled():
                handle.exception()
            raise NoAnswer("the coordinator crashed")
        if not handle.done():
            life.context.run(handle.abandon)
            raise NoAnswer("no answer in time")
        error = handle.exception()
        if error is None:
            reply: Any = handle.result()
            self._trace("answer", f"{brief(command)} → {brief(reply)}")
            checker.answered(command, reply, shown_before=shown_before)
            return reply
        self._trace("answer", f"{brief(command)} → {error!r}")
        if not isinstance(error, LineshaftError):
            checker.violated(f"{brief(command)} was answered with {error!r}")
            raise error
        return error
