"""`lineshaft serve` several times on a real store: killed, frozen, stopped and joined under load."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import zlib
from urllib.parse import urlsplit

import pytest

from tests.cluster.processes import Clients, Served, crew

pytestmark = [pytest.mark.faults, pytest.mark.timeout(300)]

STORES = ["valkey", "postgres", "opensearch"]


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
