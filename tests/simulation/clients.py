"""Clients and operators: they do what they planned, and repeat what was not answered."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import msgspec

from lineshaft.core import commands as c
from lineshaft.errors import LineshaftError
from tests.simulation.line import Line
from tests.simulation.plan import ClientPlan, Pause, Step


class Client:
    def __init__(self, line: Line, plan: ClientPlan) -> None:
        self._line = line
        self._plan = plan

    async def run(self) -> None:
        """Take one step after the other, then leave."""
        for number, step in enumerate(self._plan.steps):
            await _until(step.at)
            who = f"{self._plan.name} step {number}"
            with contextlib.suppress(LineshaftError):  # a refusal is an answer
                if self._plan.repeats_everything:
                    await self._take_again_and_again(step, who)
                else:
                    await self._take(step, who)

    async def _take(self, step: Step, who: str) -> None:
        if step.reads_result:
            assert isinstance(step.command, c.Get)
            await self._line.look(self._plan.tenant, step.command.id, who)
        else:
            await self._line.insist(self._command(step), who, patience=8.0 + step.wait / 1000)

    async def _take_again_and_again(self, step: Step, who: str) -> None:
        """Send the same twice at once and once more later, as a client that trusts nobody."""
        command, patience = self._command(step), 8.0 + step.wait / 1000
        self._line.record.tally["client: repeated everything"] += 1

        async def later() -> None:
            await asyncio.sleep(3.0)
            with contextlib.suppress(LineshaftError):
                await self._line.insist(command, f"{who} again", patience=patience)

        self._line.spawn(later())
        twice = [
            self._line.insist(command, f"{who}{which}", patience=patience) for which in ("", " repeated")
        ]
        await asyncio.gather(*twice, return_exceptions=True)

    def _command(self, step: Step) -> c.Command:
        command = step.command
        now = self._line.now(command.tenant)
        match command:
            case c.Sweep(keys=keys):
                present = self._line.disk.checker_of(command.tenant).present
                rows = [(id, present.get((command.tenant, id), 0)) for id, _ in keys]
                return msgspec.structs.replace(command, keys=tuple(row for row in rows if row[1]))
            case c.Patch(run_at=int(after)):
                return msgspec.structs.replace(command, run_at=now + after)
        if step.wait and isinstance(command, c.Get | c.Enqueue):
            return msgspec.structs.replace(command, wait_until=now + step.wait)
        return command


class Operator:
    """Pauses queues of a tenant now and then, and is the only one to do so."""

    def __init__(self, line: Line, pauses: tuple[Pause, ...]) -> None:
        self._line = line
        self._pauses = pauses

    async def run(self) -> None:
        """Pause and resume as planned; leave everything resumed."""
        for number, pause in enumerate(self._pauses):
            await _until(pause.at)
            await self._pause(pause, f"operator of {pause.tenant} {number}")

    async def _pause(self, pause: Pause, who: str) -> None:
        """Pause, and tell the judge between which positions nothing may be claimed."""
        checker = self._line.disk.checker_of(pause.tenant)
        paused = await self._set(pause, who, paused=True)
        await asyncio.sleep(pause.lasts)
        if not any(end < checker.position and paused.position <= last for end, last in checker.lost):
            checker.pauses.append((pause.tenant, pause.queue, paused.position, checker.position))
        await self._set(pause, who, paused=False)

    async def _set(self, pause: Pause, who: str, *, paused: bool) -> Any:
        command = c.SetQueue(tenant=pause.tenant, queue=pause.queue, paused=paused)
        return await self._line.insist(command, who)


async def _until(at: float) -> None:
    await asyncio.sleep(max(0.0, at - asyncio.get_running_loop().time()))
