"""Several engines on one store in virtual time, and the verbs of their stories."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

from lineshaft.core.commands import Claim, Command, Enqueue, Get, NewTask, WorkerInfo
from lineshaft.core.task import Spec
from lineshaft.engine import Engine, Limits, LoopClock
from lineshaft.engine.cluster.roster import Member, Roster, decode
from lineshaft.errors import LineshaftError, NotOwner
from tests.cluster.shared import Line, Shared
from tests.engine.world import START, virtual

SPEC = Spec(name="mail")
LEASE = 5.0


class Mate:
    """One coordinator of the crew."""

    def __init__(self, crew: Crew, name: str, line: Line, engine: Engine) -> None:
        self.crew = crew
        self.name = name
        self.line = line
        self.engine = engine

    @property
    def membership(self) -> Any:
        return self.engine.membership

    @property
    def shards(self) -> list[int]:
        """The shards that it serves."""
        return sorted(n for n, runner in self.engine.runners.items() if runner.state == "serving")

    async def ask(self, command: Command) -> Any:
        return await self.engine.submit(command)


class Peers:
    """Tells the others at once, as the servers do; or not."""

    def __init__(self, crew: Crew) -> None:
        self._crew = crew

    def tell_changed(self, member: Member) -> None:
        for mate in self._crew.mates:
            if mate.membership is not None and mate.membership.id == member.id and self._crew.tells:
                mate.membership.look()


class Crew:
    """Engines that come and go."""

    def __init__(self, *, shards: int = 4, lease: int = int(LEASE * 1000)) -> None:
        self.shared = Shared(shards=shards)
        self.clock = LoopClock(START)
        self.limits = Limits(ownership_lease=lease)
        self.mates: list[Mate] = []
        self.tells = True
        self._nonces = (b"%016d" % n for n in itertools.count(1))

    async def hire(self, name: str) -> Mate:
        """Start an engine."""
        line = self.shared.line()
        engine = Engine(
            line,
            clock=self.clock,
            limits=self.limits,
            address=f"http://{name}",
            nonces=lambda: next(self._nonces),
        )
        engine.holdings.peers = Peers(self)
        mate = Mate(self, name, line, engine)
        self.mates.append(mate)
        await engine.__aenter__()
        return mate

    async def dismiss(self, mate: Mate) -> None:
        """Let an engine hand over and end."""
        await mate.engine.hand_over()
        await mate.engine.close()
        self.mates.remove(mate)

    def kill(self, mate: Mate) -> None:
        """As by kill -9: it is cut off and says nothing more."""
        mate.line.cut.set()
        self.mates.remove(mate)
        self._dead.append(mate)

    @property
    def roster(self) -> Roster:
        return decode(self.shared.memory._roster.data, shards=self.shared.memory.shards)

    def owner(self, tenant: str) -> Mate | None:
        """Return who serves a tenant."""
        for mate in self.mates:
            shard = mate.engine.shard_of(tenant)
            if shard in mate.shards:
                return mate
        return None

    async def ask(self, command: Command, *, patience: float = 30.0) -> Any:
        """Ask whoever owns the tenant's shard, again while it moves; raises what it is refused with."""
        loop = asyncio.get_running_loop()
        until = loop.time() + patience
        while True:
            error: LineshaftError = NotOwner("nobody has it")
            for mate in self.mates:
                try:
                    return await mate.engine.submit(command)
                except NotOwner as refused:
                    error = refused
            if loop.time() > until:
                raise error
            await asyncio.sleep(0.05)

    async def enqueue(self, tenant: str, *ids: str) -> Any:
        tasks = tuple(NewTask(id=id, spec=SPEC, payload=b"1", given=True) for id in ids)
        return await self.ask(Enqueue(tenant=tenant, tasks=tasks))

    async def get(self, tenant: str, id: str) -> Any:
        return (await self.ask(Get(tenant=tenant, id=id))).task

    def claim(self, tenant: str, *, wait: int = 0) -> Claim:
        until = self.clock.now() + wait if wait else None
        return Claim(tenant=tenant, max=1, wait_until=until, worker=WorkerInfo(id="w", incarnation="1"))

    async def pass_time(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
        for _ in range(50):
            await asyncio.sleep(0)

    async def until(self, is_so: Callable[[], bool], *, within: float) -> float:
        """Wait until something is so; return how long it took (virtual seconds)."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        while not is_so():
            assert loop.time() - began < within, "it did not come about in time"
            await asyncio.sleep(0.01)
        return loop.time() - began

    @property
    def settled(self) -> bool:
        """Whether every shard is served, by whom the roster says, and evenly."""
        roster = self.roster
        if any(mate.shards != roster.shards_of(mate.membership.id) for mate in self.mates):
            return False
        loads = [len(mate.shards) for mate in self.mates]
        return sum(loads) == self.shared.memory.shards and max(loads) - min(loads) <= 1

    _dead: list[Mate]


TENANTS = [f"t{n}" for n in range(12)]


@contextlib.asynccontextmanager
async def crew(*names: str, shards: int = 4) -> AsyncIterator[Crew]:
    given = Crew(shards=shards)
    given._dead = []
    try:
        for name in names:
            await given.hire(name)
        if names:
            await given.until(lambda: given.settled, within=LEASE)
        yield given
    finally:
        for mate in given.mates:
            await mate.engine.close()
        for mate in given._dead:
            mate.line.cut.clear()
            await mate.engine.close()


def with_crew(*names: str, shards: int = 4) -> Callable[..., Any]:
    """Run a story with a crew of its own."""

    def decorate(test: Callable[[Crew], Coroutine[Any, Any, None]]) -> Callable[[], None]:
        @virtual
        async def story() -> None:
            async with crew(*names, shards=shards) as given:
                await test(given)

        story.__name__, story.__doc__, story.__module__ = test.__name__, test.__doc__, test.__module__
        return story

    return decorate
