"""The shards that a coordinator has, kept in step with the roster: taken up, given away, dropped."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any, Protocol

from lineshaft.engine.cluster import roster as steps
from lineshaft.engine.cluster.membership import Evicted, Membership
from lineshaft.engine.cluster.roster import Member
from lineshaft.engine.runner import Runner
from lineshaft.errors import Fenced, NotOwner

_LOG = logging.getLogger("lineshaft.engine")


class Peers(Protocol):
    """How the other coordinators are spoken to; what is lost on the way they find out by their next beat."""

    def tell_changed(self, member: Member) -> None:
        """Let a member look at the roster at once. Returns at once, and raises nothing."""


class Unreached:
    """Nobody is told anything."""

    def tell_changed(self, member: Member) -> None:
        """Do nothing."""


class Holdings:
    """Runs a runner for each shard that the roster gives to this coordinator."""

    def __init__(self, runners: dict[int, Runner], make: Callable[[int, bytes], Runner]) -> None:
        """`make` makes the runner of a shard for an owner nonce; `runners` is kept up to date."""
        self.membership: Membership
        self.peers: Peers = Unreached()
        self.on_change: list[Callable[[], None]] = []
        """Called when the roster has changed."""
        self.on_serving: list[Callable[[int], None]] = []
        """Called with the number of a shard that is ours and served from now on."""
        self.given = 0
        """Shards that were given away."""
        self.taken = 0
        """Shards that were taken up."""
        self._runners = runners
        self._make = make
        self._is_open = False
        self._moving: dict[int, asyncio.Future[None]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._mover: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Take up what the roster gives us at the start. Raises what the store raises where that fails."""
        id = self.membership.id
        fresh = [self._add(shard, id) for shard in self.membership.roster.shards_of(id)]
        await asyncio.gather(*(self._start(runner) for runner in fresh))
        # Others may have joined meanwhile: what is theirs goes to them loaded, not half-way.
        self._is_open = True
        self.changed()

    async def give_all_away(self) -> None:
        """Hand over every shard to those who stay, if anybody does, and take no more."""
        membership = self.membership
        try:
            await membership.change(lambda roster: steps.begin_to_leave(roster, membership.id))
        except Evicted:
            return
        if self._mover is not None:
            await asyncio.wait([self._mover])

    async def close(self) -> None:
        """Follow the roster no more. Whoever calls this stops the runners."""
        self._is_open = False
        ending = [*self._tasks, *([] if self._mover is None else [self._mover])]
        if self._mover is not None:
            self._mover.cancel()
        if ending:
            await asyncio.wait(ending)
        for moving in self._moving.values():
            if not moving.done():
                moving.set_result(None)

    async def settled(self, shard: int) -> None:
        """Wait while a shard is on its way from us to another."""
        moving = self._moving.get(shard)
        if moving is not None:
            await asyncio.wait([moving])

    # -- as the membership's observer ------------------------------------------------------------

    def marks(self) -> dict[int, int]:
        """See `Observer`."""
        return {shard: runner.barrier.mark for shard, runner in self._runners.items()}

    def confirmed(self, marks: dict[int, int]) -> None:
        """See `Observer`."""
        for shard, mark in marks.items():
            runner = self._runners.get(shard)
            if runner is not None:
                runner.confirmed(mark)

    def changed(self) -> None:
        """Take up what is ours, drop what is not, and begin to give away what should be another's."""
        if not self._is_open:
            return
        roster, id = self.membership.roster, self.membership.id
        for shard, runner in list(self._runners.items()):
            if shard not in self._moving and (roster.holders[shard] != id or runner.owner != id):
                self._drop(shard)
        for shard in roster.shards_of(id):
            if shard not in self._runners:
                runner = self._add(shard, id)
                runner.begin(served=lambda shard=shard: self._served(shard))  # type: ignore[misc]
        if self._mover is None and steps.due(roster, id):
            self._mover = asyncio.get_running_loop().create_task(self._move())
        for told in self.on_change:
            told()

    def lost(self) -> None:
        """Drop everything."""
        for shard, runner in list(self._runners.items()):
            if shard in self._moving:
                # Else it would believe in the tenure that we get under our next id.
                runner.forgo()
            else:
                self._drop(shard)
        for told in self.on_change:
            told()

    def announce(self) -> None:
        """See `Observer`."""
        for member in self.membership.roster.members:
            if member.id != self.membership.id:
                self.peers.tell_changed(member)

    def _add(self, shard: int, id: bytes) -> Runner:
        runner = self._runners[shard] = self._make(shard, id)
        return runner

    async def _start(self, runner: Runner) -> None:
        shard = runner.shard_number
        try:
            await runner.start()
        except (Fenced, NotOwner):  # while it was loaded the others took us for dead
            if self._runners.get(shard) is runner:
                self._drop(shard)
            return
        if self._runners.get(shard) is runner:
            self._served(shard)

    def _served(self, shard: int) -> None:
        self.taken += 1
        for told in self.on_serving:
            told(shard)

    def _drop(self, shard: int) -> None:
        runner = self._runners.pop(shard)
        runner.forgo()
        self._spawn(runner.wind_up())

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # -- moving ----------------------------------------------------------------------------------

    async def _move(self) -> None:
        """Give away, one after the other, what should be another's."""
        try:
            while due := steps.due(self.membership.roster, self.membership.id):
                await self._give_away(min(due))
        except Evicted:
            pass  # they are another's already
        finally:
            self._mover = None
        self.changed()  # for what has changed since

    async def _give_away(self, shard: int) -> None:
        membership, id, runner = self.membership, self.membership.id, self._runners.get(shard)
        moving = self._moving[shard] = asyncio.get_running_loop().create_future()
        try:
            if runner is not None:
                await runner.stop(moves=True)
            await membership.change(lambda roster: steps.hand_over(roster, id, shard))
            self.given += membership.roster.holders[shard] != id
        except asyncio.CancelledError:
            runner = None  # whoever closes us stops it
            raise
        finally:
            # What is still ours, or is again, is taken up anew.
            if runner is not None and self._runners.get(shard) is runner:
                del self._runners[shard]
            del self._moving[shard]
            moving.set_result(None)
            self.changed()
