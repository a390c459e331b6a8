"""An empty store on a node, which several objects open, some of them through a gate."""

from __future__ import annotations

import asyncio
from typing import Any

from lineshaft.store.conformance.harness import SHARD, Owner
from lineshaft.store.urls import open_store
from tests.servers import SearchServer
from tests.store.elastic.gate import Gate


class Place:
    """The store, its node and its gate."""

    def __init__(self, server: SearchServer, gate: Gate) -> None:
        self.server = server
        self.gate = gate
        self.prefix = server.fresh().rpartition("/")[2]
        self._stores: list[Any] = []

    async def store(self, *, through_gate: bool = False) -> Any:
        """Return another object that has opened the store, as another process would."""
        port = self.gate.port if through_gate else self.server.port
        store = open_store(f"{self.server.scheme}://127.0.0.1:{port}/{self.prefix}?shards=1")
        await store.open(address="a")
        self._stores.append(store)
        return store

    async def slot(self, slot: int) -> Any:
        """Return what the node answers about a slot of the first generation."""
        return (await self.ask("GET", f"-log-000001/_doc/{SHARD}-{slot}")).json

    async def ask(self, method: str, path: str, body: object = None) -> Any:
        """Ask the node about an index, by what its name has behind the prefix."""
        return await asyncio.to_thread(self.server.request, method, f"/{self.prefix}{path}", body)

    async def close(self) -> None:
        for store in self._stores:
            await store.close()
        await asyncio.to_thread(self.server.drop, self.prefix)


async def seqs(owner: Owner) -> list[int]:
    """Return the arrival numbers of what a load brings."""
    return [task.seq for task in (await owner.load()).tasks]
