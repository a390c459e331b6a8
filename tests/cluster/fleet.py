"""Several whole coordinators with their servers in one process, on one store in memory."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import aiohttp

from lineshaft.server.serve import Coordinator, running
from lineshaft.server.settings import ServerSettings
from tests.cluster.shared import Line, Shared


class Ship:
    """One coordinator of the fleet."""

    def __init__(self, coordinator: Coordinator, line: Line, stack: contextlib.AsyncExitStack) -> None:
        self.coordinator = coordinator
        self.engine = coordinator.engine
        self.line = line
        self.url = coordinator.url
        self.stack = stack

    @property
    def shards(self) -> list[int]:
        return sorted(n for n, runner in self.engine.runners.items() if runner.state == "serving")


class Fleet:
    def __init__(self, client: aiohttp.ClientSession, *, shards: int, lease: float) -> None:
        self.shared = Shared(shards=shards)
        self.ships: list[Ship] = []
        self.client = client
        self._lease = lease

    async def launch(self) -> Ship:
        line, stack = self.shared.line(), contextlib.AsyncExitStack()
        settings = ServerSettings(listen="127.0.0.1:0", ownership_lease=self._lease, grace=5)
        coordinator = await stack.enter_async_context(running(settings, store=line))
        ship = Ship(coordinator, line, stack)
        self.ships.append(ship)
        return ship

    async def stop(self, ship: Ship) -> None:
        """End a coordinator as SIGTERM does."""
        self.ships.remove(ship)
        await ship.stack.aclose()

    async def call(
        self, ship: Ship, method: str, path: str, body: Any = None, *, key: str | None = None, **more: Any
    ) -> tuple[int, Any]:
        """Make a call and return status and answer."""
        headers = {"Authorization": f"ApiKey {key}"} if key else {}
        async with self.client.request(
            method, ship.url + path, json=body, headers=headers | more.pop("headers", {}), **more
        ) as answer:
            if answer.status == 204:
                return 204, None
            if answer.content_type == "application/json":
                return answer.status, await answer.json()
            return answer.status, await answer.text()

    async def until(self, is_so: Callable[[], bool], *, within: float = 20.0) -> None:
        """Wait until something is so."""
        async with asyncio.timeout(within):
            while not is_so():  # noqa: ASYNC110  # nobody tells
                await asyncio.sleep(0.01)

    @property
    def settled(self) -> bool:
        loads = [len(ship.shards) for ship in self.ships]
        return sum(loads) == self.shared.memory.shards and max(loads) - min(loads) <= 1

    def owner(self, tenant: str = "default") -> Ship:
        return next(ship for ship in self.ships if ship.engine.has(tenant))

    def other(self, tenant: str = "default") -> Ship:
        """Return one that has to forward."""
        return next(ship for ship in self.ships if not ship.engine.has(tenant))


@contextlib.asynccontextmanager
async def fleet(count: int, *, shards: int = 4, lease: float = 5.0) -> AsyncIterator[Fleet]:
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector) as client:
        given = Fleet(client, shards=shards, lease=lease)
        try:
            for _ in range(count):
                await given.launch()
            await given.until(lambda: given.settled)
            yield given
        finally:
            await client.close()  # else each coordinator would wait for its connections to go
            for ship in list(given.ships):
                await given.stop(ship)
