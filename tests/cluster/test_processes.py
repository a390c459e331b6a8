"""`lineshaft serve` several times on a real store: killed, frozen, stopped and joined under load."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import sys
import time
import zlib
from collections.abc import AsyncIterator
from random import Random
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import pytest

pytestmark = [pytest.mark.faults, pytest.mark.timeout(300)]

STORES = ["valkey", "postgres", "opensearch"]
PATIENCE = 60.0


class Served:
    """One coordinator."""

    def __init__(self, process: asyncio.subprocess.Process, url: str) -> None:
        self.process = process
        self.url = url

    @classmethod
    async def start(cls, store: str) -> Served:
        """Start one, and wait until it takes requests."""
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "lineshaft", "--json", "serve", "--store", store, "--listen", "127.0.0.1:0",
            stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        assert process.stdout is not None
        line = await process.stdout.readline()
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


@contextlib.asynccontextmanager
async def crew(store: str, count: int) -> AsyncIterator[Clients]:
    fleet: list[Served] = []
    everybody: list[Served] = []
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as http:
        clients = Clients(fleet, http, seed=count)
        try:
            for _ in range(count):
                fleet.append(await Served.start(store))
                everybody.append(fleet[-1])
            await clients.settled()
            yield clients
            everybody += [served for served in fleet if served not in everybody]
        finally:
            for served in {id(each): each for each in (*everybody, *fleet)}.values():
                with contextlib.suppress(ProcessLookupError):
                    served.process.kill()
                await served.process.communicate()


@pytest.fixture(name="store", params=STORES)
def give_store(request: pytest.FixtureRequest) -> str:
    url: str = request.getfixturevalue(f"{request.param}_url")
    return url


async def test_after_kill_9_the_others_serve_and_nothing_is_lost(store: str) -> None:
    async with crew(store, 3) as clients:
        clients.start(6)
        await clients.more(50)
        victim = clients.fleet.pop()
        victim.signal(signal.SIGKILL)
        took = await clients.settled()
        print(f"{store.partition(':')[0]}: all shards served again {took:.2f} s after kill -9")
        await clients.more(20)
        await clients.stop()
        assert clients.failed == [], "who asked a live coordinator waited at most"
        await clients.nothing_is_lost()


async def test_no_request_fails_while_coordinators_join_and_leave_in_order(store: str) -> None:
    async with crew(store, 2) as clients:
        clients.start(6)
        await clients.more(30)
        clients.fleet.append(await Served.start(store))
        await clients.settled()
        await clients.more(20)
        for _ in range(2):
            leaver = clients.fleet[0]
            leaver.signal(signal.SIGTERM)
            await clients.more(5)
            clients.fleet.remove(leaver)  # its clients have seen that it closes their connections
            assert await leaver.ended() == 0
            await clients.settled()
            await clients.more(20)
        await clients.stop()
        assert clients.failed == []
        await clients.nothing_is_lost()


async def test_who_was_frozen_past_its_lease_shows_nothing_old(store: str) -> None:
    async with crew(store, 3) as clients:
        frozen = await _owner(clients)
        other = next(served for served in clients.fleet if served is not frozen)
        assert (await clients.ask(other, "PUT", "/_tasks/a", {"name": "n"}))[0] == 201
        frozen.signal(signal.SIGSTOP)
        asked = asyncio.ensure_future(clients.ask(frozen, "GET", "/_tasks/a"))
        status, claimed = await clients.ask(other, "POST", "/_tasks/_claim", {})
        assert status == 200, "it waited for the next owner"
        done = {"lease_token": claimed["lease_token"], "result": 7}
        assert (await clients.ask(other, "POST", "/_tasks/a/_complete", done))[0] == 200
        frozen.signal(signal.SIGCONT)
        status, task = await asked
        assert status == 503 or (status, task["state"], task["result"]) == (200, "completed", 7)
        await clients.settled()
        for served in clients.fleet:
            status, task = await clients.ask(served, "GET", "/_tasks/a")
            assert (status, task["state"], task["result"]) == (200, "completed", 7)


class Relay:
    """A way to a server that can be blocked: nothing goes through, and nobody is told."""

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._open = asyncio.Event()
        self._open.set()
        self._pipes: set[asyncio.Task[None]] = set()

    async def listen(self) -> int:
        """Begin, and return the port."""
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    def block(self) -> None:
        self._open.clear()

    def unblock(self) -> None:
        self._open.set()

    async def close(self) -> None:
        self._server.close()
        for pipe in self._pipes:
            pipe.cancel()
        await asyncio.gather(*self._pipes, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self._open.wait()
        there_reader, there_writer = await asyncio.open_connection(*self._target)
        for source, sink in ((reader, there_writer), (there_reader, writer)):
            pipe = asyncio.create_task(self._pipe(source, sink))
            self._pipes.add(pipe)
            pipe.add_done_callback(self._pipes.discard)

    async def _pipe(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await source.read(1 << 16):
                await self._open.wait()
                sink.write(data)
                await sink.drain()
        sink.close()


@pytest.mark.parametrize("kind", ["valkey", "postgres"])
async def test_who_is_cut_off_from_the_store_shows_nothing_old(
    kind: str, request: pytest.FixtureRequest
) -> None:
    store: str = request.getfixturevalue(f"{kind}_url")
    parts = urlsplit(store)
    assert parts.hostname is not None and parts.port is not None
    relays = [Relay(parts.hostname, parts.port) for _ in range(2)]
    ports = [await relay.listen() for relay in relays]
    around = [
        parts._replace(netloc=parts.netloc.replace(f":{parts.port}", f":{port}")).geturl() for port in ports
    ]
    try:
        async with crew(around[0], 1) as clients:
            clients.fleet.append(await Served.start(around[1]))
            await clients.settled()
            cut_off = await _owner(clients)
            [other] = [served for served in clients.fleet if served is not cut_off]
            relay = relays[clients.fleet.index(cut_off)]
            assert (await clients.ask(other, "PUT", "/_tasks/a", {"name": "n"}))[0] == 201
            relay.block()
            status, claimed = await clients.ask(other, "POST", "/_tasks/_claim", {})
            assert status == 200, "it waited for the next owner"
            done = {"lease_token": claimed["lease_token"], "result": 7}
            assert (await clients.ask(other, "POST", "/_tasks/a/_complete", done))[0] == 200
            late = asyncio.ensure_future(clients.ask(cut_off, "GET", "/_tasks/a"))
            await asyncio.sleep(0.5)
            assert not late.done(), "whether it is its own it cannot know"
            relay.unblock()
            status, task = await late
            assert status == 503 or (status, task["state"], task["result"]) == (200, "completed", 7)
            await clients.settled()
            for served in clients.fleet:
                status, task = await clients.ask(served, "GET", "/_tasks/a")
                assert (status, task["state"], task["result"]) == (200, "completed", 7)
    finally:
        for relay in relays:
            await relay.close()


async def _owner(clients: Clients, tenant: str = "default") -> Served:
    """Return who has the tenant's shard."""
    shards = await clients.shards(clients.fleet[0])
    assert shards is not None
    shard = zlib.crc32(tenant.encode()) % sum(map(len, shards.values()))
    return next(served for served in clients.fleet if shard in shards[served.url])
