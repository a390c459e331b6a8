"""Claims over all partitions: each is asked in turn, then all at once for the first that comes.

What one claim leased in several partitions is handed over together or not at all: where nobody takes it, it
is released, unburned. A claim with an id first asks everywhere what is still held of its first answer, and
one that says what its worker holds tells each partition of its own.

A worker with resources has them once, not once a partition: each is told what the others leave of them, and
only one leases at a time, for one claim at a time. As what is in use changes while a claim waits, such a one
asks anew now and then.
"""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec

from lineshaft.core import commands
from lineshaft.core.claims import CLAIM_BYTES
from lineshaft.engine.handle import Handle
from lineshaft.errors import LineshaftError
from lineshaft.server.identity import Identity
from lineshaft.server.partitions.merging import all_of, used
from lineshaft.server.partitions.parts import Leased, Parts, is_passing
from lineshaft.server.partitions.tokens import of_partition
from lineshaft.server.partitions.turns import Turn
from lineshaft.server.worker_calls import Requester
from lineshaft.wire import ClaimedTask, ClaimedTasks
from lineshaft.wire.messages import Directive

_RECOUNT = 5_000
"""Milliseconds for which a worker with resources waits before what it has free is looked at again."""
_ASK_AGAIN = 1_000
"""Milliseconds after which partitions that could not answer are asked again, while it waits at the others."""

_AT_ONCE = 0.05
"""Seconds for which what other partitions have matched already is waited for, when one has answered."""


