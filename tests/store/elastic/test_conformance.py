"""A store on a real node keeps every promise."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from lineshaft.store.base import Store
from lineshaft.store.conformance import StoreConformance
from lineshaft.store.urls import open_store
from tests.servers import SearchServer

SHARDS = "shards=3"


class TestOpenSearchStore(StoreConformance):
    blobs_go_with_their_task = False  # they go with their index

    @pytest.fixture(autouse=True)
    def place(self, opensearch_server: SearchServer) -> Iterator[None]:
        self.server = opensearch_server
        self.urls: list[str] = []
        yield
        for url in self.urls:
            opensearch_server.drop(url.rpartition("/")[2])

    async def make_store(self) -> Store:
        self.urls.append(self.server.fresh())
        return open_store(f"{self.urls[-1]}?{SHARDS}")

    async def reopen(self, store: Store) -> Store:
        """A restarted process has a new object, which knows nothing but the name."""
        await store.close()
        again = open_store(store.url)
        await again.open(address="http://127.0.0.1:7077")
        return again
