"""One coordinator of a run: the real engine, started, crashed, frozen and started again.

A crash drops the engine between any two of its steps: its connection to the store goes dead, everything it
had under way is cancelled, and whoever waited for an answer hears nothing. A frozen one misses its timers and
finds everything that came meanwhile when it thaws. Where coordinators share the store, an engine may also be
cut off from it, or frozen, for so long that another takes over; clients still talk to both. Where there are
others that take over, it comes back by itself; where it is alone, another is started in its place.
"""

from __future__ import annotations

import asyncio

import msgspec

from lineshaft.engine.clock import LoopClock
from lineshaft.engine.engine import Engine
from lineshaft.engine.limits import Limits
from lineshaft.errors import LineshaftError, NotOwner
from tests.simulation.chance import Chance
from tests.simulation.disk import Disk
from tests.simulation.life import Life
from tests.simulation.link import Link
from tests.simulation.plan import Mishap, Plan
from tests.simulation.record import Record

SMALL = Limits(finished_in_memory=3, pending_commands=12, pending_bytes=6_000, batch_commands=4)


class Coordinator:
    """One place where a coordinator runs, most of the time."""

    def __init__(
        self, disk: Disk, plan: Plan, chance: Chance, *, place: int, clock: LoopClock, record: Record
    ) -> None:
        self.disk = disk
        self.place = place
        self._alone = plan.coordinators == 1
        self.clock = clock
        self.lives = 0
        """How many engines there have been."""
        self._plan = plan
        self._chance = chance
        self._record = record
        self._choices = chance.random(f"whom clients reach{self._suffix}")
        self._life: Life | None = None
        self._cut_off: Life | None = None
        """One that was taken over from, and does not know."""

    # Life and death.

    async def start(self) -> None:
        """Start an engine on the store, as often as it takes."""
        while True:
            self.lives += 1
            name = self._name(self.lives)
            link = Link(self.disk, self._chance, self._record, name=name, shared=self._plan.lease is not None)
            life = Life(self.lives, link, died=self._died)
            self._record.say(name, "starts")
            try:
                life.engine = life.context.run(self._engine, link)
                await life.context.run(asyncio.ensure_future, life.engine.__aenter__())
            except (LineshaftError, TimeoutError) as error:
                self._record.say(name, f"could not start: {error}")
                life.end()
                await asyncio.sleep(0.2)
                continue
            self._life = life
            return

    @property
    def _suffix(self) -> str:
        return "" if self._alone else f" at {'abcdefgh'[self.place]}"

    def _name(self, number: int) -> str:
        return f"coordinator {number}{self._suffix}"

    def _engine(self, link: Link) -> Engine:
        nonces = self._chance.random(f"nonces {self.lives}{self._suffix}")
        limits = SMALL if self._plan.small_memory else Limits()
        if self._plan.lease is not None:
            limits = msgspec.structs.replace(limits, ownership_lease=self._plan.lease)
        return Engine(
            link, clock=self.clock, nonces=lambda: nonces.randbytes(16), limits=limits, address=link.name
        )

    @property
    def life(self) -> Life | None:
        """The engine that was started last, if it still runs."""
        return self._life

    def someone(self, who: str) -> Life | None:
        """Return an engine that a client can reach, if there is one."""
        if self._cut_off is not None and self._choices.random() < 0.5:
            return self._cut_off
        return self._life

    def now(self, tenant: str) -> int | None:
        """What time it is where a tenant lives; None where that is not known here."""
        life = self._life
        if life is None or life.engine is None or life.frozen:
            return None
        try:
            return life.context.run(life.engine.now, tenant)
        except NotOwner:
            return None

    # Mishaps.

    async def suffer(self, mishaps: tuple[Mishap, ...]) -> None:
        """Crash, stop, stand still or be cut off as planned, one after the other."""
        loop = asyncio.get_running_loop()
        for mishap in mishaps:
            await asyncio.sleep(max(0.0, mishap.at - loop.time()))
            match mishap.kind:
                case "crash":
                    await self._crash_soon(mishap.steps)
                case "close":
                    await self.stop()
                case "freeze":
                    await self._stand_still(mishap.lasts)
                    continue
                case "cut_off":
                    await self._lose_touch(mishap.lasts)
                    continue
            await asyncio.sleep(mishap.lasts)
            await self.start()

    async def settle_down(self) -> None:
        """Let there be one engine, awake."""
        self._end_cut_off()
        if self._life is None:
            await self.start()
        assert self._life is not None
        self._life.steps_left = -1
        self._life.thaw()

    def crash(self) -> None:
        """Drop the engine where it stands."""
        life, self._life = self._life, None
        if life is not None:
            self._record.say(self._name(life.number), "crashes")
            life.end()

    async def stop(self) -> None:
        """Close the engine as on SIGTERM."""
        life, self._life = self._life, None
        if life is None or life.engine is None:
            return
        self._record.tally["coordinator: closed"] += 1
        self._record.say(self._name(life.number), "closes")
        try:
            if not self._alone:
                await life.context.run(asyncio.ensure_future, life.engine.hand_over())
            await life.context.run(asyncio.ensure_future, life.engine.close())
        finally:
            life.end()

    async def _crash_soon(self, steps: int) -> None:
        """Crash after so many more steps of the engine, wherever that is, or within a second."""
        life = self._life
        if life is None:
            return
        life.steps_left = steps + 1
        await asyncio.wait([life.dead], timeout=1.0)
        if self._life is life:
            self._died(life)

    def _died(self, life: Life) -> None:
        if self._life is not life:
            return
        self._record.tally["coordinator: crashed"] += 1
        if life.link.committing:
            self._record.tally["coordinator: crashed in the middle of a commit"] += 1
        self.crash()

    async def _stand_still(self, seconds: float) -> None:
        """Freeze the engine; where its ownership is leased, another may take over meanwhile."""
        loop, life = asyncio.get_running_loop(), self._life
        if life is None:
            return
        self._record.tally["coordinator: frozen"] += 1
        self._record.say(self._name(life.number), f"is frozen for {seconds:g} s")
        life.freeze()
        began, epochs = loop.time(), self._epochs(life)
        if self._alone and self._plan.lease is not None and seconds >= 2:
            self._record.tally["coordinator: taken over from while frozen"] += 1
            self._end_cut_off()
            self._cut_off, self._life = life, None
            await self.start()
        try:
            await asyncio.sleep(max(0.0, began + seconds - loop.time()))
        finally:
            for shard, epoch in epochs.items():
                checker = self.disk.checkers[shard]
                if epoch == checker.epoch:
                    checker.hearing.stood_still(began, loop.time())
                else:
                    self._record.tally["coordinator: lost shards while frozen"] += 1
            self._record.say(self._name(life.number), "thaws")
            life.thaw()
        if self._cut_off is life:
            await asyncio.sleep(3.0)
            self._end_cut_off()

    async def _lose_touch(self, seconds: float) -> None:
        """Start an engine while the store does not hear the other, which goes on serving as far as it can."""
        loop = asyncio.get_running_loop()
        life = self._life
        if life is None:
            return
        self._record.say(self._name(life.number), f"is cut off from the store for {seconds:g} s")
        if not self._alone:
            self._record.tally["coordinator: cut off while others go on"] += 1
            life.link.cut_off_until = loop.time() + seconds
            await asyncio.sleep(seconds)
            return
        self._record.tally["coordinator: cut off and taken over from"] += 1
        self._life = None
        self._end_cut_off()
        self._cut_off = life
        began = loop.time()
        life.link.cut_off_until = began + seconds
        try:
            await self.start()
            await asyncio.sleep(max(0.0, began + 1.5 * seconds - loop.time()))
        finally:
            self._end_cut_off()

    def _epochs(self, life: Life) -> dict[int, int]:
        """Return the epochs of the shards that an engine has."""
        if life.engine is None:
            return {}
        return {shard: self.disk.checkers[shard].epoch for shard in life.engine.runners}

    def _end_cut_off(self) -> None:
        life, self._cut_off = self._cut_off, None
        if life is not None:
            self._record.say(self._name(life.number), "ends")
            life.end()