class Claiming:
    """One claim. `command` is of the tenant as a whole; `wait` (ms) and not its `wait_until` is looked at."""

    def __init__(
        self,
        parts: Parts,
        identity: Identity,
        command: commands.Claim,
        *,
        wait: int,
        turn: Turn | None = None,
    ) -> None:
        """`turn` is that of a worker with resources."""
        self.superseded = False
        """A later claim with its `claim_id` is given the same tasks."""
        self.turn = turn
        self._has_turn = False
        self._handles: dict[int, Handle] = {}
        self._parts = parts
        self._identity = identity
        self._command = command
        self._wait = wait
        self._worker = command.worker if command.worker and command.worker.resources else None
        self._told: list[commands.WorkerInfo] = []
        """Where the worker has resources: what each partition is told of it."""
        self._leased: list[Leased] = []
        self._troubles: dict[int, LineshaftError] = {}
        """Why partitions cannot be asked just now."""

    async def run(self, requester: Requester | None, *, start: int) -> ClaimedTasks:
        """Claim, and hand over as soon as the requester takes it; `start` is the partition to begin with.

        Partitions that cannot answer for a while are left out. Raises what they say where none can.
        """
        try:
            await self._claim(start)
            self._give_back_surplus()
            answer = self._answer()
            if requester is not None and answer.tasks:
                await requester.reach()
        except BaseException:
            for leased in self._leased:
                leased.abandon()
            raise
        return answer

    async def held(self) -> list[str]:
        """Tell all partitions what the worker holds, and return the tokens that still stand.

        Raises where any of them cannot say.
        """
        await self._look_at_resources()
        await self._tell_all()
        if self._troubles:
            raise next(iter(self._troubles.values()))
        return [token for leased in self._leased for token in leased.held]

    @property
    def answer(self) -> ClaimedTasks:
        """What there is to answer so far."""
        return self._answer()

    async def _claim(self, start: int) -> None:
        if self.turn is None:
            await self._go_on_claiming(start)
            return
        await self.turn.begin()
        self._has_turn = True
        try:
            await self._go_on_claiming(start)
        finally:
            if self._has_turn:
                self.turn.end()

    async def _go_on_claiming(self, start: int) -> None:
        await self._look_at_resources()
        if self._command.claim_id is not None or self._command.holding is not None:
            await self._tell_all()
        left = self._wait
        while not self._is_over():
            self._troubles.clear()
            await self._round(start)
            if len(self._troubles) == self._parts.count:
                raise next(iter(self._troubles.values()))
            if self._is_over() or left <= 0:
                return
            patience = _ASK_AGAIN if self._troubles else left if self._worker is None else _RECOUNT
            wait, began = min(left, patience), self._parts.now()
            if not await self._stand(wait):
                return
            if self.turn is not None:
                self._has_turn = False
                self.turn.end()
                await self.turn.go_on()
                self._has_turn = True
                await self._look_at_resources()
            left -= max(1, self._parts.now() - began)

    def _is_over(self) -> bool:
        return any(leased.tasks or leased.directive == "drain" for leased in self._leased)

    @property
    def _room(self) -> int:
        if self._worker is not None and any(leased.tasks for leased in self._leased):
            return 0
        return self._command.max - sum(len(leased.tasks) for leased in self._leased)

    async def _tell_all(self) -> None:
        """Ask for nothing new: what each partition still holds of the claim, while it hears of the worker."""
        asked = [self._ask(partition, most=0, holding=True) for partition in range(self._parts.count)]
        all_of(await asyncio.gather(*asked, return_exceptions=True))

    async def _round(self, start: int) -> None:
        """Ask partition by partition, until there is enough."""
        size = 0
        for turn in range(self._parts.count):
            if self._room <= 0 or size >= CLAIM_BYTES:
                return
            leased = await self._ask((start + turn) % self._parts.count, most=self._room)
            if leased is not None and leased.directive == "drain":
                return
            size += 0 if leased is None else sum(len(bytes(task.payload)) for task in leased.tasks)

    async def _stand(self, wait: int) -> bool:
        """Wait where it can be waited until one partition answers; return whether it is to be asked again.

        One that answers early and with nothing sends the claimer away, as where a repeated claim took over.
        """
        began = self._parts.now()
        interrupted = None if self.turn is None else self.turn.stand()
        asked = {
            partition: asyncio.ensure_future(self._ask(partition, most=self._command.max, wait=wait))
            for partition in range(self._parts.count)
            if partition not in self._troubles
        }
        watched: list[asyncio.Future[Any]] = [*asked.values()]
        if interrupted is not None:
            watched.append(interrupted)
        try:
            await asyncio.wait(watched, return_when=asyncio.FIRST_COMPLETED)
            coming = [each for partition, each in asked.items() if self._is_coming(partition)]
            if coming and self._room > 0:
                await asyncio.wait(coming, timeout=_AT_ONCE)
        finally:
            for each in asked.values():
                each.cancel()
            await asyncio.gather(*asked.values(), return_exceptions=True)
        answers = [each.result() for each in asked.values() if not each.cancelled()]
        return (
            self._parts.now() - began >= wait
            or any(answer is None for answer in answers)
            or (interrupted is not None and interrupted.done())
        )

    def _is_coming(self, partition: int) -> bool:
        """Tell whether a partition here has matched the claim already, and the answer is on its way."""
        handle = self._handles.get(partition)
        return (
            handle is not None
            and not handle.done()
            and handle.intake is not None
            and not handle.intake.is_parked(handle)
        )

    async def _ask(self, partition: int, *, most: int, wait: int = 0, holding: bool = False) -> Leased | None:
        """Claim in one partition; None where it cannot answer just now."""
        command = self._command
        known = command.holding if holding else None
        if known is not None:
            known = tuple(of_partition(partition, known))
        worker = self._told[partition] if self._told else command.worker
        asked = msgspec.structs.replace(command, max=most, holding=known, worker=worker, wait_until=None)
        try:
            leased = await self._parts.lease(
                partition,
                self._identity,
                asked,
                wait=wait,
                is_superseded=lambda: self.superseded,
                on_handle=lambda handle: self._handles.__setitem__(partition, handle),
            )
        except LineshaftError as error:
            if not is_passing(error):
                raise
            self._troubles[partition] = error
            return None
        self._leased.append(leased)
        return leased

    async def _look_at_resources(self) -> None:
        """Find out what the worker has in use everywhere, and what each partition is to be told."""
        if self._worker is None:
            return
        lists = await self._parts.all(self._identity, "workers")
        in_use: list[dict[str, float]] = [{} for _ in lists]
        for partition, listed in enumerate(lists):
            for each in listed.workers:
                if (each.worker_id, each.incarnation) == (self._worker.id, self._worker.incarnation):
                    in_use[partition] = used(each)
        self._told = [
            msgspec.structs.replace(self._worker, resources=_left(self._worker, in_use, partition))
            for partition in range(len(lists))
        ]

    # -- what came of it ---------------------------------------------------------------------------

    def _give_back_surplus(self) -> None:
        """Release what came at the same time from several partitions and is too much."""
        first = next((leased for leased in self._leased if leased.tasks), None)
        if first is None or first.repeated:
            return
        room = self._command.max
        for leased in self._leased:
            most = room if self._worker is None or leased is first else 0
            if len(leased.tasks) > most:
                leased.keep(most)
            room -= len(leased.tasks)

    def _answer(self) -> ClaimedTasks:
        tasks: list[ClaimedTask] = [task for leased in self._leased for task in leased.tasks]
        drained = any(leased.directive == "drain" for leased in self._leased)
        directive: Directive = "drain" if drained else "continue"
        position = max((leased.position for leased in self._leased), default=0)
        return ClaimedTasks(tasks=tasks, position=position, directive=directive)


def _left(
    worker: commands.WorkerInfo, in_use: list[dict[str, float]], partition: int
) -> tuple[tuple[str, float], ...]:
    """Return what other partitions leave of a worker's resources."""
    others = [each for number, each in enumerate(in_use) if number != partition]
    return tuple(
        (name, max(0.0, amount - sum(each.get(name, 0) for each in others)))
        for name, amount in worker.resources
    )
