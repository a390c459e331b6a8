"""The servers behind a store, the test's own, and what may happen to them while coordinators use it."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from random import Random
from typing import Any

from tests import servers
from tests.servers import KeyValueServer, SearchServer, Server, promote
from tests.store.redis.relay import Relay

PATIENCE = 180.0
OUTAGES = (1.0, 7.0)
"""For how long a server stands still (seconds): within an ownership lease, and beyond it."""

Mishap = Callable[[Random], Awaitable[None]]


class Backing:
    """A store and its servers. `mishaps` are done one at a time, and return when the store is whole again."""

    def __init__(self, url: str, mishaps: dict[str, Mishap]) -> None:
        self.url = url
        self.mishaps = mishaps


def kinds() -> list[str]:
    """Return what `backing` can be asked for."""
    return [*_ALONE, "opensearch-nodes", "valkey-replica"]


@contextlib.asynccontextmanager
async def backing(kind: str) -> AsyncIterator[Backing]:
    """Start the servers of one kind, and end them."""
    if kind == "opensearch-nodes":
        async with _three_nodes() as made:
            yield made
    elif kind == "valkey-replica":
        async with _replica() as made:
            yield made
    else:
        server = await asyncio.to_thread(_ALONE[kind], private=True)
        with server:
            yield Backing(server.fresh(), _mishaps_of(server))


_ALONE: dict[str, Callable[..., Any]] = {
    "valkey": servers.valkey,
    "redis": servers.redis,
    "postgres": servers.postgres,
    "opensearch": servers.opensearch,
    "elasticsearch": servers.elasticsearch,
}


def _mishaps_of(server: Server) -> dict[str, Mishap]:
    async def kill(random: Random) -> None:
        await asyncio.to_thread(server.kill)
        await asyncio.sleep(random.uniform(0, 2))
        await asyncio.to_thread(server.restart)

    async def freeze(random: Random) -> None:
        await frozen(server, OUTAGES[0])

    async def freeze_long(random: Random) -> None:
        await frozen(server, OUTAGES[1])

    return {"server killed": kill, "server frozen": freeze, "server frozen past leases": freeze_long}


async def frozen(server: Server, seconds: float) -> None:
    """Let a server stand still for so long."""
    server.freeze()
    try:
        await asyncio.sleep(seconds)
    finally:
        server.thaw()


@contextlib.asynccontextmanager
async def _three_nodes() -> AsyncIterator[Backing]:
    """Three nodes of OpenSearch with two copies of each primary; those of the log are killed and frozen."""
    nodes = await asyncio.to_thread(servers.opensearch_nodes, 3)
    with _removed(nodes):
        prefix = nodes[0].fresh().rpartition("/")[2]

        async def kill(random: Random) -> None:
            node = await asyncio.to_thread(_with_primaries, nodes, prefix)
            await asyncio.to_thread(node.kill)
            await asyncio.sleep(random.uniform(1, 10))
            await asyncio.to_thread(node.restart)
            await asyncio.to_thread(_until_whole, nodes, prefix)

        async def freeze(random: Random) -> None:
            node = await asyncio.to_thread(_with_primaries, nodes, prefix)
            await frozen(node, random.choice([3.0, 12.0]))
            await asyncio.to_thread(_until_whole, nodes, prefix)

        hosts = ",".join(f"127.0.0.1:{node.port}" for node in nodes)
        yield Backing(f"opensearch://{hosts}/{prefix}", {"primary killed": kill, "primary frozen": freeze})


def _with_primaries(nodes: list[Any], prefix: str) -> Any:
    """Return the node that has most primaries of the log."""
    counts = {node.name: 0 for node in nodes}
    for copy in nodes[0].request("GET", f"/_cat/shards/{prefix}-log*?format=json&h=prirep,node").json:
        if copy["prirep"] == "p" and copy["node"] in counts:
            counts[copy["node"]] += 1
    assert any(counts.values()), "the log has no primary"
    return next(node for node in nodes if counts[node.name] == max(counts.values()))


def _until_whole(nodes: list[SearchServer], prefix: str) -> None:
    """Wait until all nodes are there and all copies of the log are in step."""
    deadline = time.monotonic() + PATIENCE
    wanted = "wait_for_status=green&wait_for_nodes=3&timeout=20s"
    for node in nodes:
        while True:
            with contextlib.suppress(OSError):
                if node.request("GET", f"/_cluster/health/{prefix}-log*?{wanted}").status == 200:
                    break
            assert time.monotonic() < deadline, "the cluster is not whole again"
            time.sleep(0.1)


@contextlib.asynccontextmanager
async def _replica() -> AsyncIterator[Backing]:
    """A primary, a replica that every commit waits for, and sentinels, which promote it when it must be."""
    primary, replica = await asyncio.to_thread(servers.valkey_pair)
    pair = [primary, replica]
    with _removed(pair):
        sentinels = await asyncio.to_thread(servers.valkey_sentinels, primary, 1)
        with _removed(sentinels):

            async def fail_over(random: Random) -> None:
                await asyncio.to_thread(pair[0].kill)
                # One that comes back before the sentinel has finished stays primary, and nothing was tried.
                await asyncio.to_thread(_until_named, sentinels[0], pair[1])
                await asyncio.to_thread(pair[0].restart)  # the sentinel makes it a replica
                await asyncio.to_thread(_until_role, pair[0], "slave")
                pair.reverse()

            async def freeze(random: Random) -> None:
                await frozen(pair[1], random.choice(OUTAGES))

            hosts = ",".join(f"127.0.0.1:{sentinel.port}" for sentinel in sentinels)
            yield Backing(
                f"valkey+sentinel://{hosts}/main?wait=1",
                {"primary killed, replica promoted": fail_over, "replica frozen": freeze},
            )


def _until_role(server: KeyValueServer, role: str) -> None:
    """Wait until it is a primary, or a replica that is in step."""
    import redis

    deadline = time.monotonic() + PATIENCE
    while True:
        with contextlib.suppress(redis.RedisError, OSError), server.client() as client:
            told = client.info("replication")
            if told["role"] == role and told.get("master_link_status", "up") == "up":
                return
        assert time.monotonic() < deadline, f"it has not become a {role}"
        time.sleep(0.05)


def _until_named(sentinel: KeyValueServer, server: KeyValueServer) -> None:
    """Wait until the sentinel leads everybody to this server."""
    deadline = time.monotonic() + PATIENCE
    while True:
        with sentinel.client() as client:
            _, port = client.execute_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", "main")
        if int(port) == server.port:
            return
        assert time.monotonic() < deadline, "the replica is not promoted"
        time.sleep(0.05)


class ForgetfulPair:
    """A primary whose replica is promoted while clients still talk to the primary, which then dies."""

    def __init__(self, primary: KeyValueServer, replica: KeyValueServer, relay: Relay) -> None:
        self._primary = primary
        self._replica = replica
        self._relay = relay
        self.url = f"valkey://127.0.0.1:{relay.port}?timeout=1"

    async def part(self) -> None:
        """Promote the replica when it has all that was acknowledged until now; nobody is told."""

        def wait_and_promote() -> None:
            with self._primary.client() as client:
                client.set("everything before this", "has arrived")
                assert client.wait(1, 60_000) == 1
            promote(self._replica)

        await asyncio.to_thread(wait_and_promote)

    async def fail_over(self) -> None:
        """Kill the primary and lead its clients to the other."""
        await asyncio.to_thread(self._primary.kill)
        self._relay.lead_to(self._replica.port)


@contextlib.asynccontextmanager
async def forgetful_pair() -> AsyncIterator[ForgetfulPair]:
    primary, replica = await asyncio.to_thread(servers.valkey_pair)
    with _removed([primary, replica]):
        async with Relay(primary.port) as relay:
            yield ForgetfulPair(primary, replica, relay)


@contextlib.contextmanager
def _removed(started: Any) -> Iterator[None]:
    try:
        yield
    finally:
        for server in started:
            server.remove()
