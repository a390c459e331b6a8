"""The line between clients, workers and the coordinator: it loses, delays, repeats and reorders, and people
hang up.
"""

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
from lineshaft.errors import LineshaftError, NotOwner, Retryable
from tests.simulation.chance import Chance
from tests.simulation.fleet import Fleet
from tests.simulation.life import Life
from tests.simulation.record import Record

T = TypeVar("T")


class NoAnswer(Exception):
    """The request or its answer was lost, or nobody was there; what it did is unknown."""


class Line:
    def __init__(self, fleet: Fleet, chance: Chance, record: Record) -> None:
        self.fleet = fleet
        self.disk = fleet.disk
        self.chance = chance
        self.record = record
        self.open: dict[Handle, Life] = {}
        """Requests that wait for an answer → where."""
        self._delays: dict[str, Random] = {}
        self._under_way: set[asyncio.Task[None]] = set()

    def now(self, tenant: str) -> int:
        """What time it is, as far as anybody knows."""
        return self.fleet.now(tenant)

    async def insist(self, command: c.Command, who: str, *, patience: float = 8.0) -> Any:
        """Repeat a request until it is answered; raises what it is refused with for good."""
        while True:
            try:
                return await self.call(command, who, patience=patience)
            except NoAnswer:
                await asyncio.sleep(0.1)
            except Retryable as error:
                await asyncio.sleep(min(error.retry_after or 0.1, 2.0))

    async def call(self, command: c.Command, who: str, *, patience: float = 8.0) -> Any:
        """Send a command and return the reply; raises what the coordinator refuses with, and `NoAnswer`.

        `who` names the sender, and the place where things go wrong.
        """
        self.disk.checker_of(command.tenant).asked(command)
        sent = asyncio.get_running_loop().time()
        fault = self.chance.draw(who, "request_lost", "reply_lost", "duplicated", "overtaken", "hung_up")
        kind, delays = None, self._delays_of(who)
        await asyncio.sleep(delays.uniform(0, 0.004))
        # A switch that is thrown again much later would undo what its operator did since.
        if fault is not None and not (
            isinstance(command, c.SetQueue) and fault.kind in ("duplicated", "overtaken")
        ):
            kind = fault.kind
            self.record.tally[f"request: {kind}"] += 1
            if kind in ("duplicated", "overtaken"):
                after = fault.random.choice([0.0, 0.001, 0.02, 1.0, 40.0])
                self._send_later(command, who, after, said=kind)
            if kind in ("request_lost", "overtaken"):
                await asyncio.sleep(fault.random.uniform(0, patience))
                raise NoAnswer("the request was lost")
            if kind == "hung_up":
                patience = fault.random.uniform(0, 0.02)
        reply = await self._ask(command, who, patience, sent=sent, lost=kind == "reply_lost")
        await asyncio.sleep(delays.uniform(0, 0.004))
        if isinstance(reply, LineshaftError):
            raise reply
        return reply

    def _delays_of(self, who: str) -> Random:
        delays = self._delays.get(who)
        if delays is None:
            delays = self._delays[who] = self.chance.random(f"delays of {who}")
        return delays

    def _send_later(self, command: c.Command, who: str, after: float, *, said: str) -> None:
        """Let a request arrive later: once more, or (overtaken) for the first time, after its repetition."""

        async def arrive() -> None:
            await asyncio.sleep(after)
            with contextlib.suppress(NoAnswer):
                await self._ask(command, f"{who} ({said})", 5.0, sent=None, lost=False)

        self.spawn(arrive())

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Let something go on beside its starter; `emptied` waits for it."""
        task = asyncio.get_running_loop().create_task(work)
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)

    async def emptied(self) -> None:
        """Wait until all that was under way has arrived."""
        while self._under_way:
            await asyncio.wait(self._under_way)

    async def _ask(
        self, command: c.Command, who: str, patience: float, *, sent: float | None, lost: bool
    ) -> Any:
        life = self.fleet.someone(who, command.tenant)
        checker = self.disk.checker_of(command.tenant)
        if life is None or life.engine is None:
            await asyncio.sleep(0.05)
            raise NoAnswer("nobody is there")
        if life.frozen:
            await self._wait_for_thaw(life, command, who, patience)
        if life.dead.done():
            raise NoAnswer("the coordinator crashed")
        shown_before = checker.shown
        handle = life.context.run(life.engine.submit, command)
        self.open[handle] = life
        try:
            reply = await self._answer(life, handle, patience)
        finally:
            del self.open[handle]
        self.record.answer(who, command, reply, lost=lost)
        if not isinstance(reply, LineshaftError):
            checker.answered(command, reply, shown_before=shown_before, sent=None if lost else sent)
        if lost:
            if self._delays_of(who).random() < 0.5:
                life.context.run(handle.abandon)  # the coordinator has seen the connection break
            await asyncio.sleep(self._delays_of(who).uniform(0, patience))
            raise NoAnswer("the reply was lost")
        return reply

    async def _wait_for_thaw(self, life: Life, command: c.Command, who: str, patience: float) -> None:
        """Wait for a frozen coordinator; where that takes too long it will find the request, and nobody
        behind it.
        """
        await asyncio.wait([life.thawed, life.dead], timeout=patience, return_when=asyncio.FIRST_COMPLETED)
        if not life.frozen:
            return

        async def arrive() -> None:
            await asyncio.wait([life.thawed, life.dead], return_when=asyncio.FIRST_COMPLETED)
            if life.engine is not None and not life.dead.done():
                self.record.tally["request: found by a thawed coordinator"] += 1
                self.record.say(who, "has gone, but the thawed coordinator finds its request")
                handle = life.context.run(life.engine.submit, command)
                life.context.run(handle.abandon)

        self.spawn(arrive())
        raise NoAnswer("the coordinator stands still")

    async def _answer(self, life: Life, handle: Handle, patience: float) -> Any:
        await asyncio.wait([handle, life.dead], timeout=patience, return_when=asyncio.FIRST_COMPLETED)
        if life.dead.done():
            if handle.done() and not handle.cancelled():
                handle.exception()
            raise NoAnswer("the coordinator crashed")
        if not handle.done():
            await self._hang_up(life, handle)
            raise NoAnswer("no answer in time")
        refusal = handle.exception()
        if refusal is None:
            return handle.result()
        if isinstance(refusal, NotOwner):
            raise NoAnswer("the shard is another's")
        if not isinstance(refusal, LineshaftError):
            self.disk.checker_of(handle.command.tenant).violated(
                f"{handle.command} was answered with {refusal!r}"
            )
            raise refusal
        return refusal

    async def _hang_up(self, life: Life, handle: Handle) -> None:
        if not life.frozen:
            life.context.run(handle.abandon)
            return

        async def be_noticed() -> None:
            await asyncio.wait([life.thawed, life.dead], return_when=asyncio.FIRST_COMPLETED)
            life.context.run(handle.abandon)

        self.spawn(be_noticed())

    # Reading beside commands.

    async def look(self, tenant: str, id: str, who: str) -> None:
        """Get a task and, where it is completed, its result."""
        found: Found = await self.insist(c.Get(tenant=tenant, id=id), who)
        task = found.task
        if task.state is State.COMPLETED:
            [result] = await self.read(
                tenant, lambda engine: engine.read(tenant, [(Blob.RESULT, task.seq)]), who
            )
            self.disk.checker_of(tenant).read_result(task, b"null" if result is None else result)

    async def read(self, tenant: str, ask: Any, who: str) -> Any:
        """Ask an engine something of a tenant that is not a command, until it answers."""
        while True:
            life = self.fleet.someone(who, tenant)
            if life is None or life.engine is None:
                await asyncio.sleep(0.1)
                continue
            try:
                return await self._read_once(life, life.engine, ask)
            except (NoAnswer, NotOwner, Retryable):
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
