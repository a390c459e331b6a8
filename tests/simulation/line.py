"""The line between clients, workers and the coordinator: it loses, delays and repeats, and people hang up."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine
from random import Random
from typing import Any, TypeVar

from lineshaft.core import commands as c
from lineshaft.core.batch import Blob
from lineshaft.core.replies import Found
from lineshaft.core.task import State
from lineshaft.engine.engine import Engine
from lineshaft.engine.handle import Handle
from lineshaft.errors import LineshaftError, Retryable
from tests.simulation.coordinator import Coordinator, Life
from tests.simulation.trace import Trace, brief

T = TypeVar("T")


class NoAnswer(Exception):
    """The request or its answer was lost, or nobody was there; what it did is unknown."""


class Line:
    def __init__(self, coordinator: Coordinator, random: Random, trace: Trace) -> None:
        self.coordinator = coordinator
        self.disk = coordinator.disk
        self._random = random
        self._trace = trace
        self._again: set[asyncio.Task[None]] = set()

    def now(self, tenant: str) -> int:
        """What time it is, as far as anybody knows."""
        return self.coordinator.now(tenant)

    async def insist(self, command: c.Command, *, patience: float = 8.0) -> Any:
        """Repeat a request until it is answered; raises what it is refused with for good."""
        while True:
            try:
                return await self.call(command, patience=patience)
            except NoAnswer:
                await asyncio.sleep(0.1)
            except Retryable as error:
                await asyncio.sleep(min(error.retry_after or 0.1, 2.0))

    async def call(self, command: c.Command, *, patience: float = 8.0) -> Any:
        """Send a command and return the reply; raises what the coordinator refuses with, and `NoAnswer`."""
        faults, random = self.disk.faults, self._random
        self.disk.checker.asked(command)
        sent = asyncio.get_running_loop().time()
        await asyncio.sleep(random.uniform(0, 0.004))
        # A switch that is thrown again much later would undo what its operator did since.
        if random.random() < faults.duplicate and not isinstance(command, c.SetQueue):
            self._send_again_later(command)
        if random.random() < faults.lose_request:
            await asyncio.sleep(random.uniform(0, patience))
            raise NoAnswer("the request was lost")
        if random.random() < faults.hang_up:
            patience = random.uniform(0, 0.02)
        reply = await self._ask(command, patience, sent=sent, lost=random.random() < faults.lose_reply)
        await asyncio.sleep(random.uniform(0, 0.004))
        if isinstance(reply, LineshaftError):
            raise reply
        return reply

    def _send_again_later(self, command: c.Command) -> None:
        async def once_more() -> None:
            await asyncio.sleep(self._random.choice([0.0, 0.001, 0.02, 1.0, 40.0]))
            with contextlib.suppress(NoAnswer):
                await self._ask(command, 5.0, sent=None, lost=False)

        task = asyncio.get_running_loop().create_task(once_more())
        self._again.add(task)
        task.add_done_callback(self._again.discard)

    async def emptied(self) -> None:
        """Wait until all that was to be sent again has arrived."""
        while self._again:
            await asyncio.wait(self._again)

    async def _ask(self, command: c.Command, patience: float, *, sent: float | None, lost: bool) -> Any:
        life, checker = self.coordinator.someone(), self.disk.checker
        if life is None or life.engine is None:
            await asyncio.sleep(0.05)
            raise NoAnswer("nobody is there")
        shown_before = checker.shown
        handle = life.context.run(life.engine.submit, command)
        reply = await self._answer(life, handle, patience)
        self._trace("answer", f"{brief(command)} → {brief(reply)}")
        if not isinstance(reply, LineshaftError):
            checker.answered(command, reply, shown_before=shown_before, sent=None if lost else sent)
        if lost:
            if self._random.random() < 0.5:
                life.context.run(handle.abandon)  # the coordinator has seen the connection break
            await asyncio.sleep(self._random.uniform(0, patience))
            raise NoAnswer("the reply was lost")
        return reply

    async def _answer(self, life: Life, handle: Handle, patience: float) -> Any:
        await asyncio.wait([handle, life.dead], timeout=patience, return_when=asyncio.FIRST_COMPLETED)
        if life.dead.done():
            if handle.done() and not handle.cancelled():
                handle.exception()
            raise NoAnswer("the coordinator crashed")
        if not handle.done():
            life.context.run(handle.abandon)
            raise NoAnswer("no answer in time")
        refusal = handle.exception()
        if refusal is None:
            return handle.result()
        if not isinstance(refusal, LineshaftError):
            self.disk.checker.violated(f"{brief(handle.command)} was answered with {refusal!r}")
            raise refusal
        return refusal

    # Reading beside commands.

    async def look(self, tenant: str, id: str) -> None:
        """Get a task and, where it is completed, its result."""
        found: Found = await self.insist(c.Get(tenant=tenant, id=id))
        task = found.task
        if task.state is State.COMPLETED:
            [result] = await self.read(lambda engine: engine.read(tenant, [(Blob.RESULT, task.seq)]))
            self.disk.checker.read_result(task, b"null" if result is None else result)

    async def read(self, ask: Any) -> Any:
        """Ask an engine something that is not a command, until it answers."""
        while True:
            life = self.coordinator.someone()
            if life is None or life.engine is None:
                await asyncio.sleep(0.1)
                continue
            try:
                return await self._read_once(life, life.engine, ask)
            except (NoAnswer, Retryable):
                await asyncio.sleep(0.1)

    async def _read_once(self, life: Life, engine: Engine, ask: Any) -> Any:
        async def reading() -> Any:
            return await ask(engine)

        answer: Coroutine[Any, Any, Any] = reading()
        task = life.context.run(asyncio.ensure_future, answer)
        await asyncio.wait([task, life.dead], return_when=asyncio.FIRST_COMPLETED)
        if not task.done() or task.cancelled():
            task.cancel()
            raise NoAnswer("the coordinator crashed")
        return task.result()
