"""All coordinators of a run, and the way of a request among them: who is asked passes it on to the owner."""

from __future__ import annotations

import asyncio

from lineshaft.engine.clock import LoopClock
from tests.simulation.chance import Chance
from tests.simulation.coordinator import Coordinator
from tests.simulation.disk import Disk
from tests.simulation.life import Life
from tests.simulation.plan import Plan
from tests.simulation.record import Record


class Fleet:
    """One coordinator alone, or several that share the store and agree by its roster."""

    def __init__(self, disk: Disk, plan: Plan, chance: Chance, *, clock: LoopClock, record: Record) -> None:
        self.disk = disk
        self._clock = clock
        self._plan = plan
        self._record = record
        self._choices = chance.random("which coordinator is asked")
        self.coordinators = [
            Coordinator(disk, plan, chance, place=place, clock=clock, record=record)
            for place in range(plan.coordinators)
        ]

    @property
    def lives(self) -> list[Life]:
        """Return the engines that run."""
        return [each.life for each in self.coordinators if each.life is not None]

    @property
    def started(self) -> int:
        """Return how many engines there have been."""
        return sum(each.lives for each in self.coordinators)

    def now(self, tenant: str) -> int:
        """What time it is, as far as anybody knows."""
        return next(
            (now for each in self.coordinators if (now := each.now(tenant)) is not None), self._clock.now()
        )

    def someone(self, who: str, tenant: str) -> Life | None:
        """Return the engine that a request of a tenant comes to, perhaps passed on by another."""
        asked = (
            self._choices.choice(self.coordinators) if len(self.coordinators) > 1 else self.coordinators[0]
        )
        life = asked.someone(who)
        if life is None or life.frozen or life.engine is None or life.engine.has(tenant):
            return life
        membership = life.engine.membership
        holder = None if membership is None else membership.holder(self.disk.shard_of(tenant))
        for other in self.lives:
            if holder is not None and other is not life and other.link.name == holder.address:
                self._record.tally["request: forwarded"] += 1
                return other
        return life

    async def start(self) -> None:
        """Start all."""
        await asyncio.gather(*(each.start() for each in self.coordinators))

    async def suffer(self) -> None:
        """Let happen to each what is planned."""
        await asyncio.gather(
            *(
                each.suffer(tuple(mishap for mishap in self._plan.mishaps if mishap.place == each.place))
                for each in self.coordinators
            )
        )

    async def settle_down(self) -> None:
        """Let all be there, awake."""
        for each in self.coordinators:
            await each.settle_down()

    def crash(self) -> None:
        """Drop all where they stand."""
        for each in self.coordinators:
            each.crash()

    async def stop(self) -> None:
        """Close one after the other."""
        for each in self.coordinators:
            await each.stop()
