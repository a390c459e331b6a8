"""The coordinator of a run: the real engine, started, crashed and started again.

A crash drops the engine between any two of its steps: its connection to the store goes dead, everything it
had under way is cancelled, and whoever waited for an answer hears nothing. Where ownership is leased, an
engine may also be cut off from the store for a while: another takes over, and clients still talk to both.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Coroutine, Generator
from random import Random
from typing import Any

from lineshaft.engine.clock import LoopClock
from lineshaft.engine.engine import Engine
from lineshaft.engine.limits import Limits
from lineshaft.errors import LineshaftError
from tests.simulation.disk import Disk, Link
from tests.simulation.plan import Plan
from tests.simulation.trace import Trace

_LIFE: contextvars.ContextVar[Life | None] = contextvars.ContextVar("life", default=None)


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


def task_factory(
    loop: asyncio.AbstractEventLoop,
    work: Coroutine[Any, Any, Any] | Generator[Any, None, Any],
    **options: Any,
) -> Any:
    """Make a task, and note it as part of the engine's life if an engine makes it."""
    task: asyncio.Task[Any] = asyncio.Task(work, loop=loop, **options)
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
        self._cut_off: Life | None = None
        """One that was taken over from, and does not know."""
        self._lives = 0

    # Life and death.

    async def start(self) -> None:
        """Start an engine on the store, as often as it takes."""
        while True:
            self._lives += 1
            link = Link(
                self.disk,
                Random(self._random.random()),
                valid_for=self._plan.valid_for,
                note=lambda what: self._trace("store", what),
            )
            life = Life(self._lives, link)
            self._trace("coordinator", f"life {life.number} begins")
            try:
                life.engine = life.context.run(self._engine, link)
                await life.context.run(asyncio.ensure_future, life.engine.__aenter__())
            except LineshaftError as error:
                self._trace("coordinator", f"could not start: {error}")
                life.end()
                await asyncio.sleep(0.2)
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

    def someone(self) -> Life | None:
        """Return an engine that clients can reach, if there is one."""
        if self._cut_off is not None and self._random.random() < 0.5:
            return self._cut_off
        return self._life

    def now(self, tenant: str) -> int:
        """What time it is, as far as anybody knows."""
        life = self._life
        return self.clock.now() if life is None or life.engine is None else life.engine.now(tenant)

    async def keep_failing(self) -> None:
        """Crash, stop or be cut off now and then; somebody takes over a while later."""
        random = self._random
        while True:
            await asyncio.sleep(random.expovariate(1 / self._plan.crash_every))
            if self._plan.valid_for is not None and random.random() < 0.5:
                await self.take_over_from_one_that_is_cut_off()
                continue
            if random.random() < 0.2:
                await self.stop()
            else:
                self.crash()
            await asyncio.sleep(random.choice([0.0, 0.1, 2.0, 45.0]))
            await self.start()

    async def settle_down(self) -> None:
        """Let there be one engine."""
        self._end_cut_off()
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

    async def take_over_from_one_that_is_cut_off(self) -> None:
        """Start an engine while the store does not hear the other, which goes on serving as far as it can."""
        loop, random = asyncio.get_running_loop(), self._random
        life, self._life = self._life, None
        if life is None:
            return
        self._trace("coordinator", f"life {life.number} is cut off")
        self._end_cut_off()
        self._cut_off = life
        life.link.cut_off_until = loop.time() + random.uniform(2, 20)
        try:
            await self.start()
            await asyncio.sleep(random.uniform(1, 30))
        finally:
            self._end_cut_off()

    def _end_cut_off(self) -> None:
        life, self._cut_off = self._cut_off, None
        if life is not None:
            self._trace("coordinator", f"life {life.number} ends")
            life.end()
