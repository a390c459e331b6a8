"""Coordinators as processes on one store, and clients that ask one or the other."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from random import Random
from typing import Any

import aiohttp

PATIENCE = 60.0


class Served:
    """One coordinator."""

    def __init__(self, process: asyncio.subprocess.Process, url: str) -> None:
        self.process = process
        self.url = url

    @classmethod
    async def start(
        cls, store: str, *, listen: str = "127.0.0.1:0", within: Sequence[str] = (), more: Sequence[str] = ()
    ) -> Served:
        """Start one, and wait until it takes requests; `within` is a command that starts it."""
        process = await asyncio.create_subprocess_exec(
            *within, sys.executable, "-m", "lineshaft", "--json", "serve", "--store", store,
            "--listen", listen, *more,
            stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        assert process.stdout is not None
        line = await process.stdout.readline()
        if not line:
            raise RuntimeError(f"a coordinator did not start: it ended with {await process.wait()}")
        return cls(process, json.loads(line)["url"])

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    async def ended(self) -> int:
        async with asyncio.timeout(PATIENCE):
            await self.process.communicate()
        assert self.process.returncode is not None
        return self.process.returncode


class Clients:
    """Clients that enqueue and read, each through one coordinator after the other."""

    def __init__(self, fleet: list[Served], http: aiohttp.ClientSession, seed: int) -> None:
        self.fleet = fleet
        self._http = http
        self._random = Random(seed)
        self._stopping = False
        self._tasks: list[asyncio.Task[None]] = []
        self.acknowledged: dict[str, str] = {}
        """Tenantless: task ids, with the queue they were put in."""
        self.failed: list[str] = []

    def start(self, count: int) -> None:
        self._tasks = [asyncio.create_task(self._run(number)) for number in range(count)]

    async def stop(self) -> None:
        self._stopping = True
        async with asyncio.timeout(PATIENCE):
            await asyncio.gather(*self._tasks)

    async def more(self, count: int) -> None:
        """Wait until so many more tasks were acknowledged."""
        wanted = len(self.acknowledged) + count
        async with asyncio.timeout(PATIENCE):
            while len(self.acknowledged) < wanted:  # noqa: ASYNC110  # they tell nobody
                await asyncio.sleep(0.01)

    async def _run(self, number: int) -> None:
        count = 0
        while not self._stopping:
            count += 1
            id = f"{number}-{count}"
            served = self._random.choice(self.fleet)
            try:
                status, _ = await self.ask(served, "PUT", f"/_tasks/{id}", {"name": "n", "payload": count})
                if status != 201 and status != 200:
                    self.failed.append(f"PUT {id} at {served.url}: {status}")
                    continue
                self.acknowledged[id] = str(count)
                status, task = await self.ask(served, "GET", f"/_tasks/{id}")
                if status != 200 or task["payload"] != count:
                    self.failed.append(f"GET {id} at {served.url}: {status} {task}")
            except aiohttp.ClientError as error:
                if served in self.fleet:
                    self.failed.append(f"{id} at {served.url}: {error!r}")

    async def ask(self, served: Served, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        async with self._http.request(method, served.url + path, json=body) as answer:
            return answer.status, await answer.json() if answer.status != 204 else None

    async def nothing_is_lost(self) -> None:
        """Look for every acknowledged task, at each coordinator in turn."""
        for n, id in enumerate(self.acknowledged):
            served = self.fleet[n % len(self.fleet)]
            status, task = await self.ask(served, "GET", f"/_tasks/{id}")
            assert status == 200 and str(task["payload"]) == self.acknowledged[id], (id, status, task)

    async def shards(self, served: Served) -> dict[str, list[int]] | None:
        """Return the shards by address, None where the coordinator is not ready."""
        status, health = await self.ask(served, "GET", "/_health/ready")
        if status != 200:
            return None
        return {one["address"]: one["shards"] for one in health["coordinators"]}

    async def settled(self) -> float:
        """Wait until those who are there have all shards, evenly; return how long that took (seconds)."""
        began = time.monotonic()
        there = sorted(served.url for served in self.fleet)
        async with asyncio.timeout(PATIENCE):
            while True:
                told = [await self.shards(served) for served in self.fleet]
                if all(shards is not None and sorted(shards) == there for shards in told):
                    loads = [len(shards) for shards in (told[0] or {}).values()]
                    if max(loads) - min(loads) <= 1 and all(shards == told[0] for shards in told):
                        return time.monotonic() - began
                await asyncio.sleep(0.05)


Start = Callable[[str], Awaitable[Served]]


@contextlib.asynccontextmanager
async def crew(store: str, count: int, start: Start = Served.start) -> AsyncIterator[Clients]:
    """Start so many coordinators; a test puts others in `fleet` in place of those that it ends."""
    fleet: list[Served] = []
    everybody: list[Served] = []
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as http:
        clients = Clients(fleet, http, seed=count)
        try:
            for _ in range(count):
                fleet.append(await start(store))
                everybody.append(fleet[-1])
            await clients.settled()
            yield clients
            everybody += [served for served in fleet if served not in everybody]
        finally:
            for served in {id(each): each for each in (*everybody, *fleet)}.values():
                with contextlib.suppress(ProcessLookupError):
                    served.process.kill()
                await served.process.communicate()
