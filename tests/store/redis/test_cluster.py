"""A cluster of three primaries keeps the promises; each shard is on one of them."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections.abc import Callable, Iterator

import pytest

from lineshaft.errors import Fenced, Invalid, Retryable
from lineshaft.store.base import Store
from lineshaft.store.conformance.commits import CommitPromises
from lineshaft.store.conformance.harness import Batch, Owner, row
from lineshaft.store.conformance.ownership import OwnershipPromises
from lineshaft.store.conformance.pruning import PruningPromises
from lineshaft.store.urls import open_store
from tests.servers import KeyValueServer, run, valkey, valkey_cluster

_NUMBERS = itertools.count()


@pytest.fixture(scope="module")
def nodes() -> Iterator[list[KeyValueServer]]:
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(node) for node in valkey_cluster()]


def place(nodes: list[KeyValueServer]) -> str:
    return f"{nodes[0].url},127.0.0.1:{nodes[1].port}?cluster=true&prefix=p{next(_NUMBERS)}"


class TestCluster(OwnershipPromises, CommitPromises, PruningPromises):
    @pytest.fixture(autouse=True)
    def cluster(self, nodes: list[KeyValueServer]) -> None:
        self.nodes = nodes

    async def make_store(self) -> Store:
        return open_store(place(self.nodes))


def test_shards_lie_on_all_nodes_and_are_served_at_once(nodes: list[KeyValueServer]) -> None:
    async def story() -> None:
        store = open_store(place(nodes))
        await store.open(address="a")
        try:
            owners = [Owner(store, await store.acquire(shard, b"me"), 0) for shard in range(16)]
            await asyncio.gather(*(owner.put(row(1), row(2)) for owner in owners))
            await asyncio.gather(*(owner.put(row(2), row(3)) for owner in owners))
            for owner in owners:
                assert [task.seq for task in (await owner.load()).tasks] == [1, 2, 3]
            prefix = store.url.rpartition("=")[2]
            for node in nodes:
                with node.client() as client:
                    assert any(f"{{{prefix}:".encode() in key for key in client.keys("*"))
        finally:
            await store.close()

    asyncio.run(story())


def test_commits_follow_a_slot_that_moves(nodes: list[KeyValueServer]) -> None:
    async def story() -> None:
        store = open_store(place(nodes))
        await store.open(address="a")
        try:
            owner = Owner(store, await store.acquire(0, b"me"), 0)
            await owner.put(row(1))
            await asyncio.to_thread(move_slot, nodes, f"{{{store.url.rpartition('=')[2]}:0}}:m")
            await until_settled(owner, owner.batch(tasks=[row(2)]))
            # Other servers have no functions until somebody calls them there.
            assert [task.seq for task in (await owner.load()).tasks] == [1, 2]
        finally:
            await store.close()

    asyncio.run(story())


def test_a_replica_takes_the_place_of_a_killed_primary() -> None:
    with contextlib.ExitStack() as stack:
        nodes = [stack.enter_context(node) for node in valkey_cluster()]
        bus = run.Port()
        stack.callback(bus.free)
        settings = {"cluster-enabled": "yes", "cluster-port": str(bus.number), "databases": "1"}
        settings |= {"cluster-node-timeout": "1000", "cluster-replica-validity-factor": "0"}
        replica = stack.enter_context(valkey(settings=settings))
        follow(replica, nodes)
        asyncio.run(lose_a_primary(nodes, replica))


async def lose_a_primary(nodes: list[KeyValueServer], replica: KeyValueServer) -> None:
    store = open_store(place(nodes))
    await store.open(address="a")
    try:
        assert store.tier == "asynchronous replica"
        owners = [Owner(store, await store.acquire(shard, b"me"), 0) for shard in range(8)]
        for owner in owners:
            await owner.put(row(1))
        with nodes[0].client() as client:
            await asyncio.to_thread(client.wait, 1, 10_000)
        nodes[0].kill()
        for owner in owners:
            await until_settled(owner, owner.batch(tasks=[row(2)]), attempts=400)
        for owner in owners:
            assert [task.seq for task in (await owner.load()).tasks] == [1, 2]
    finally:
        await store.close()


def follow(replica: KeyValueServer, nodes: list[KeyValueServer]) -> None:
    """Let the new node be a replica of the first."""
    with replica.client() as client, nodes[0].client() as primary:
        id = primary.execute_command("CLUSTER", "MYID").decode()
        client.execute_command("CLUSTER", "MEET", "127.0.0.1", nodes[0].port, nodes[0].bus)

        def try_to() -> bool:
            try:
                client.execute_command("CLUSTER", "REPLICATE", id)
            except Exception:  # not known yet
                return False
            return True

        wait_for(try_to)
        wait_for(lambda: client.info("replication").get("master_link_status") == "up")


def wait_for(happens: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not happens():
        assert time.monotonic() < deadline
        time.sleep(0.05)  # the servers are other processes


def test_wait_and_sentinels_do_not_go_with_a_cluster() -> None:
    for url in (
        "redis://h/?cluster=true&wait=1",
        "redis+sentinel://h/main?cluster=true",
        "redis://h/3?cluster=true",
    ):
        with pytest.raises(Invalid):
            open_store(url)


async def until_settled(owner: Owner, batch: Batch, *, attempts: int = 100) -> None:
    for _ in range(attempts):
        try:
            await owner.store.commit(owner.ownership, batch)
        except Fenced:
            raise
        except Retryable:
            await asyncio.sleep(0.05)  # the servers are other processes
        else:
            owner.position = batch.position
            return
    raise AssertionError("the cluster has not come back")


def move_slot(nodes: list[KeyValueServer], key: str) -> None:
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(node.client()) for node in nodes]
        slot = clients[0].execute_command("CLUSTER", "KEYSLOT", key)
        ids = [client.execute_command("CLUSTER", "MYID").decode() for client in clients]
        source = next(
            n
            for n, client in enumerate(clients)
            if client.execute_command("CLUSTER", "COUNTKEYSINSLOT", slot)
        )
        target = (source + 1) % len(nodes)
        clients[target].execute_command("CLUSTER", "SETSLOT", slot, "IMPORTING", ids[source])
        clients[source].execute_command("CLUSTER", "SETSLOT", slot, "MIGRATING", ids[target])
        keys = clients[source].execute_command("CLUSTER", "GETKEYSINSLOT", slot, 1000)
        clients[source].execute_command(
            "MIGRATE", "127.0.0.1", nodes[target].port, "", 0, 5000, "KEYS", *keys
        )
        for client in (clients[target], clients[source]):
            client.execute_command("CLUSTER", "SETSLOT", slot, "NODE", ids[target])
