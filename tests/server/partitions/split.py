"""A coordinator in this process whose default tenant has several partitions."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from lineshaft import wire
from lineshaft.engine.clock import Clock
from lineshaft.engine.engine import Engine
from lineshaft.server.calls import Calls
from lineshaft.server.identity import Identity, KeyRing
from lineshaft.store.memory import MemoryStore
from lineshaft.values.partitions import partition_name, partition_of
from lineshaft.wire import CALLS

PARTITIONS = 3


class Split:
    """Makes calls of one tenant."""

    def __init__(self, engine: Engine, calls: Calls, keys: KeyRing, *, partitions: int = PARTITIONS) -> None:
        self.engine = engine
        self.calls = calls
        self.keys = keys
        self.partitions = partitions
        self.identity = Identity()

    async def call(
        self, name: str, id: str | None = None, *, query: Any = None, body: Any = None, **more: Any
    ) -> Any:
        """Make the call of that name."""
        return await self.calls.call(CALLS[name], self.identity, id=id, query=query, body=body, **more)

    async def enqueue(self, id: str, **given: Any) -> Any:
        """Enqueue a task under this id."""
        return await self.call("enqueue", body=wire.Enqueue(name="n", task_id=id, **given))

    async def claim(self, **given: Any) -> list[wire.ClaimedTask]:
        """Claim, and return the tasks."""
        answer = await self.call("claim", body=wire.Claim(**{"max": 1} | given))
        return list(answer.tasks)

    async def states(self, **given: Any) -> dict[str, str]:
        """Return the states of all tasks by id."""
        page = await self.call("search", body=wire.Search(limit=1_000, **given))
        assert page.next is None
        return {task.task_id: task.state for task in page.tasks}

    async def is_waiting(self) -> bool:
        """Tell whether a claim waits."""
        stats = await self.call("stats")
        return bool(stats.waiting_claims)

    def ids_in(self, partition: int, count: int, *, prefix: str = "t") -> list[str]:
        """Return ids of tasks that one partition has."""
        found: list[str] = []
        number = 0
        while len(found) < count:
            if partition_of(f"{prefix}{number}", self.partitions) == partition:
                found.append(f"{prefix}{number}")
            number += 1
        return found

    def inside(self, partition: int) -> Identity:
        """Return who calls of one partition, as the coordinator knows it inside."""
        return Identity(partition_name(self.identity.tenant, partition))


async def until(holds: Callable[[], Awaitable[bool]]) -> None:
    """Let the event loop have its turns until something holds."""
    async with asyncio.timeout(20):
        while not await holds():  # noqa: ASYNC110 (what it waits for is work of this loop)
            await asyncio.sleep(0)


@contextlib.asynccontextmanager
async def split(
    *,
    store: MemoryStore | None = None,
    clock: Clock | None = None,
    partitions: int = PARTITIONS,
    tenant: str = "default",
) -> AsyncIterator[Split]:
    """Give a coordinator for the length of the block."""
    async with Engine(store or MemoryStore(shards=4), clock=clock) as engine:
        keys = KeyRing(engine, engine.clock.now)
        await keys.load()
        calls = Calls(engine, keys)
        given = Split(engine, calls, keys, partitions=partitions)
        if keys.layout.of(tenant) != partitions:
            await given.call("put_tenant", tenant, body=wire.PutTenant(partitions=partitions))
        given.identity = Identity(tenant)
        yield given
