"""Valkey and Redis keep every promise of a store, as a library of functions and as a script."""

from __future__ import annotations

import pytest

from lineshaft.store.base import Store
from lineshaft.store.conformance import StoreConformance
from lineshaft.store.conformance.commits import CommitPromises
from lineshaft.store.conformance.ownership import OwnershipPromises
from lineshaft.store.conformance.pruning import PruningPromises
from lineshaft.store.conformance.reading import ReadingPromises
from lineshaft.store.redis import RedisStore
from lineshaft.store.urls import open_store
from tests.servers import KeyValueServer


class TestValkey(StoreConformance):
    @pytest.fixture(autouse=True)
    def server(self, valkey_server: KeyValueServer) -> None:
        self.valkey = valkey_server

    async def make_store(self) -> Store:
        return open_store(self.valkey.fresh(), shards="3")

    async def reopen(self, store: Store) -> Store:
        """A restarted process has a new object."""
        await store.close()
        again = open_store(store.url)
        await again.open(address="http://127.0.0.1:7077")
        return again


class TestValkeyWithoutFunctions(CommitPromises, ReadingPromises, PruningPromises):
    """As where they are forbidden, or older than Redis 7."""

    @pytest.fixture(autouse=True)
    def server(self, valkey_server: KeyValueServer) -> None:
        self.valkey = valkey_server

    async def make_store(self) -> Store:
        store = open_store(self.valkey.fresh(), shards="3")
        assert isinstance(store, RedisStore)
        store._functions.as_script = True
        store._functions.install = _nothing  # type: ignore[method-assign]
        return store


class TestRedis(OwnershipPromises, CommitPromises, PruningPromises):
    @pytest.fixture(autouse=True)
    def server(self, redis_server: KeyValueServer) -> None:
        self.redis = redis_server

    async def make_store(self) -> Store:
        return open_store(self.redis.fresh())


async def _nothing() -> None:
    return None
